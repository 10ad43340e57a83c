package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/dataplane"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// newSidecar prepares the sidecar of a service, with a join token of its own.
func (m *mesh) newSidecar(t *testing.T, service string, args ...string) *meshtest.Sidecar {
	t.Helper()
	return &meshtest.Sidecar{Binary: sidecarBinary, Service: service, ADS: []string{m.Config.XDSListen}, Join: m.JoinToken(t, service), Args: args}
}

// startSidecar returns when it is ready.
func (m *mesh) startSidecar(t *testing.T, service string, args ...string) *meshtest.Sidecar {
	t.Helper()
	s := m.newSidecar(t, service, args...)
	s.Start(t)
	s.WaitReady(t)
	return s
}

// portOf is the port of an address.
func portOf(address string) string { return address[strings.LastIndexByte(address, ':')+1:] }

// goService is a Service behind Go data planes that listen at an address, in front of
// a program at another one.
func goService(name, listen, program string, spec ...string) string {
	return resource("Service", name, append([]string{
		"dataPlanes: [GO]", fmt.Sprintf("inbound: {port: %s, localAddress: %q, tls: MESH}", portOf(listen), program), "endpoints: [\"" + listen + "\"]",
	}, spec...)...)
}

// through is a client of a program whose http_proxy is the sidecar's outbound
// listener.
func through(t *testing.T, outbound string) *http.Client {
	t.Helper()
	tr := &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: outbound}), MaxIdleConnsPerHost: 64, DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: meshtest.Patience}
}

// withLibrary is a client of a program that links the library.
func withLibrary(t *testing.T, d *dataplane.DataPlane) *http.Client {
	t.Helper()
	tr := d.Transport(nil)
	t.Cleanup(func() {
		if c, ok := tr.(interface{ CloseIdleConnections() }); ok {
			c.CloseIdleConnections()
		}
	})
	return &http.Client{Transport: tr, Timeout: meshtest.Patience}
}

// traffic is callers that call all the time.
type traffic struct {
	sent   atomic.Int64
	mu     sync.Mutex
	faults []string
	stop   context.CancelFunc
	done   sync.WaitGroup
}

// callAll has two callers for each URL, each with so many calls a second.
func callAll(t *testing.T, rate int, calls map[string]*http.Client) *traffic {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l := &traffic{stop: cancel}
	for to, client := range calls {
		for range 2 {
			l.done.Go(func() { l.caller(ctx, client, to, time.Second/time.Duration(rate)) })
		}
	}
	t.Cleanup(func() { cancel(); l.done.Wait() })
	return l
}

func (l *traffic) caller(ctx context.Context, client *http.Client, to string, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := call(client, to)
		l.sent.Add(1)
		if err != nil {
			l.mu.Lock()
			l.faults = append(l.faults, fmt.Sprintf("%s: %s: %v", time.Now().Format("05.000"), to, err))
			l.mu.Unlock()
		}
	}
}

// call is not bound to the traffic's end, so that this is no failure.
func call(client *http.Client, to string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, to, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != 200 {
		err = errors.New(strconv.Itoa(res.StatusCode) + " " + string(body))
	}
	return err
}

// wantNone ends it and wants no failure.
func (l *traffic) wantNone(t *testing.T, atLeast int64) {
	t.Helper()
	l.stop()
	l.done.Wait()
	if n := l.sent.Load(); n < atLeast || len(l.faults) > 0 {
		t.Errorf("%d of %d requests failed, want none of at least %d; the first: %q", len(l.faults), n, atLeast, l.faults[:min(5, len(l.faults))])
	}
	t.Logf("%d requests, %d failed", l.sent.Load(), len(l.faults))
}

// metric of a sidecar, by its name and labels.
func metric(t *testing.T, s *meshtest.Sidecar, series string) string {
	t.Helper()
	_, text := s.Get("/metrics")
	found := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(series) + ` (\S+)$`).FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("the sidecar of %s has no %s among\n%s", s.Service, series, text)
	}
	return found[1]
}

func newRequest(t *testing.T, to string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, to, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}
