package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// ownEnvoy is an Envoy with a listener of its own and our two filters in it.
type ownEnvoy struct {
	meshtest.Envoy
	address  string
	identity string // where `watchword enrol` keeps its certificate
}

// newOwnEnvoy prepares one of the configs of deployments/envoy, which are for the
// service orders, with the ports of the test. It has enrolled.
func newOwnEnvoy(t *testing.T, m *mesh, file string) *ownEnvoy {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(meshtest.Root(), "deployments", "envoy", file))
	if err != nil {
		t.Fatal(err)
	}
	e := &ownEnvoy{address: meshtest.FreeAddress(t)}
	e.Service, e.Admin = file, meshtest.FreeAddress(t)
	e.identity = meshtest.ShortDir(t)
	enrolOrders(t, m, e.identity)
	replace := []string{"/var/lib/watchword/identity", e.identity}
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
	return e
}

// enrolOrders runs `watchword enrol` for the service orders.
func enrolOrders(t *testing.T, m *mesh, dir string) {
	t.Helper()
	token := filepath.Join(meshtest.ShortDir(t), "join-token")
	if err := os.WriteFile(token, []byte(m.JoinToken(t, "orders")), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "enrol", "--service", "orders", "--dir", dir, "--ads", m.Config.XDSListen, "--join-token-file", token)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

// startOwnEnvoy starts one of them, for a service that is there.
func startOwnEnvoy(t *testing.T, m *mesh, file string) *ownEnvoy {
	t.Helper()
	e := newOwnEnvoy(t, m, file)
	e.Start(t)
	return e
}

// The configs in deployments/envoy work as they are printed: an Envoy that
// somebody else owns gives the same answers as one of ours, takes changes on
// open connections, and goes on while the control plane is away.
func TestOwnersEnvoy(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"envoy.yaml", "own-stream.yaml"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			m := startMesh(t)
			m.Apply(t, resource("Service", "orders", "{}"))
			e := startOwnEnvoy(t, m, file)
			conn := &meshtest.Conn{Address: e.address}
			m.ApplyWait(t, resource("Service", "billing", "{}")+
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

// An owner's Envoy that starts while the control plane is away denies every
// request, and comes right by itself.
func TestOwnersEnvoyStartsFirst(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"envoy.yaml", "own-stream.yaml"} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			m := startMesh(t)
			m.Apply(t, resource("Service", "orders", "{}")+resource("Service", "shop", "calls: [{service: orders}]"))
			e := newOwnEnvoy(t, m, file)
			m.Stop(t)
			e.Start(t)
			conn := &meshtest.Conn{Address: e.address}
			wantStatus(t, "no control plane", meshtest.Call{}, conn.Do(t, meshtest.Call{}), 403)
			m.ControlPlane.Start(t)
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
