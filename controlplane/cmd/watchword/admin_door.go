package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
)

// adminDoor lets others read what Envoy's admin interface shows, which has no
// authentication, can stop the proxy, and shows shared secrets: it serves some
// paths, with GET alone, and no secret.
type adminDoor struct {
	client *http.Client
	// dumps has a place for one dump at a time: each is in memory as a whole, and
	// keeps Envoy's main thread busy.
	dumps chan struct{}
}

// maxDump is the largest dump that is read, in bytes: it is in memory as a whole.
const maxDump = 256 << 20

// answerTimeout is the longest that an answer may take.
const answerTimeout = time.Minute

const configDump = "/config_dump"

// adminPaths are those that only read, and show no content of requests.
var adminPaths = map[string]bool{
	"/certs": true, "/clusters": true, configDump: true, "/init_dump": true, "/listeners": true, "/memory": true,
	"/ready": true, "/runtime": true, "/server_info": true, "/stats": true, "/stats/prometheus": true,
}

// newAdminDoor goes to the Unix socket where Envoy serves the real one.
func newAdminDoor(socket string) *adminDoor {
	var d net.Dialer
	return &adminDoor{dumps: make(chan struct{}, 1), client: &http.Client{
		Timeout: answerTimeout,
		Transport: &http.Transport{
			DisableCompression: true,
			DialContext:        func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// serve serves l until ctx ends.
func (d *adminDoor) serve(ctx context.Context, l net.Listener) error {
	srv := &http.Server{Handler: d, ReadHeaderTimeout: 10 * time.Second, WriteTimeout: answerTimeout, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10}
	stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
	defer stop()
	defer d.client.CloseIdleConnections()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("the admin interface: %w", err)
	}
	return nil
}

// ServeHTTP implements http.Handler.
func (d *adminDoor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case !isLoopbackHost(r.Host):
		// A web page whose name was made to lead here could read it otherwise.
		http.Error(w, "this is served to localhost and loopback addresses only", http.StatusForbidden)
	case !adminPaths[r.URL.Path]:
		http.Error(w, "of Envoy's admin interface this is served: "+strings.Join(slices.Sorted(maps.Keys(adminPaths)), " "), http.StatusNotFound)
	case r.Method != http.MethodGet:
		w.Header().Set("Allow", http.MethodGet)
		http.Error(w, "nothing can be changed here, only read", http.StatusMethodNotAllowed)
	default:
		d.pass(w, r)
	}
}

func isLoopbackHost(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && ip.IsLoopback()
}

func (d *adminDoor) pass(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == configDump {
		select {
		case d.dumps <- struct{}{}:
			defer func() { <-d.dumps }()
		case <-r.Context().Done():
			return
		}
	}
	to := *r.URL
	to.Scheme, to.Host, to.RawPath = "http", "envoy", "" // in one spelling, which was looked at
	req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, to.String(), nil)
	if err != nil {
		http.Error(w, "that is no request", http.StatusBadRequest)
		return
	}
	res, err := d.client.Do(req)
	if err != nil {
		http.Error(w, "Envoy does not answer", http.StatusBadGateway)
		return
	}
	defer res.Body.Close()
	if r.URL.Path == configDump {
		passDump(w, res)
		return
	}
	w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
	w.WriteHeader(res.StatusCode)
	_, _ = io.Copy(w, res.Body) // who is gone needs no answer
}

// passDump shows nothing that it has not understood.
func passDump(w http.ResponseWriter, res *http.Response) {
	if res.StatusCode != http.StatusOK {
		http.Error(w, fmt.Sprintf("Envoy has no such dump (it answers with code %d)", res.StatusCode), res.StatusCode)
		return
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxDump+1))
	if err == nil && len(text) > maxDump {
		err = fmt.Errorf("it has more than %d bytes", maxDump)
	}
	if err == nil {
		text, err = envoy.RedactDump(text)
	}
	if err != nil {
		http.Error(w, "Envoy's dump can't be shown without its secrets: "+err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(text)
}
