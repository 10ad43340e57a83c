package e2e

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// shopAndOrders is the smallest mesh: shop calls orders.
func shopAndOrders(t *testing.T, m *mesh) string {
	t.Helper()
	return m.service(t, "orders") + resource("Service", "shop", "calls: [{service: orders, scopes: [read, write]}]")
}

// openConns opens connections of both protocols until each worker of Envoy has
// some, and proves that with Envoy's own count.
func openConns(t *testing.T, m *mesh, e *meshtest.Envoy, call meshtest.Call) []*meshtest.Conn {
	t.Helper()
	var conns []*meshtest.Conn
	for len(conns) < 64 {
		for _, p := range []meshtest.Protocol{meshtest.HTTP1, meshtest.HTTP2} {
			c := &meshtest.Conn{Address: m.inbound[e.Service], Protocol: p}
			if got := c.Do(t, call); got.Seen == nil || got.Status != 200 {
				t.Fatalf("%s over %s: got %d %q, want 200", call, p, got.Status, got.Body)
			}
			conns = append(conns, c)
		}
		if len(conns) >= 8 && spread(e.Stats(t, "worker_", "downstream_cx_active")) {
			return conns
		}
	}
	t.Fatalf("one worker of Envoy got all %d connections: %v", len(conns), e.Stats(t, "worker_", "downstream_cx_active"))
	return nil
}

// spread tells whether two workers have connections.
func spread(byWorker map[string]int64) bool {
	busy := 0
	for name, n := range byWorker {
		if n > 0 && strings.HasPrefix(name, "listener.") && !strings.HasPrefix(name, "listener.admin") {
			busy++
		}
	}
	return busy >= 2
}

// A change of policy is in force at the next request after `apply --wait`, on
// every connection that was open all the time, whatever its protocol and
// worker; no connection ends and no listener is touched.
func TestPolicyChangeOnOpenConnections(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	idp := newIssuer(t, "https://idp.example", "ES256")
	m.Apply(t, shopAndOrders(t, m)+resource("Service", "billing", "{}")+idp.resource("idp"))
	e := m.startEnvoy(t, "orders")
	ours := meshtest.Call{Path: "/x", Token: m.Token(t, "shop", "orders")}
	theirs := meshtest.Call{Path: "/x", Token: idp.token(t, meshtest.NewClaims(idp.iss, "ann", "orders"))}
	anonymous := meshtest.Call{Path: "/x"}
	conns := openConns(t, m, e, ours)
	before := listenerChanges(t, e)

	takesBoth := authentication("orders", "orders", "", "STRICT", "{issuer: watchword}", "{issuer: idp, audiences: [orders]}")
	rotated := newIssuer(t, idp.iss, "ES256")
	for i, step := range []struct {
		what, yaml              string
		ours, theirs, anonymous int
	}{
		{"shop is no longer allowed", allowOnly("orders", "billing"), 403, 401, 401},
		{"shop is allowed again", allowOnly("orders", "billing", "shop"), 200, 401, 401},
		{"the other issuer is trusted, but none of its subjects is allowed", takesBoth, 200, 403, 401},
		{"its subjects are allowed", resource("AuthorizationPolicy", "orders-callers", "target: {services: [orders]}", "action: ALLOW",
			"rules: [{from: {services: [shop], issuers: [idp]}}]"), 200, 200, 401},
		{"its key is replaced", rotated.resource("idp"), 200, 401, 401},
		{"its key is back", idp.resource("idp"), 200, 200, 401},
		{"one path is denied", resource("AuthorizationPolicy", "no-x", "target: {services: [orders]}", "action: DENY", "rules: [{to: {paths: [/x]}}]"), 403, 403, 401},
	} {
		m.ApplyWait(t, step.yaml)
		for j, c := range conns {
			for _, k := range []struct {
				who  string
				call meshtest.Call
				want int
			}{{"shop", ours, step.ours}, {"ann of the other issuer", theirs, step.theirs}, {"nobody", anonymous, step.anonymous}} {
				wantStatus(t, fmt.Sprintf("step %d (%s), connection %d (%s), %s", i+1, step.what, j, c.Protocol, k.who), k.call, c.Do(t, k.call), k.want)
			}
		}
	}
	if diff := cmp.Diff(before, listenerChanges(t, e)); diff != "" {
		t.Errorf("policies reached Envoy by way of listeners (-before +after):\n%s", diff)
	}
}

// A change of one service sends nothing to the Envoys of others.
func TestChangeGoesOnlyWhereItIsFelt(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, shopAndOrders(t, m)+m.service(t, "billing"))
	m.startEnvoy(t, "orders")
	other := m.startEnvoy(t, "billing")
	m.WaitConnected(t, "billing", 1)
	before := received(t, other)
	m.ApplyWait(t, allowOnly("orders", "shop"))
	m.ApplyWait(t, allowOnly("orders"))
	if diff := cmp.Diff(before, received(t, other)); diff != "" {
		t.Errorf("the Envoy of billing was sent something when orders changed (-before +after):\n%s", diff)
	}
}

// listenerChanges are Envoy's counts of what happened to listeners.
func listenerChanges(t *testing.T, e *meshtest.Envoy) map[string]int64 {
	t.Helper()
	out := e.Stats(t, "listener_manager.listener_")
	maps.DeleteFunc(out, func(name string, _ int64) bool { return strings.Contains(name, "worker") })
	if len(out) == 0 {
		t.Fatal("Envoy counts no changes of listeners")
	}
	return out
}

// received are Envoy's counts of configuration that it took or refused.
func received(t *testing.T, e *meshtest.Envoy) map[string]int64 {
	t.Helper()
	out := map[string]int64{}
	for _, words := range [][]string{
		{"extension_config_discovery", "update_success"}, {"extension_config_discovery", "update_rejected"}, {"extension_config_discovery", "config_reload"},
		{"lds.update_success"}, {"cds.update_success"}, {"lds.update_rejected"}, {"cds.update_rejected"},
	} {
		maps.Copy(out, e.Stats(t, words...))
	}
	if len(out) == 0 {
		t.Fatal("Envoy counts no updates")
	}
	return out
}
