package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// ownEnvoy is an Envoy with a listener of its own and our two filters in it.
type ownEnvoy struct {
	meshtest.Envoy
	address string
}

// startOwnEnvoy starts one of the configs of deployments/envoy, which are for
// the service orders, with the ports of the test.
func startOwnEnvoy(t *testing.T, m *mesh, file string) *ownEnvoy {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(meshtest.Root(), "deployments", "envoy", file))
	if err != nil {
		t.Fatal(err)
	}
	e := &ownEnvoy{address: meshtest.FreeAddress(t)}
	e.Service, e.Admin = file, meshtest.FreeAddress(t)
	var replace []string
	for _, p := range []struct{ port, address string }{
		{"8080", e.address}, {"8081", m.echo.Address}, {"9901", e.Admin}, {"7401", m.Config.XDSListen}, {"7470", m.Config.XDSListen},
	} {
		_, port, err := net.SplitHostPort(p.address)
		if err != nil {
			t.Fatal(err)
		}
		replace = append(replace, "port_value: "+p.port, "port_value: "+port)
	}
	e.YAML = strings.NewReplacer(replace...).Replace(string(text))
	e.Start(t)
	return e
}

// The configs in deployments/envoy work as they are printed: an Envoy that
// somebody else owns gives the same answers as one of ours, takes changes on
// open connections, and denies before it was ever configured and while the
// service is unknown.
func TestOwnersEnvoy(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"envoy.yaml", "own-stream.yaml"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			m := startMesh(t)
			e := startOwnEnvoy(t, m, file)
			conn := &meshtest.Conn{Address: e.address}
			wantStatus(t, "no such service yet", meshtest.Call{}, conn.Do(t, meshtest.Call{}), 403)

			m.ApplyWait(t, resource("Service", "orders", "{}")+resource("Service", "billing", "{}")+
				resource("Service", "shop", "calls: [{service: orders}, {service: billing}]")+
				resource("Service", "stranger", "calls: [{service: orders}]")+allowOnly("orders", "shop"))
			right := m.Token(t, "shop", "orders")
			for _, c := range []struct {
				what, token string
				want        int
			}{
				{"no token", "", 401},
				{"a token for another audience", m.Token(t, "shop", "billing"), 403},
				{"a caller that is not allowed", m.Token(t, "stranger", "orders"), 403},
				{"the right caller", right, 200},
			} {
				call := meshtest.Call{Path: "/x", Token: c.token}
				wantStatus(t, c.what, call, conn.Do(t, call), c.want)
			}
			seen := conn.Do(t, meshtest.Call{Token: right}).Seen
			if got, want := fmt.Sprint(seen.Header["X-Watchword-Caller"], seen.Header["Authorization"]), "[spiffe://mesh.local/shop] []"; got != want {
				t.Errorf("the service saw caller and Authorization %s, want %s", got, want)
			}

			m.ApplyWait(t, allowOnly("orders", "stranger"))
			call := meshtest.Call{Token: right}
			wantStatus(t, "no longer allowed", call, conn.Do(t, call), 403)
			m.Stop(t)
			wantStatus(t, "control plane stopped", call, conn.Do(t, call), 403)
			wantStatus(t, "control plane stopped, no token", meshtest.Call{}, conn.Do(t, meshtest.Call{}), 401)
		})
	}
}

// An owner's Envoy that starts before the control plane denies every request,
// and comes right by itself.
func TestOwnersEnvoyStartsFirst(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"envoy.yaml", "own-stream.yaml"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			m := &mesh{}
			m.echo.Start(t)
			m.Config.XDSListen = meshtest.FreeAddress(t)
			e := startOwnEnvoy(t, m, file)
			conn := &meshtest.Conn{Address: e.address}
			wantStatus(t, "no control plane", meshtest.Call{}, conn.Do(t, meshtest.Call{}), 403)
			m.Start(t)
			m.Apply(t, resource("Service", "orders", "{}")+resource("Service", "shop", "calls: [{service: orders}]"))
			call := meshtest.Call{Token: m.Token(t, "shop", "orders")}
			meshtest.Eventually(t, func() error {
				if got := conn.Do(t, call); got.Status != 200 {
					return fmt.Errorf("%s: got %d %q, want 200", call, got.Status, got.Body)
				}
				return nil
			})
		})
	}
}
