package doors

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	extension "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	xdsresource "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

const filterType = xdsresource.ExtensionConfigType

// stream is a data plane driven by hand, which confirms all that it is sent, and
// keeps the bytes of it.
type stream struct {
	grpc grpc.BidiStreamingClient[discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse]
	in   chan *discovery.DeltaDiscoveryResponse
	// ended is closed when the stream is; err says how.
	ended chan struct{}
	err   error

	sending sync.Mutex
	node    *core.Node // sent with the first request

	mu  sync.Mutex
	all []byte
}

func openStream(t *testing.T, conn *grpc.ClientConn, node string) *stream {
	t.Helper()
	return openStreamAs(t, conn, &core.Node{Id: node, UserAgentName: "envoy"})
}

func openStreamAs(t *testing.T, conn *grpc.ClientConn, node *core.Node) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	g, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return follow(g, node)
}

func openECDS(t *testing.T, conn *grpc.ClientConn, node *core.Node) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	g, err := extension.NewExtensionConfigDiscoveryServiceClient(conn).DeltaExtensionConfigs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return follow(g, node)
}

func follow(g grpc.BidiStreamingClient[discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse], node *core.Node) *stream {
	s := &stream{grpc: g, node: node, in: make(chan *discovery.DeltaDiscoveryResponse, 10000), ended: make(chan struct{})}
	go func() {
		defer close(s.ended)
		for {
			r, err := g.Recv()
			if err != nil {
				s.err = err
				return
			}
			s.keep(r)
			s.send(&discovery.DeltaDiscoveryRequest{TypeUrl: r.GetTypeUrl(), ResponseNonce: r.GetNonce()})
			s.in <- r
		}
	}()
	return s
}

func (s *stream) keep(r *discovery.DeltaDiscoveryResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, _ := proto.Marshal(r) // it was unmarshalled a moment ago
	s.all = append(s.all, b...)
}

// received are the bytes of all answers.
func (s *stream) received() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.all)
}

// send is not checked: what became of the stream, next says.
func (s *stream) send(req *discovery.DeltaDiscoveryRequest) {
	s.sending.Lock()
	defer s.sending.Unlock()
	req.Node, s.node = s.node, nil
	_ = s.grpc.Send(req)
}

func (s *stream) subscribe(typeURL string, names ...string) {
	s.send(&discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: names})
}

// next is the next answer; nil if the stream has ended.
func (s *stream) next(t *testing.T) *discovery.DeltaDiscoveryResponse {
	t.Helper()
	select {
	case r := <-s.in:
		return r
	case <-s.ended:
		return nil
	case <-time.After(meshtest.Patience):
		t.Fatalf("nothing came within %s", meshtest.Patience)
		return nil
	}
}

// get subscribes to the filters of a service, and returns the version of the one
// with its policies when it has come.
func (s *stream) get(t *testing.T, service string) string {
	t.Helper()
	s.subscribe(filterType, envoy.InboundName(service), envoy.RevokedName(service))
	return s.waitOther(t, envoy.InboundName(service), "")
}

// waitOther returns when the filter comes in another version than the given one.
func (s *stream) waitOther(t *testing.T, name, version string) string {
	t.Helper()
	for {
		r := s.next(t)
		if r == nil {
			t.Fatalf("the stream ended while waiting for %s: %v", name, s.err)
		}
		for _, got := range r.GetResources() {
			if got.GetName() == name && got.GetVersion() != version {
				return got.GetVersion()
			}
		}
	}
}
