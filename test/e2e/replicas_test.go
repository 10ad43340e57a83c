package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/controlplane"
	"github.com/watchword-mesh/watchword/controlplane/ledger"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// etcdFlags are those of a process on an existing etcd.
func etcdFlags(e controlplane.Etcd) []string {
	return []string{
		"--etcd-endpoints", strings.Join(e.Endpoints, ","), "--etcd-ca-file", e.CAFile, "--etcd-cert-file", e.CertFile, "--etcd-key-file", e.KeyFile,
		"--etcd-username", e.Username, "--etcd-password-file", e.PasswordFile,
	}
}

// beside prepares m as another replica on the data of one with a data folder: it has
// the same key-encryption key, and people have the same admin token.
func (m *mesh) beside(t *testing.T, etcd controlplane.Etcd, dir string) {
	t.Helper()
	m.Config.Etcd, m.Config.KEKFile, m.Config.DataDir = etcd, filepath.Join(dir, "kek"), meshtest.ShortDir(t)
	token, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(m.Config.DataDir, "admin.token"), string(token))
}

// finding waits for one about the replicas that has the words.
func (m *mesh) finding(t *testing.T, words string) {
	t.Helper()
	meshtest.Eventually(t, func() error {
		resp, err := m.Admin.Diagnose(t.Context(), &adminv1.DiagnoseRequest{})
		if err != nil {
			return err
		}
		var all []string
		for _, f := range resp.GetFindings() {
			if f.GetSubject() == "replicas" && strings.Contains(f.GetMessage(), words) {
				return nil
			}
			all = append(all, f.GetSubject()+": "+f.GetMessage())
		}
		return fmt.Errorf("no finding about replicas says %q: %q", words, all)
	})
}

// Two replicas on one etcd: what is applied at one is enforced by a data plane of the
// other; when the one is killed, its data plane goes over to the other, which issues
// tokens and takes changes; a clean stop is over at once and leaves nothing to wait for.
// Not one request on the open connections gets an answer that it should not.
func TestTwoReplicas(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	a := newProcess(t, meshtest.ShortDir(t), etcdFlags(etcd)...)
	api := a.serving(t)
	m := &mesh{inbound: map[string]string{}}
	m.echo.Start(t)
	m.beside(t, etcd, a.dir)
	m.Start(t)
	m.finding(t, "2 alive")

	atA := func(yaml string) int64 {
		t.Helper()
		resp, err := api.Apply(t.Context(), meshtest.Documents(yaml))
		if err != nil {
			t.Fatalf("apply at A: %s", meshtest.Explain(err))
		}
		return resp.GetRevision()
	}
	sidecarAt := meshtest.FreeAddress(t)
	revision := atA(m.service(t, "orders") + resource("Service", "stock", "dataPlanes: [GO]", fmt.Sprintf("inbound: {port: %s, localAddress: %q}", portOf(sidecarAt), m.echo.Address)) +
		resource("Service", "shop", "calls: [{service: orders}, {service: stock}]"))
	m.Wait(t, revision)
	m.startEnvoy(t, "orders")
	s := m.newSidecar(t, "stock")
	s.ADS = []string{a.xds, m.Config.XDSListen}
	s.Start(t)
	s.WaitReady(t)
	m.WaitConnected(t, "orders", 1)
	orders, stock := &meshtest.Conn{Address: m.inbound["orders"]}, &meshtest.Conn{Address: sidecarAt}
	toOrders, toStock := meshtest.Call{Token: m.Token(t, "shop", "orders")}, meshtest.Call{Token: m.Token(t, "shop", "stock")}
	wantStatus(t, "orders, token of B", toOrders, orders.Do(t, toOrders), 200)
	wantStatus(t, "stock, token of B", toStock, stock.Do(t, toStock), 200)

	// A knows by what B has written down that the Envoy there has it.
	waitReceipt(t, api, atA(allowOnly("orders")), nil)
	wantStatus(t, "orders, closed at A", toOrders, orders.Do(t, toOrders), 403)
	m.Wait(t, atA(allowOnly("orders", "shop")))
	wantStatus(t, "orders, opened at A", toOrders, orders.Do(t, toOrders), 200)

	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	a.wait(t)
	wantStatus(t, "stock, A was killed", toStock, stock.Do(t, toStock), 200)
	m.WaitConnected(t, "stock", 1)
	toStock.Token = m.Token(t, "shop", "stock")
	wantStatus(t, "stock, another token of B", toStock, stock.Do(t, toStock), 200)
	m.ApplyWait(t, allowOnly("stock"))
	wantStatus(t, "stock, closed at B", toStock, stock.Do(t, toStock), 403)
	m.finding(t, "went without a word")
	m.finding(t, "1 alive")
	// B leads now, and nobody is refused when the next key takes over.
	asked, err := m.Admin.RotateSigningKey(t.Context(), &adminv1.RotateSigningKeyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	keysAre(t, m.Admin, "the next key to sign", func(l *adminv1.SigningKeys) bool { return l.GetActive() == asked.GetNext() })
	wantStatus(t, "orders, old key", toOrders, orders.Do(t, toOrders), 200)
	toOrders.Token = m.Token(t, "shop", "orders")
	wantStatus(t, "orders, after the rotation", toOrders, orders.Do(t, toOrders), 200)

	api = a.serving(t)
	m.finding(t, "2 alive")
	m.ApplyWait(t, allowOnly("stock", "shop"))
	wantStatus(t, "stock, opened at B", toStock, stock.Do(t, toStock), 200)
	began := time.Now()
	a.stop(t)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a clean stop took %s", took)
	}
	m.finding(t, "1 alive")
	wantStatus(t, "orders, at the end", toOrders, orders.Do(t, toOrders), 200)
}

// A replica that is cut off from etcd is not ready, and serves all the same: its data
// planes go on and may connect again, and tokens are signed. When etcd is back it has
// its place again, and what is changed then comes through.
func TestReplicaCutOff(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	line := &meshtest.Link{To: strings.TrimPrefix(etcd.Endpoints[0], "https://")}
	line.Start(t)
	etcd.Endpoints = []string{"https://" + line.Address}
	m := &mesh{inbound: map[string]string{}}
	m.echo.Start(t)
	m.Config.Etcd, m.Config.Bounds = etcd, ledger.Bounds{Authority: 2 * time.Second}
	m.Start(t)
	ready := func(want int) func() error {
		return func() error {
			resp, err := http.Get(m.Config.OpsListen + "/readyz")
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if resp.StatusCode != want {
				return fmt.Errorf("readyz: %d, want %d", resp.StatusCode, want)
			}
			return nil
		}
	}
	meshtest.Eventually(t, ready(200))
	m.Apply(t, shopAndOrders(t, m))
	e := m.startEnvoy(t, "orders")
	m.WaitConnected(t, "orders", 1)
	call := meshtest.Call{Token: m.Token(t, "shop", "orders")}
	conn := &meshtest.Conn{Address: m.inbound["orders"]}
	wantStatus(t, "before", call, conn.Do(t, call), 200)

	line.Freeze()
	meshtest.Eventually(t, ready(503))
	wantStatus(t, "cut off", call, conn.Do(t, call), 200)
	meshtest.Eventually(t, func() error {
		if !strings.Contains(m.Log.String(), "cut off from etcd") {
			return fmt.Errorf("the log does not say that it is cut off")
		}
		return nil
	})
	e.Stop()
	e.Start(t)
	again := &meshtest.Conn{Address: m.inbound["orders"]}
	wantStatus(t, "cut off, the data plane began anew", call, again.Do(t, call), 200)
	wantStatus(t, "cut off, no token", meshtest.Call{}, again.Do(t, meshtest.Call{}), 401)
	if n := strings.Count(m.Log.String(), "cut off from etcd"); n != 1 {
		t.Errorf("the log says %d times that it is cut off, want once", n)
	}

	line.Thaw()
	meshtest.Eventually(t, ready(200))
	m.ApplyWait(t, allowOnly("orders"))
	wantStatus(t, "back, closed", call, again.Do(t, call), 403)
}
