package xds

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	extension "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/internal/quota"
)

// Config of a Server.
type Config struct {
	// Identify says who opens a stream, from the context of its call: nothing
	// else decides which service the stream gets. It must know of a revocation
	// before Disconnect is called, and not block. An error with the code
	// Unauthenticated, PermissionDenied or Unavailable goes to the client as it
	// is; of others the client is told nothing. Without it every stream is
	// refused.
	//
	// It is asked when a stream is opened, and never again: a stream that is open
	// goes on when the certificate it came with has expired, for as long as the
	// instance is enrolled. Disconnect ends it.
	Identify func(context.Context) (Identity, error)
	// VersionKey makes the versions of resources, which data planes, logs and
	// status show: a plain hash would let who sees one try out what a shared
	// secret in the content may be. Replicas need the same one, also after a
	// restart, or everything is sent again. Compulsory, 16 bytes at least.
	VersionKey []byte
	// Tokens gives what the secrets "token/AUDIENCE" hold, to each instance its
	// own. Without it there are none.
	Tokens Tokens
	// Logger gets refusals and unknown names at warn; nil logs nothing.
	Logger hclog.Logger
	// Registerer gets the metrics; nil registers none.
	Registerer prometheus.Registerer
	// Bounds are what the claims are made by; the zero value is 10 s of authority, 1 s
	// of clock error, 12 h of signing, 30 s of grace, and to hold for stragglers.
	Bounds ledger.Bounds
	// Lease makes what a data plane is given under the name "mesh.lease", of each
	// type that it may ask for: it refuses everything from a time on, in whole
	// seconds, and the zero time means always. Equal times give equal bytes. nil: no
	// leases are given, and the data planes of services that have them refuse
	// everything.
	Lease func(end time.Time) ([]Resource, error)
	// Authority says whether this replica may promise things now: without it no
	// leases are given, and streams of services that have them go elsewhere. nil:
	// always. It must not block.
	Authority func() bool
	// MaxStreams bounds the open streams, to protect memory; 0 is no bound. A
	// stream over it gets ResourceExhausted and comes back by its own back-off.
	MaxStreams int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Server serves delta ADS and delta ECDS.
type Server struct {
	log        hclog.Logger
	who        func(context.Context) (Identity, error)
	versionKey []byte
	now        func() time.Time
	maxStreams int64
	metrics    *metrics
	kinds      map[string]*kind
	ctx        context.Context
	cancel     context.CancelFunc

	claims *claims
	leases *leases

	published atomic.Int64
	streams   atomic.Int64

	// mu guards the set of services; that of a service is taken after it, and that of
	// the claims last.
	mu       sync.RWMutex
	ready    bool
	services map[string]*service

	// instances holds the open streams. Its lock is taken last.
	instancesMu sync.Mutex
	instances   map[Identity]map[*stream]struct{}

	// requests is how much each instance may ask for, and lines how often it may
	// have something logged.
	requests, lines *quota.Pace

	tokens  Tokens
	mints   *quota.Pace   // how many tokens each instance may have
	signing chan struct{} // a place for each token that is being made
	// tokenKeys are the keys whose tokens may be used; nil before anybody has said.
	tokenKeys    atomic.Pointer[[]string]
	tokenChanges atomic.Int64 // calls of RenewTokens

	// lagging counts the services that have data planes which are not in sync.
	lagging atomic.Int64

	notify sync.Mutex
	watch  chan struct{} // nil if nobody waits
	woken  time.Time     // when watch was closed last
	wake   *time.Timer   // will close it; nil if none is set
}

// minVersionKey is the least length of Config.VersionKey, in bytes.
const minVersionKey = 16

// New returns a server that answers nobody before the first Publish. It panics
// without a VersionKey. One that is made up here would work, and send everything
// to everybody again at each restart, which nobody would see.
func New(cfg Config) *Server {
	if len(cfg.VersionKey) < minVersionKey {
		panic("xds: Config.VersionKey is shorter than 16 bytes")
	}
	s := &Server{log: cfg.Logger, who: cfg.Identify, versionKey: bytes.Clone(cfg.VersionKey), now: cfg.Now, maxStreams: int64(cfg.MaxStreams),
		services: make(map[string]*service), kinds: make(map[string]*kind), instances: make(map[Identity]map[*stream]struct{})}
	s.requests, s.lines = quota.NewPace(requestsPerSecond, requestsAtOnce), quota.NewPace(linesPerSecond, linesAtOnce)
	s.claims, s.leases = newClaims(cfg.Bounds), newLeases(cfg)
	s.tokens, s.mints, s.signing = cfg.Tokens, quota.NewPace(tokensPerSecond, tokensAtOnce), make(chan struct{}, tokensInParallel)
	if s.log == nil {
		s.log = hclog.NewNullLogger()
	}
	if s.now == nil {
		s.now = time.Now
	}
	s.metrics = newMetrics(s, cfg.Registerer)
	for typeURL := range labels {
		s.kinds[typeURL] = newKind(typeURL, s.metrics)
	}
	// The streams' contexts are those of gRPC; this one only ends them all.
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Register adds ADS and the extension config discovery service to a gRPC server,
// which should be made with [ServerOptions].
func (s *Server) Register(g grpc.ServiceRegistrar) {
	discovery.RegisterAggregatedDiscoveryServiceServer(g, ads{server: s})
	extension.RegisterExtensionConfigDiscoveryServiceServer(g, ecds{server: s})
}

// Close ends all streams, and those that come later. It does not wait for them:
// stop the gRPC server for that.
func (s *Server) Close() { s.cancel() }

// Published returns the last revision that Publish was done with.
func (s *Server) Published() int64 { return s.published.Load() }

// Publish makes content current and pushes it. It never waits for a stream. One
// goroutine calls it, with revisions that never fall. Nobody is answered before
// the end of the first call, which must hold all services: those that it does
// not hold have no resources then, and data planes are told so.
func (s *Server) Publish(u Update) {
	for name, resources := range u.Services {
		if svc := s.toChange(name, len(resources) > 0); svc != nil {
			svc.replace(u.Revision, resources, u.Leases[name])
			s.release(svc)
		}
	}
	s.open()
	// Last: no data plane may be said to have u.Revision before its service was
	// looked at.
	s.published.Store(u.Revision)
	s.claims.write(func(b *ledger.Book) { b.Applied(u.Revision) })
	if len(u.Leases) > 0 {
		s.leases.renewing.Do(func() { go s.renewLeases() })
		s.leases.again()
	} else if s.leases.withheld.Load() {
		s.leases.again()
	}
	s.changed()
}

// open lets all services answer, once all of the first publication is in place.
func (s *Server) open() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ready {
		return
	}
	s.ready = true
	for _, svc := range s.services {
		svc.open()
	}
}

// toChange returns the service to change, nil if there is nothing to remove.
// The caller releases it.
func (s *Server) toChange(name string, create bool) *service {
	s.mu.Lock()
	defer s.mu.Unlock()
	svc := s.services[name]
	if svc == nil && create {
		svc = s.newService(name)
	}
	if svc != nil {
		svc.publishing = true
	}
	return svc
}

func (s *Server) release(svc *service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	svc.mu.Lock()
	defer svc.mu.Unlock()
	svc.publishing = false
	s.forget(svc)
}

// forget drops a service that has neither content nor data planes, and is not
// about to get content. Both locks are held.
func (s *Server) forget(svc *service) {
	if len(svc.content) == 0 && len(svc.rows) == 0 && !svc.publishing {
		delete(s.services, svc.name)
	}
}

func (s *Server) newService(name string) *service {
	svc := &service{server: s, name: name, ready: s.ready,
		rows: make(map[rowKey]*row), waiting: make(map[*row]struct{})}
	s.services[name] = svc
	return svc
}

// join makes a stream part of its service, and of a row there.
func (s *Server) join(st *stream, node, kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	svc := s.services[st.identity.Service]
	if svc == nil {
		svc = s.newService(st.identity.Service)
	}
	svc.mu.Lock()
	defer svc.mu.Unlock()
	key := rowKey{st.identity.Instance, node}
	r := svc.rows[key]
	if r == nil {
		r = &row{service: svc, rowKey: key, kind: kind, since: st.connected}
		svc.rows[key] = r
		svc.wait(r, true)
		s.claims.write(func(b *ledger.Book) { b.Join(r.booked(), s.now()) })
	}
	r.streams = append(r.streams, st)
	st.service, st.row = svc, r
	s.changed()
}

// leave takes a stream out again.
func (s *Server) leave(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	svc, r := st.service, st.row
	svc.mu.Lock()
	defer svc.mu.Unlock()
	r.streams = slices.DeleteFunc(r.streams, func(other *stream) bool { return other == st })
	if len(r.streams) > 0 {
		svc.judge(r)
		return
	}
	delete(svc.rows, r.rowKey)
	svc.wait(r, false)
	s.claims.write(func(b *ledger.Book) { b.Leave(r.booked(), s.now()) })
	if len(svc.waiting) == 0 {
		svc.pushed = time.Time{} // the last ACK will never come
	}
	s.changed()
	s.forget(svc)
}

// serve runs the protocol engine on one stream until either side ends it.
func (s *Server) serve(g streamv3.DeltaStream, typeURL string) error {
	if n := s.streams.Add(1); s.maxStreams > 0 && n > s.maxStreams {
		s.streams.Add(-1)
		return status.Errorf(codes.ResourceExhausted, "this control plane has its %d streams; try again later, or another replica", s.maxStreams)
	}
	defer s.streams.Add(-1)
	who, err := s.identify(g.Context())
	if err != nil {
		return err
	}
	if s.refuses(who.Service) {
		return errNoAuthority
	}
	st := &stream{server: s, identity: who, typeURL: typeURL, connected: s.now()}
	if p, ok := peer.FromContext(g.Context()); ok {
		st.address = p.Addr.String()
	}
	st.ended, st.end = context.WithCancelCause(s.ctx)
	if err := s.admit(g.Context(), st); err != nil {
		st.end(nil)
		return err
	}
	defer s.dismiss(st)
	defer st.minting.Wait()
	defer st.end(nil)
	return s.run(g, st)
}

func (s *Server) run(g streamv3.DeltaStream, st *stream) error {
	err := delta.NewServer(st.ended, st, st).DeltaStreamHandler(gate{g, st}, st.typeURL)
	switch {
	case errors.Is(context.Cause(st.ended), errRevoked):
		return errRevoked
	case s.ctx.Err() != nil:
		return status.Error(codes.Unavailable, "the control plane is stopping; connect again")
	}
	return err
}
