package e2e

import (
	"net"
	"net/http"
	"testing"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// A plain program behind a managed Envoy calls a Go program: Envoy has the token from
// the control plane and speaks TLS of the mesh. What may be called changes while its
// connection to Envoy stays open, and goes on without the control plane.
func TestEnvoyCalls(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	port, out := meshtest.FreeAddress(t), meshtest.FreeAddress(t)
	_, outPort, _ := net.SplitHostPort(out)
	web := func(more ...string) string {
		return m.service(t, "web", append(more, "outbound: {port: "+outPort+"}")...)
	}
	m.Apply(t, resource("Service", "orders", "{dataPlanes: [GO], hosts: [orders.mesh], inbound: {port: 1, localAddress: \"127.0.0.1:1\", tls: MESH}, endpoints: [\""+port+"\"]}")+
		resource("Service", "stranger", "{}")+web("calls: [{service: orders}]"))
	m.startEnvoy(t, "web")
	orders := m.OpenDataPlane(t, "orders")
	relay(t, port, protect(t, orders))
	m.WaitConnected(t, "web", 1)
	program := &meshtest.Conn{Address: out}
	ask := func(host string, header http.Header) meshtest.Answer {
		t.Helper()
		return program.Do(t, meshtest.Call{Path: "/a", Host: host, Header: header})
	}
	const seen = `{"authorization":"","caller":"web","path":"/a"}` + "\n"
	meshtest.Eventually(t, func() error { return statusIs(ask("orders.mesh", nil), 200) })
	for _, tt := range []struct {
		what, host string
		header     http.Header
		status     int
		body       string
	}{
		{"the callee by its host", "orders.mesh", nil, 200, seen},
		{"with a port", "orders.mesh:80", nil, 200, seen},
		{"with a token and a name of the program's own", "orders.mesh", http.Header{"Authorization": {"Bearer x"}, "X-Watchword-Caller": {"admin"}}, 200, seen},
		{"a service that it does not call", "stranger", nil, 404, ""},
	} {
		if got := ask(tt.host, tt.header); got.Status != tt.status || tt.body != "" && got.Body != tt.body {
			t.Errorf("%s: %d %s, want %d %s", tt.what, got.Status, got.Body, tt.status, tt.body)
		}
	}
	m.ApplyWait(t, allowOnly("orders"))
	if got := ask("orders.mesh", nil); got.Status != 403 || got.Header.Get("x-watchword-reason") != "consumer_denied" {
		t.Errorf("a callee that allows nobody: %d %s", got.Status, got.Body)
	}
	m.Delete(t, "AuthorizationPolicy", "orders-callers")
	meshtest.Eventually(t, func() error { return statusIs(ask("orders.mesh", nil), 200) })
	m.Stop(t)
	if got := ask("orders.mesh", nil); got.Status != 200 {
		t.Errorf("without the control plane: %d %s", got.Status, got.Body)
	}
	m.Start(t)
	m.WaitConnected(t, "web", 1)
	m.ApplyWait(t, web())
	meshtest.Eventually(t, func() error { return statusIs(ask("orders.mesh", nil), 404) })
}
