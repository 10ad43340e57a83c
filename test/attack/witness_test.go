package attack

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// castle is what is besieged.
type castle struct {
	*meshtest.ControlPlane
	id, secret string
	orders     *enrolment.Identity
	pushes     chan struct{}
	policies   int
	// What there was before the first attack.
	goroutines int
	heap       uint64
}

const mesh = `
apiVersion: watchword.dev/v1
kind: Service
metadata: {name: orders}
spec: {routes: [{name: health, paths: [/healthz]}]}
---
apiVersion: watchword.dev/v1
kind: Service
metadata: {name: shop}
spec: {calls: [{service: orders}]}
`

func newCastle(t *testing.T) *castle {
	t.Helper()
	c := &castle{ControlPlane: &meshtest.ControlPlane{}, pushes: make(chan struct{}, 64)}
	c.Start(t)
	c.Apply(t, mesh)
	c.id, c.secret = c.ClientSecret(t, "shop")
	c.orders = meshtest.Enrol(t, c.Config.XDSListen, "orders", c.JoinToken(t, "orders"))
	c.follow(t)
	c.goroutines, c.heap = runtime.NumGoroutine(), heapBytes()
	return c
}

// dial makes a gRPC connection to the port of ADS; as nobody if id is nil.
func (c *castle) dial(t *testing.T, id *enrolment.Identity) *grpc.ClientConn {
	t.Helper()
	config := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
	if id != nil {
		config = id.TLSConfig()
	}
	conn, err := grpc.NewClient(c.Config.XDSListen, grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

const ecds = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"

// follow is a data plane of orders, which confirms whatever it gets.
func (c *castle) follow(t *testing.T) {
	conn := c.dial(t, c.orders)
	t.Cleanup(func() { _ = conn.Close() })
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: ecds, ResourceNamesSubscribe: []string{"mesh.inbound/orders", "mesh.revoked/orders"}}); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			resp, err := stream.Recv()
			if err != nil {
				return // the test has ended, or a push will be missed
			}
			c.pushes <- struct{}{}
			_ = stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: ecds, ResponseNonce: resp.GetNonce()})
		}
	}()
	for range 2 {
		c.pushed(t)
	}
}

func (c *castle) pushed(t *testing.T) {
	t.Helper()
	select {
	case <-c.pushes:
	case <-time.After(meshtest.Patience):
		t.Fatal("the data plane gets no push")
	}
}

// push changes what holds for orders, and waits until its data plane has it.
func (c *castle) push(t *testing.T) {
	t.Helper()
	began := time.Now()
	c.policies++
	c.Apply(t, fmt.Sprintf(`
apiVersion: watchword.dev/v1
kind: Service
metadata: {name: orders}
spec: {routes: [{name: health, paths: [/healthz/%d]}]}
`, c.policies))
	c.pushed(t)
	t.Logf("a push took %s", time.Since(began).Round(time.Millisecond))
}

// withstand runs an attack, which returns soon after its context has ended, and
// proves that meanwhile others are served, and that nothing is left of it.
func (c *castle) withstand(t *testing.T, attack func(context.Context, *testing.T)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	stop := make(chan struct{})
	var witnesses sync.WaitGroup
	for _, w := range c.witnesses(t) {
		witnesses.Go(func() { w.watch(t, stop) })
	}
	done := make(chan struct{})
	go func() { defer close(done); attack(ctx, t) }()
	c.push(t)
	<-done
	close(stop)
	witnesses.Wait()
	var now int
	meshtest.Eventually(t, func() error {
		if now = runtime.NumGoroutine(); now > c.goroutines+slack {
			return fmt.Errorf("%d goroutines, %d before the first attack", now, c.goroutines)
		}
		return nil
	})
	after := heapBytes()
	t.Logf("goroutines %d, %d before; heap %d KiB, %d before", now, c.goroutines, after>>10, c.heap>>10)
	if after > c.heap+mostLeft {
		t.Errorf("the heap has %d bytes after the attack, %d before", after, c.heap)
	}
}

const (
	// slack is for the connections of the witnesses, and for etcd.
	slack = 60
	// mostLeft of memory after an attack: pools, and what is remembered of sources.
	mostLeft = 32 << 20
)

func heapBytes() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// witness asks for one thing, again and again, and must get it each time.
type witness struct {
	name   string
	client *http.Client
	ask    func(*http.Client) (*http.Response, error)
}

func (c *castle) witnesses(t *testing.T) []witness {
	t.Helper()
	var all []witness
	for _, at := range []string{
		c.IssuerURL() + "/jwks", c.IssuerURL() + "/.well-known/oauth-authorization-server",
		c.Config.OpsListen + "/livez", c.Config.OpsListen + "/readyz",
	} {
		all = append(all, witness{at[strings.LastIndex(at, "/"):], c.HTTP(t), func(h *http.Client) (*http.Response, error) { return h.Get(at) }})
	}
	form := url.Values{"grant_type": {"client_credentials"}, "audience": {"orders"}, "client_id": {c.id}, "client_secret": {c.secret}}
	all = append(all, witness{"/token", c.HTTP(t), func(h *http.Client) (*http.Response, error) { return h.PostForm(c.TokenURL(), form) }})
	// Each has a connection before the attack.
	for _, w := range all {
		if fault := w.once(); fault != "" {
			t.Fatalf("before the attack: %s: %s", w.name, fault)
		}
	}
	return all
}

func (w witness) once() (fault string) {
	res, err := w.ask(w.client)
	if err != nil {
		return err.Error()
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		return fmt.Sprintf("%d %s %v", res.StatusCode, body, err)
	}
	return ""
}

func (w witness) watch(t *testing.T, stop <-chan struct{}) {
	var took []time.Duration
	faults := 0
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	defer w.client.CloseIdleConnections()
	for {
		began := time.Now()
		if fault := w.once(); fault != "" {
			if faults++; faults < 4 {
				t.Errorf("GET %s during the attack: %s", w.name, fault)
			}
		}
		took = append(took, time.Since(began))
		select {
		case <-stop:
			slices.Sort(took)
			t.Logf("%s: %d requests, %d failed, p50 %s, p99 %s", w.name, len(took), faults, took[len(took)/2], took[len(took)*99/100])
			return
		case <-tick.C:
		}
	}
}
