package xdsclient

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	rulesetType = "type.googleapis.com/watchword.dataplane.v1.Ruleset"
	leaseType   = "type.googleapis.com/watchword.dataplane.v1.Lease"
)

// patience is how long a test waits for what should come at once.
const patience = 30 * time.Second

// plane is a control plane that does what the test says, over TLS: it has no answers
// of its own.
type plane struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	address  string
	sessions chan *session
	ended    chan struct{}
	stop     func()
}

// session is one stream, of which the test is the server.
type session struct {
	t        *testing.T
	stream   discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
	requests chan *request
	end      chan error
}

// DeltaAggregatedResources hands the stream to the test, until that ends it.
func (p *plane) DeltaAggregatedResources(stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	s := &session{stream: stream, requests: make(chan *request), end: make(chan error)}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	go func() {
		for {
			req, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case s.requests <- req:
			case <-ctx.Done():
				return
			}
		}
	}()
	select {
	case p.sessions <- s:
	case <-ctx.Done():
		return ctx.Err()
	case <-p.ended:
		return nil
	}
	select {
	case err := <-s.end:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// newPlane listens on loopback.
func newPlane(t *testing.T) *plane {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return servePlane(t, l)
}

func servePlane(t *testing.T, l net.Listener) *plane {
	t.Helper()
	server, _ := mesh()
	p := &plane{address: l.Addr().String(), sessions: make(chan *session), ended: make(chan struct{})}
	g := grpc.NewServer(grpc.Creds(credentials.NewTLS(server)), grpc.MaxRecvMsgSize(1<<20),
		// As the control plane's own.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 20 * time.Second}))
	discovery.RegisterAggregatedDiscoveryServiceServer(g, p)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(l)
	}()
	p.stop = sync.OnceFunc(func() {
		close(p.ended)
		g.Stop()
		<-done
	})
	t.Cleanup(p.stop)
	return p
}

// next waits for a stream.
func (p *plane) next(t *testing.T) *session {
	t.Helper()
	s := take(t, p.sessions, "a stream")
	s.t = t
	return s
}

func take[T any](t *testing.T, from <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-from:
		return v
	case <-time.After(patience):
		t.Fatalf("%s did not come", what)
		panic("unreachable")
	}
}

func (s *session) send(resp *response) {
	s.t.Helper()
	if err := s.stream.Send(resp); err != nil {
		s.t.Fatal(err)
	}
}

// want receives a request.
func (s *session) want(want *request) {
	s.t.Helper()
	got := take(s.t, s.requests, fmt.Sprintf("the request %v", want))
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		s.t.Fatalf("request (-want +got):\n%s", diff)
	}
}

// greet receives the first request, whatever it is.
func (s *session) greet() *request {
	s.t.Helper()
	return take(s.t, s.requests, "the first request")
}

func (s *session) finish(err error) {
	s.t.Helper()
	select {
	case s.end <- err:
	case <-time.After(patience):
		s.t.Fatal("the stream did not end")
	}
}

// mesh gives the TLS of both ends; both are valid in a bubble of synctest, too.
var mesh = sync.OnceValues(func() (server, client *tls.Config) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"control-plane"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2199, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(root)
	certificates := []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key, Leaf: root}}
	return &tls.Config{Certificates: certificates, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, MinVersion: tls.VersionTLS13},
		&tls.Config{Certificates: certificates, RootCAs: pool, ServerName: "control-plane", MinVersion: tls.VersionTLS13}
})

// enforcer is a Handler that keeps what it was told.
type enforcer struct {
	mu sync.Mutex
	// accepted has all that came, in order; inForce what is there by now.
	accepted []string
	inForce  map[Subscription]Resource
	bad      map[string]error // by name
	refused  chan error
	up       chan bool
}

func newEnforcer() *enforcer {
	return &enforcer{inForce: make(map[Subscription]Resource), bad: make(map[string]error), refused: make(chan error, 100), up: make(chan bool, 100)}
}

func (e *enforcer) Accept(r Resource) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.bad[r.Name]; err != nil {
		return err
	}
	e.accepted = append(e.accepted, fmt.Sprintf("%s@%s=%s", r.Name, r.Version, r.Body))
	e.inForce[Subscription{r.TypeURL, r.Name}] = r
	return nil
}

func (e *enforcer) Remove(typeURL, name string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.bad[name]; err != nil {
		return err
	}
	e.accepted = append(e.accepted, "-"+name)
	delete(e.inForce, Subscription{typeURL, name})
	return nil
}

func (e *enforcer) Held(typeURL string) map[string]string {
	e.mu.Lock()
	defer e.mu.Unlock()
	held := map[string]string{"other": "1"} // was not asked for: not to be claimed
	for s, r := range e.inForce {
		if s.TypeURL == typeURL {
			held[s.Name] = r.Version
		}
	}
	return held
}

func (e *enforcer) Refused(err error) { e.refused <- err }
func (e *enforcer) Connected(up bool) { e.up <- up }

func (e *enforcer) took() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	took := e.accepted
	e.accepted = nil
	return took
}

func config(e *enforcer, addresses ...string) Config {
	_, client := mesh()
	return Config{
		Addresses: addresses, TLS: client, Node: "host-1", Service: "orders", Agent: "watchword-go", Handler: e,
		Subscriptions: []Subscription{{rulesetType, "orders"}, {leaseType, "mesh.lease"}, {rulesetType, "shop"}},
	}
}

var errStop = errors.New("the test is over")

// start runs a client until the end of the test, or until stop.
func start(t *testing.T, c *client) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel(errStop)
		if err := take(t, done, "the end of run"); !errors.Is(err, errStop) {
			t.Errorf("run = %v, want the cause of its context's end", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

func mustClient(t *testing.T, config Config) *client {
	t.Helper()
	c, err := newClient(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.metrics.unregister)
	return c
}

func resource(typeURL, name, version, body string) *discovery.Resource {
	return &discovery.Resource{Name: name, Version: version, Resource: &anypb.Any{TypeUrl: typeURL, Value: []byte(body)}}
}

func ack(typeURL, nonce string) *request { return &request{TypeUrl: typeURL, ResponseNonce: nonce} }
