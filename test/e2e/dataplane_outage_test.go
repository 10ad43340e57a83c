package e2e

import (
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-mesh/watchword/dataplane"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// pair is a mesh in which a program with the library calls one behind a sidecar, and
// a program behind a sidecar calls one with the library.
type pair struct {
	*mesh
	orders, reports *meshtest.Sidecar
	billing, shop   *dataplane.DataPlane
	registry        *prometheus.Registry // of shop
	calls           map[string]*http.Client
}

func startPair(t *testing.T, m *mesh, ads ...string) *pair {
	t.Helper()
	if len(ads) == 0 {
		ads = []string{m.Config.XDSListen}
	}
	inbound, outbound, billing := meshtest.FreeAddress(t), meshtest.FreeAddress(t), meshtest.FreeAddress(t)
	m.Apply(t, goService("orders", inbound, m.echo.Address)+goService("billing", billing, "127.0.0.1:1")+
		resource("Service", "shop", "{dataPlanes: [GO], calls: [{service: orders}]}")+
		resource("Service", "reports", "{dataPlanes: [GO], outbound: {port: "+portOf(outbound)+"}, calls: [{service: billing}]}")+
		resource("Service", "stranger", "{calls: [{service: orders}, {service: billing}]}"))
	p := &pair{mesh: m, registry: prometheus.NewRegistry()}
	at := func(c *dataplane.Config) { c.Addresses = ads }
	p.orders, p.reports = m.newSidecar(t, "orders"), m.newSidecar(t, "reports")
	p.orders.ADS, p.reports.ADS = ads, ads
	p.orders.Start(t)
	p.reports.Start(t)
	p.billing = m.OpenDataPlane(t, "billing", at)
	p.shop = m.OpenDataPlane(t, "shop", at, func(c *dataplane.Config) { c.Registerer = p.registry })
	p.orders.WaitReady(t)
	p.reports.WaitReady(t)
	relay(t, billing, protect(t, p.billing))
	p.calls = map[string]*http.Client{"https://orders/a": withLibrary(t, p.shop), "http://billing/a": through(t, outbound)}
	for to, client := range p.calls {
		meshtest.Eventually(t, func() error { return call(client, to) })
	}
	return p
}

// accepted counts the updates that each data plane has taken.
func (p *pair) accepted(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, kind := range []string{"Ruleset", "Outbound"} { // that there is no lease is said on each stream
		series := fmt.Sprintf("watchword_dataplane_updates_accepted_total{type=%q}", kind)
		out["orders "+kind], out["reports "+kind] = metric(t, p.orders, series), metric(t, p.reports, series)
	}
	families, err := p.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "watchword_dataplane_updates_accepted_total" {
			for _, one := range f.GetMetric() {
				if kind := one.GetLabel()[0].GetValue(); kind != "Lease" {
					out["shop "+kind] = fmt.Sprint(one.GetCounter().GetValue())
				}
			}
		}
	}
	return out
}

// While the control plane is away no request fails, though each is checked and has a
// token. Back at its addresses it has both kinds of data planes in sync again, and
// sends them nothing that they hold; what is applied then reaches them.
func TestGoDataPlanesUnderLoadWithoutControlPlane(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	p := startPair(t, m)
	for _, service := range []string{"orders", "reports", "billing", "shop"} {
		m.WaitConnected(t, service, 1)
	}
	before := p.accepted(t)
	load := callAll(t, 60, p.calls)
	time.Sleep(500 * time.Millisecond)
	m.Stop(t)
	time.Sleep(2 * time.Second)
	if got := metric(t, p.orders, "watchword_dataplane_connected"); got != "0" {
		t.Errorf("without control plane watchword_dataplane_connected is %s, want 0", got)
	}
	if code, text := p.orders.Get("/readyz"); code != 200 {
		t.Errorf("without control plane: readyz says %d %s, want 200: it serves", code, text)
	}
	m.Start(t)
	for _, service := range []string{"orders", "reports", "billing", "shop"} {
		m.WaitConnected(t, service, 1)
	}
	load.wantNone(t, 300)
	if after := p.accepted(t); !maps.Equal(before, after) {
		t.Errorf("updates accepted before and after:\n%v\n%v\nwant no difference", before, after)
	}
	m.ApplyWait(t, allowOnly("orders", "stranger")+allowOnly("billing", "stranger"))
	for to, client := range p.calls {
		if err := call(client, to); err == nil || !strings.Contains(err.Error(), "403") {
			t.Errorf("%s after apply --wait: %v, want 403", to, err)
		}
	}
}

// A control plane that is gone without a word is given up for another address, soon
// enough for what is applied to reach the data planes.
func TestGoDataPlanesHalfOpen(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	line := &meshtest.Link{To: m.Config.XDSListen}
	line.Start(t)
	p := startPair(t, m, line.Address, m.Config.XDSListen)
	load := callAll(t, 10, p.calls)
	line.Freeze()
	began := time.Now()
	// The dead streams keep `apply --wait` from an answer: only the verdicts count.
	m.Apply(t, resource("AuthorizationPolicy", "all", "{action: DENY, rules: [{to: {paths: [/b]}}]}"))
	for to, client := range p.calls {
		to = strings.TrimSuffix(to, "a") + "b"
		meshtest.Eventually(t, func() error {
			if err := call(client, to); err == nil || !strings.Contains(err.Error(), "403") {
				return fmt.Errorf("%s: %w, want 403", to, err)
			}
			return nil
		})
	}
	took := time.Since(began)
	t.Logf("the policy was in force %s after the line had died", took)
	if took > 20*time.Second {
		t.Errorf("it took %s, want at most 20 s", took)
	}
	load.wantNone(t, 100)
	// The line comes back, and what is on it is nobody's any more.
	line.Thaw()
	for _, service := range []string{"orders", "reports", "billing", "shop"} {
		m.WaitConnected(t, service, 1)
	}
}

// The first address was never there, or takes connections and says nothing.
func TestGoDataPlanesFirstAddressDead(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, resource("Service", "orders", "{dataPlanes: [GO]}"))
	silent := &meshtest.Link{To: m.Config.XDSListen}
	silent.Start(t)
	silent.Freeze()
	for what, address := range map[string]string{"refuses": meshtest.FreeAddress(t), "silent": silent.Address} {
		for _, kind := range []string{"library", "sidecar"} {
			t.Run(what+" "+kind, func(t *testing.T) {
				t.Parallel()
				ads := []string{address, m.Config.XDSListen}
				began := time.Now()
				if kind == "library" {
					m.OpenDataPlane(t, "orders", func(c *dataplane.Config) { c.Addresses = ads })
				} else {
					s := m.newSidecar(t, "orders")
					s.ADS = ads
					s.Start(t)
					s.WaitReady(t)
				}
				took := time.Since(began)
				t.Logf("ready after %s", took)
				if most := map[string]time.Duration{"refuses": 5 * time.Second, "silent": 20 * time.Second}[what]; took > most {
					t.Errorf("ready after %s, want at most %s", took, most)
				}
			})
		}
	}
}
