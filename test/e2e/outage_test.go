package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// Without the control plane requests go on by the last policy. When it comes
// back on its folder it knows its resources and signs with the same key, its
// data planes are in sync again, and they are sent nothing that they have.
func TestControlPlaneStopsAndComesBack(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, shopAndOrders(t, m)+allowOnly("orders", "shop"))
	e := m.startEnvoy(t, "orders")
	m.WaitConnected(t, "orders", 1)
	call := meshtest.Call{Path: "/x", Token: m.Token(t, "shop", "orders")}
	conn := &meshtest.Conn{Address: m.inbound["orders"]}
	wantStatus(t, "before", call, conn.Do(t, call), 200)
	versions, counts := e.Filters(t), received(t, e)
	if len(versions) != 3 {
		t.Fatalf("Envoy has the filters %v, want three", versions)
	}

	m.Stop(t)
	meshtest.Eventually(t, func() error { return connected(t, e, 0) })
	wantStatus(t, "control plane stopped, open connection", call, conn.Do(t, call), 200)
	wantStatus(t, "control plane stopped, new connection", call, m.send(t, "orders", call), 200)
	wantStatus(t, "control plane stopped, no token", meshtest.Call{}, m.send(t, "orders", meshtest.Call{}), 401)

	m.Start(t)
	m.WaitConnected(t, "orders", 1)
	meshtest.Eventually(t, func() error { return connected(t, e, 1) })
	if diff := cmp.Diff(versions, e.Filters(t)); diff != "" {
		t.Errorf("versions of the filters (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(resourcesIn(counts), resourcesIn(received(t, e))); diff != "" {
		t.Errorf("what Envoy was sent (-before +after):\n%s", diff)
	}
	wantStatus(t, "back, old token on the open connection", call, conn.Do(t, call), 200)
	call.Token = m.Token(t, "shop", "orders")
	wantStatus(t, "back, new token", call, conn.Do(t, call), 200)
	m.ApplyWait(t, allowOnly("orders"))
	wantStatus(t, "back, after a change", call, conn.Do(t, call), 403)
}

// resourcesIn leaves out the counts that an empty answer raises too.
func resourcesIn(counts map[string]int64) map[string]int64 {
	out := map[string]int64{}
	for name, n := range counts {
		if name != "listener_manager.lds.update_success" && name != "cluster_manager.cds.update_success" {
			out[name] = n
		}
	}
	return out
}

func connected(t *testing.T, e *meshtest.Envoy, want int64) error {
	t.Helper()
	const name = "control_plane.connected_state"
	if got := e.Stats(t, name)[name]; got != want {
		return fmt.Errorf("%s is %d, want %d", name, got, want)
	}
	return nil
}

// An Envoy that has enrolled, and starts while the control plane is away, has no
// listener of ours and lets nobody in; it comes right by itself.
func TestManagedEnvoyStartsFirst(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, shopAndOrders(t, m))
	e := m.newEnvoy(t, "orders")
	e.Enrol(t)
	m.Stop(t)
	e.Start(t)
	if got := e.Get(t, "/listeners"); got != "" {
		t.Errorf("without a control plane Envoy listens on %q, want nothing", got)
	}
	m.ControlPlane.Start(t)
	m.WaitConnected(t, "orders", 1)
	call := meshtest.Call{Token: m.Token(t, "shop", "orders")}
	wantStatus(t, "with a token", call, m.send(t, "orders", call), 200)
	wantStatus(t, "without", meshtest.Call{}, m.send(t, "orders", meshtest.Call{}), 401)
}

// While a service is gone its Envoy denies, and its tokens are those of nobody. Made
// again under the same name it is another service: who was enrolled for the old one
// stays out until it enrols anew, which it can without a restart.
func TestServiceDeletedAndMadeAgain(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, shopAndOrders(t, m))
	e := startOwnEnvoy(t, m, "envoy.yaml")
	call := meshtest.Call{Token: m.Token(t, "shop", "orders")}
	conn := &meshtest.Conn{Address: e.address}
	wantStatus(t, "before", call, conn.Do(t, call), 200)

	m.Apply(t, resource("Service", "shop", "{}")) // nobody may name what goes
	m.Wait(t, m.Delete(t, "Service", "orders"))
	wantStatus(t, "deleted", call, conn.Do(t, call), 403)
	wantStatus(t, "deleted, new connection", call, meshtest.Send(t, e.address, call), 403)

	m.ApplyWait(t, shopAndOrders(t, m))
	wantStatus(t, "made again, and not enrolled", call, conn.Do(t, call), 403)
	if err := os.Remove(filepath.Join(e.identity, "key.pem")); err != nil {
		t.Fatal(err)
	}
	enrolOrders(t, m, e.identity)
	meshtest.Eventually(t, func() error {
		if got := conn.Do(t, call); got.Status != 200 {
			return fmt.Errorf("enrolled anew: got %d %q, want 200", got.Status, got.Body)
		}
		return nil
	})
	wantStatus(t, "made again, no token", meshtest.Call{}, conn.Do(t, meshtest.Call{}), 401)
}
