package xds

import (
	"context"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	extension "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/testing/protocmp"
)

// patience is how long a test waits for what must come. A wake-up that was lost
// never comes, so this only has to outlast a machine that is short of memory or
// disk, which may hold a thread for many seconds.
const patience = time.Minute

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a server and the way to it.
type fixture struct {
	*Server
	conn *grpc.ClientConn
	dial func() (*grpc.ClientConn, error) // another one
}

// tb is what testing.T and rapid.T share.
type tb interface {
	Helper()
	Fatalf(format string, args ...any)
	Fatal(args ...any)
	Logf(format string, args ...any)
}

// testKey keeps versions the same.
var testKey = []byte("the version key of these tests")

// forTest fills in what a server can't be without: a client is who it says in
// its call, as connect does for it.
func (c Config) forTest() Config {
	if c.Identify == nil {
		c.Identify = asItSays
	}
	c.VersionKey = testKey
	return c
}

const (
	serviceHeader  = "test-service"
	instanceHeader = "test-instance"
)

func asItSays(ctx context.Context) (Identity, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	return Identity{Service: strings.Join(md[serviceHeader], ""), Instance: strings.Join(md[instanceHeader], "")}, nil
}

// as makes the calls of a context those of an instance.
func as(ctx context.Context, who Identity) context.Context {
	return metadata.AppendToOutgoingContext(ctx, serviceHeader, who.Service, instanceHeader, who.Instance)
}

// identityOf is the instance that a node runs as, if a test does not say.
func identityOf(node *core.Node) Identity {
	service := claimed(&discovery.DeltaDiscoveryRequest{Node: node})
	return Identity{Service: service, Instance: service + "-instance"}
}

func start(t testing.TB, cfg Config) *fixture {
	f, stop := launch(t, cfg)
	t.Cleanup(stop)
	return f
}

func launch(t tb, cfg Config) (*fixture, func()) {
	lis := bufconn.Listen(1 << 20)
	g := grpc.NewServer(ServerOptions()...)
	s := New(cfg.forTest())
	s.Register(g)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(lis) }()
	dial := func() (*grpc.ClientConn, error) {
		return grpc.NewClient("passthrough:///bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	}
	conn, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{s, conn, dial}, func() {
		conn.Close()
		s.Close()
		g.Stop()
		<-done
	}
}

// deltaStream is what ADS and ECDS clients have in common.
type deltaStream interface {
	grpc.ClientStream
	Send(*discovery.DeltaDiscoveryRequest) error
	Recv() (*discovery.DeltaDiscoveryResponse, error)
}

// plane is a hand-driven data plane.
type plane struct {
	t      tb
	stream deltaStream
	node   *core.Node // sent with the first request
	in     chan *discovery.DeltaDiscoveryResponse
	end    chan error
	stop   context.CancelFunc
	marks  int
}

func envoyNode(id, cluster string) *core.Node {
	return &core.Node{Id: id, Cluster: cluster, UserAgentName: "envoy"}
}

func (f *fixture) connect(t tb, node *core.Node) *plane {
	t.Helper()
	return f.connectAs(t, identityOf(node), node)
}

func (f *fixture) connectAs(t tb, who Identity, node *core.Node) *plane {
	t.Helper()
	ctx, cancel := context.WithCancel(as(context.Background(), who))
	s, err := discovery.NewAggregatedDiscoveryServiceClient(f.conn).DeltaAggregatedResources(ctx)
	return drive(t, s, err, node, cancel)
}

func (f *fixture) connectECDS(t tb, node *core.Node) *plane {
	t.Helper()
	ctx, cancel := context.WithCancel(as(context.Background(), identityOf(node)))
	s, err := extension.NewExtensionConfigDiscoveryServiceClient(f.conn).DeltaExtensionConfigs(ctx)
	return drive(t, s, err, node, cancel)
}

func drive(t tb, s deltaStream, err error, node *core.Node, cancel context.CancelFunc) *plane {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{t: t, stream: s, node: node, in: make(chan *discovery.DeltaDiscoveryResponse, 100), end: make(chan error, 1), stop: cancel}
	go func() {
		for {
			r, err := s.Recv()
			if err != nil {
				p.end <- err
				return
			}
			p.in <- r
		}
	}()
	if tt, ok := t.(testing.TB); ok {
		tt.Cleanup(cancel)
	}
	return p
}

// close ends the stream and waits until it is gone here.
func (p *plane) close() error {
	p.stop()
	return p.ended()
}

func (p *plane) ended() error {
	p.t.Helper()
	select {
	case err := <-p.end:
		p.end <- err
		return err
	case <-time.After(patience):
		p.t.Fatalf("stream did not end")
		return nil
	}
}

func (p *plane) send(req *discovery.DeltaDiscoveryRequest) {
	p.t.Helper()
	req.Node, p.node = p.node, nil
	if err := p.stream.Send(req); err != nil {
		p.t.Fatalf("sending %v: %v", req, err)
	}
}

func (p *plane) subscribe(typeURL string, names ...string) {
	p.t.Helper()
	p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names})
}

func (p *plane) recv() *discovery.DeltaDiscoveryResponse {
	p.t.Helper()
	select {
	case r := <-p.in:
		return r
	case err := <-p.end:
		p.t.Fatalf("stream ended: %v", err)
	case <-time.After(patience):
		p.t.Fatalf("no response came within %v; goroutines:\n%s", patience, stacks())
	}
	return nil
}

// stacks are those of all goroutines, to tell who did not do its part.
func stacks() []byte {
	buf := make([]byte, 1<<20)
	return buf[:runtime.Stack(buf, true)]
}

// want receives one response and compares the whole of it, but for the nonce,
// which must be there.
func (p *plane) want(want *discovery.DeltaDiscoveryResponse) *discovery.DeltaDiscoveryResponse {
	p.t.Helper()
	got := p.recv()
	if got.GetNonce() == "" {
		p.t.Fatalf("response without nonce: %v", got)
	}
	if d := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(&discovery.DeltaDiscoveryResponse{}, "nonce")); d != "" {
		p.t.Fatalf("response differs (-want +got):\n%s", d)
	}
	return got
}

func (p *plane) ack(r *discovery.DeltaDiscoveryResponse) {
	p.t.Helper()
	p.send(ackOf(r))
}

func ackOf(r *discovery.DeltaDiscoveryResponse) *discovery.DeltaDiscoveryRequest {
	return &discovery.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()}
}

func (p *plane) nack(r *discovery.DeltaDiscoveryResponse, why string) {
	p.t.Helper()
	p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce(), ErrorDetail: &rpcstatus.Status{Code: 13, Message: why}})
}

// quiet proves that the server had nothing to send: it asks for something that
// does not exist, in a type of its own, and the answer to that must come next.
// It also proves that all requests before were dealt with.
func (p *plane) quiet() {
	p.t.Helper()
	p.marks++
	name := "mark-" + string(rune('a'+p.marks%26)) + time.Now().Format("150405.000000000")
	p.subscribe(markType, name)
	r := p.want(&discovery.DeltaDiscoveryResponse{TypeUrl: markType, RemovedResources: []string{name}})
	p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: markType, ResponseNonce: r.GetNonce(), ResourceNamesUnsubscribe: []string{name}})
}

const (
	markType = "type.googleapis.com/test.Mark"
	ecdsType = resource.ExtensionConfigType
)

func filter(name, body string) Resource {
	return Resource{TypeURL: ecdsType, Name: name, Body: []byte(body)}
}

func one(r Resource) *discovery.DeltaDiscoveryResponse {
	return &discovery.DeltaDiscoveryResponse{TypeUrl: r.TypeURL, Resources: []*discovery.Resource{newEntry(testKey, r).wire}}
}

func removed(typeURL string, names ...string) *discovery.DeltaDiscoveryResponse {
	return &discovery.DeltaDiscoveryResponse{TypeUrl: typeURL, RemovedResources: names}
}

func (f *fixture) publish(revision int64, service string, resources ...Resource) {
	f.Publish(Update{Revision: revision, Services: map[string][]Resource{service: resources}})
}

// until waits for a state of the ledger, woken by Progress.
func (f *fixture) until(t tb, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for {
		_, change := f.Progress(0)
		if ok() {
			return
		}
		select {
		case <-change:
		case <-deadline:
			t.Fatalf("not within %v: %s; data planes: %+v", patience, what, f.DataPlanes(""))
		}
	}
}

func (f *fixture) untilInSync(t tb, service string, n int) {
	t.Helper()
	f.until(t, "all in sync", func() bool {
		all := f.DataPlanes(service)
		for _, dp := range all {
			if !dp.InSync {
				return false
			}
		}
		return len(all) == n
	})
}
