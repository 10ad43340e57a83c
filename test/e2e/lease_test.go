package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// Without the control plane an Envoy and a sidecar serve to the end of their leases,
// and refuse from then on, over connections that stay open; when it is back they serve
// again, without a restart. A service without leases serves all the while.
func TestLeases(t *testing.T) {
	t.Parallel()
	m := &mesh{inbound: map[string]string{}}
	m.echo.Start(t)
	m.Config.LeaseForTests = 6 * time.Second
	m.ControlPlane.Start(t)
	behind := meshtest.FreeAddress(t)
	m.Apply(t, m.service(t, "orders", "lease: 30s")+m.service(t, "free")+
		goPlain("billing", behind, m.echo.Address)+
		resource("Service", "shop", "calls: [{service: orders}, {service: billing}, {service: free}]"))
	m.startEnvoy(t, "orders")
	m.startEnvoy(t, "free")
	m.startSidecar(t, "billing")
	m.inbound["billing"] = behind
	calls, conns := map[string]meshtest.Call{}, map[string]*meshtest.Conn{}
	for _, name := range []string{"orders", "billing", "free"} {
		m.WaitConnected(t, name, 1)
		calls[name] = meshtest.Call{Path: "/x", Token: m.Token(t, "shop", name)}
		conns[name] = &meshtest.Conn{Address: m.inbound[name]}
	}
	until := func(what, service string, status int) {
		t.Helper()
		meshtest.Eventually(t, func() error {
			if got := conns[service].Do(t, calls[service]); got.Status != status {
				return fmt.Errorf("%s: %s says %d %q, want %d", what, service, got.Status, got.Body, status)
			}
			return nil
		})
	}
	leased := []string{"orders", "billing"}
	for _, name := range leased {
		until("at first", name, 200)
	}
	renewed := time.Now().Add(2 * m.Config.LeaseForTests)
	for time.Now().Before(renewed) {
		for _, name := range leased {
			wantStatus(t, "while it is renewed", calls[name], conns[name].Do(t, calls[name]), 200)
		}
		time.Sleep(50 * time.Millisecond)
	}

	m.Stop(t)
	for _, name := range leased {
		wantStatus(t, "right after the end of the control plane", calls[name], conns[name].Do(t, calls[name]), 200)
	}
	stopped := time.Now()
	for _, name := range leased {
		until("its lease ended", name, 503)
		if took := time.Since(stopped); took > m.Config.LeaseForTests+time.Second {
			t.Errorf("%s served for %v without the control plane, want %v at most", name, took, m.Config.LeaseForTests)
		}
		got := conns[name].Do(t, calls[name])
		if want := `{"reason":"lease_expired"}`; got.Body != want || got.Header.Get("x-watchword-reason") != "lease_expired" {
			t.Errorf("%s says %q (%v), want %s", name, got.Body, got.Header, want)
		}
	}
	wantStatus(t, "no leases", calls["free"], conns["free"].Do(t, calls["free"]), 200)

	m.Start(t)
	for _, name := range leased {
		until("the control plane is back", name, 200)
	}
	wantStatus(t, "no leases", calls["free"], conns["free"].Do(t, calls["free"]), 200)
}

// goPlain is a Service with leases behind a sidecar that speaks plain text.
func goPlain(name, listen, program string) string {
	return resource("Service", name, "dataPlanes: [GO]", "lease: 30s", fmt.Sprintf("inbound: {port: %s, localAddress: %q}", portOf(listen), program))
}
