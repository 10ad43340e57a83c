package envoy

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/anypb"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// leased is a managed Envoy of a service with leases, whose control plane can give
// them and can go away.
type leased struct {
	port  uint32
	key   *key
	ads   *adsServer
	stop  func()
	envoy *proxy
}

func newLeased(t *testing.T, first time.Time) *leased {
	t.Helper()
	w := &leased{port: freePort(t), key: newKey(t, "a1")}
	rs := ruleset(t, strings.Replace(small, "{", `{"leased": true,`, 1))
	rs.Issuers[0].Keys = []*dataplanev1.Key{w.key.proto()}
	rs.Inbound = &dataplanev1.Inbound{Address: "127.0.0.1", Port: w.port, LocalIp: "127.0.0.1", LocalPort: serveUpstream(t)}
	resources, err := Resources(rs)
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(resources, func(r Resource) bool { return r.Name == LeaseName }) {
		t.Error("the resources of a service with leases have a lease, which each data plane gets for itself")
	}
	lease, err := Lease(first)
	if err != nil {
		t.Fatal(err)
	}
	address := ""
	w.ads, address, w.stop = startADS(t, append(resources, lease))
	admin := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	config, err := Bootstrap(BootstrapOptions{Service: rs.GetService(), ADSAddress: address, AdminAddress: admin, Unprotected: true})
	if err != nil {
		t.Fatal(err)
	}
	w.envoy = runEnvoy(t, config, admin)
	return w
}

// reply is what a caller with a good token gets over one connection.
type reply struct {
	status             int
	reason, body, kind string
}

func (w *leased) get(t *testing.T, c *http.Client) reply {
	t.Helper()
	req, err := http.NewRequest("GET", fmt.Sprintf("http://127.0.0.1:%d/x", w.port), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("authorization", "Bearer "+w.key.sign(claims(nil)))
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header.Get("x-watchword-reason"), string(b), res.Header.Get("content-type")}
}

// Requests are served before the end of a lease, and refused from then on, with no
// control plane at all, over a connection that stays open.
func TestLeaseEnds(t *testing.T) {
	end := time.Now().Add(5 * time.Second).Truncate(time.Second)
	w := newLeased(t, end)
	c := &http.Client{Transport: new(http.Transport)}
	defer c.CloseIdleConnections()
	if got := w.get(t, c); got.status != 200 {
		t.Fatalf("%v before the end: got %+v, want 200\n%s", time.Until(end), got, w.envoy.log)
	}
	w.stop()
	for {
		before := time.Now()
		got := w.get(t, c)
		if before.Before(end) {
			if got.status != 200 && time.Now().Before(end) {
				t.Fatalf("%v before the end: got %+v, want 200", end.Sub(before), got)
			}
			time.Sleep(20 * time.Millisecond)
			continue
		}
		if want := (reply{503, "lease_expired", `{"reason":"lease_expired"}`, "application/json"}); got != want {
			t.Errorf("%v after the end: got %+v, want %+v", before.Sub(end), got, want)
		}
		break
	}
	eventually(t, 10*time.Second, func() error { // it is written in intervals
		if !strings.Contains(w.envoy.log.String(), "rbac_access_denied_matched_policy[lease_expired]") {
			return errors.New("the access log does not say why")
		}
		return nil
	})
}

// A lease that has ended refuses until it is renewed; the zero one refuses always,
// and that of a service without leases lets everything through.
func TestLeaseIsRenewed(t *testing.T) {
	w := newLeased(t, time.Now().Add(-time.Second))
	c := &http.Client{Transport: new(http.Transport)}
	defer c.CloseIdleConnections()
	status := func(want int) {
		t.Helper()
		eventually(t, 10*time.Second, func() error {
			if got := w.get(t, c); got.status != want {
				return fmt.Errorf("got %+v, want %d\n%s", got, want, w.envoy.log)
			}
			return nil
		})
	}
	give := func(r Resource, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		w.ads.push(r)
	}
	status(503)
	give(Lease(time.Now().Add(time.Hour)))
	status(200)
	give(Lease(time.Time{}))
	status(503)
	give(Unleased())
	status(200)
}

// push sends a resource to whoever is connected.
func (s *adsServer) push(r Resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nonce++
	for _, stream := range s.streams {
		_ = stream.Send(&discoveryv3.DeltaDiscoveryResponse{
			TypeUrl: r.TypeURL, Nonce: fmt.Sprint(s.nonce),
			Resources: []*discoveryv3.Resource{{Name: r.Name, Version: fmt.Sprint(s.nonce), Resource: &anypb.Any{TypeUrl: r.TypeURL, Value: r.Body}}},
		})
	}
}
