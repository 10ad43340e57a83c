package enrolment

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/internal/failures"
	"github.com/watchword-mesh/watchword/internal/identity"
	"github.com/watchword-mesh/watchword/internal/quota"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

// Config is what a Server needs.
type Config struct {
	Records    Records
	Mesh       Mesh
	Assertions Assertions
	// Pepper is what join tokens are hashed with.
	Pepper []byte
	// Identify says which enrolled instance the connection of a call is of, and
	// which key that has.
	Identify func(context.Context) (identity.ID, crypto.PublicKey, error)
	// Refused is told of each enrolment that was refused, for the audit.
	Refused func(audit.Entry)
	// CertificateLifetime is that of certificates of instances; 0 means the constant
	// of this name.
	CertificateLifetime time.Duration
	Now                 func() time.Time
	Logger              hclog.Logger
	// Registerer takes the metrics; nil means that they are not published.
	Registerer prometheus.Registerer
}

// Server is the gRPC service.
type Server struct {
	enrolmentv1.UnimplementedEnrolmentServiceServer
	Config
	failed *failures.Counter
	// working has a place for each enrolment that is being looked at: strangers
	// must not take the processor from the streams of those who are enrolled.
	working chan struct{}
	byToken queues
	// slow is the place of sources that keep failing, so that the others need not
	// wait behind them.
	slow            chan struct{}
	renewals, fresh *quota.Pace
	metrics         *metrics
}

// New returns a Server.
func New(c Config) *Server {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.CertificateLifetime == 0 {
		c.CertificateLifetime = CertificateLifetime
	}
	if c.Refused == nil {
		c.Refused = func(audit.Entry) {}
	}
	return &Server{Config: c, failed: failures.New(), working: make(chan struct{}, 4*runtime.GOMAXPROCS(0)), slow: make(chan struct{}, 1),
		renewals: quota.NewPace(renewalsPerSecond, renewalsAtOnce), fresh: quota.NewPace(freshPerSecond, freshAtOnce), metrics: newMetrics(c.Registerer)}
}

// Register adds it to a gRPC server.
func (s *Server) Register(g grpc.ServiceRegistrar) {
	enrolmentv1.RegisterEnrolmentServiceServer(g, s)
}

// request is an enrolment that is being looked at.
type request struct {
	service, instance, node, source string
	key                             crypto.PublicKey
	jwk                             string
}

// Enrol implements enrolmentv1.EnrolmentServiceServer.
func (s *Server) Enrol(ctx context.Context, req *enrolmentv1.EnrolRequest) (*enrolmentv1.EnrolResponse, error) {
	source := sourceOf(ctx)
	leave, err := s.turn(ctx, source)
	if err != nil {
		return nil, err
	}
	defer leave()
	r, err := read(req, source)
	if err != nil {
		return nil, s.refuse(ctx, r, err)
	}
	i, err := s.enrol(ctx, r, req)
	if err != nil {
		return nil, s.refuse(ctx, r, err)
	}
	id, err := s.issue(r.service, i.ID, r.key)
	if err != nil {
		return nil, s.fault("issuing a certificate", err)
	}
	s.metrics.enrolled.Inc()
	s.Logger.Info("instance enrolled", "service", i.Service, "instance", i.ID, "node", i.Node, "by", i.AttestedBy, "source", source)
	return &enrolmentv1.EnrolResponse{Identity: id}, nil
}

// attempts is how often an enrolment is tried anew, when others have used the
// same join token meanwhile.
const attempts = 32

// enrol stores the instance that a request proves to be, and returns when it is
// known here.
func (s *Server) enrol(ctx context.Context, r request, req *enrolmentv1.EnrolRequest) (store.Instance, error) {
	judge := s.judge(ctx, r, req)
	leave, err := s.queue(ctx, req)
	if err != nil {
		return store.Instance{}, err
	}
	i, err := s.enrolTill(ctx, r, judge)
	leave()
	if err != nil {
		return store.Instance{}, err
	}
	return i, s.Mesh.Reached(ctx, i.Revision)
}

// enrolTill tries anew when others have written meanwhile.
func (s *Server) enrolTill(ctx context.Context, r request, judge func() (proof, error)) (store.Instance, error) {
	fresh := sync.OnceValue(func() bool { return s.fresh.Take(failures.Key(r.source), 1, s.Now()) == 0 }) // once, however often it is tried
	for range attempts {
		i, err := s.enrolOnce(ctx, r, judge, fresh)
		if !errors.Is(err, store.ErrConflict) && !errors.Is(err, errGone) {
			return i, err
		}
	}
	return store.Instance{}, answerf(codes.Aborted, "others keep using the same join token at the same time; try again")
}

// errGone: the instance was there when the credential was judged, and is no more.
var errGone = errors.New("the enrolment has ended meanwhile")

func (s *Server) enrolOnce(ctx context.Context, r request, judge func() (proof, error), fresh func() bool) (store.Instance, error) {
	revision := s.Mesh.Revision() // before the credential is judged by what Mesh says
	proof, err := judge()
	if err != nil {
		return store.Instance{}, err
	}
	before, err := s.Records.Instance(ctx, r.service, r.instance)
	switch {
	case err == nil:
		return s.again(ctx, before)
	case !errors.Is(err, store.ErrUnknown):
		return store.Instance{}, err
	case proof.used != "":
		return store.Instance{}, refusef("instance revoked", "it has enrolled with %s before, and was revoked since", proof.used)
	case !fresh():
		return store.Instance{}, answerf(codes.ResourceExhausted, "too many new instances enrol from this address; try again")
	}
	now := s.Now().UTC()
	i := store.Instance{Service: r.service, ID: r.instance, Node: r.node, PublicJWK: r.jwk, AttestedBy: proof.by,
		Enrolled: now, Renewed: now, Expires: now.Add(Lifetime), Revision: revision}
	entry := audit.Entry{Actor: "instance:" + r.service + "/" + r.instance, Source: r.source, Method: "Enrol",
		Subjects: []string{fmt.Sprintf("instance %s/%s by %s", r.service, r.instance, proof.by)}}
	return s.Records.Enrol(ctx, i, proof.token, entry)
}

// again is for a key that is enrolled: it uses nothing up, and there is nothing to
// write more than once a day, however often it asks.
func (s *Server) again(ctx context.Context, i store.Instance) (store.Instance, error) {
	now := s.Now().UTC()
	if now.Sub(i.Renewed) < noteRenewal {
		return i, nil
	}
	i.Renewed, i.Expires = now, now.Add(Lifetime)
	err := s.Records.Renew(ctx, i)
	if errors.Is(err, store.ErrUnknown) {
		return i, errGone
	}
	return i, err
}

// So many new instances may come from one address: each is a record that stays for
// [Lifetime].
const (
	freshAtOnce    = 500
	freshPerSecond = 2
)

// An instance may renew so often: it does so each half hour, and when it starts.
const (
	renewalsAtOnce    = 20
	renewalsPerSecond = 0.1
)

// Renew implements enrolmentv1.EnrolmentServiceServer. It works from memory, so
// that certificates do not run out while etcd is away.
func (s *Server) Renew(ctx context.Context, _ *enrolmentv1.RenewRequest) (*enrolmentv1.RenewResponse, error) {
	id, key, err := s.Identify(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, "renewing needs the certificate of an enrolled instance; enrol again")
	}
	if s.renewals.Take(id.Service+"/"+id.Instance, 1, s.Now()) > 0 {
		return nil, status.Error(codes.ResourceExhausted, "this instance renews its certificate too often; use the one it has")
	}
	i, ok := s.Mesh.Instance(id.Service, id.Instance)
	if !ok {
		return nil, status.Error(codes.PermissionDenied, "this instance is not enrolled any more; enrol with a new key")
	}
	out, err := s.issue(i.Service, i.ID, key)
	if err != nil {
		return nil, s.fault("issuing a certificate", err)
	}
	if _, err := s.again(ctx, i); err != nil {
		// It goes on, and the next renewal tries again.
		s.Logger.Warn("the renewal of an instance could not be noted; its enrolment ends unless a later one can", "service", i.Service, "instance", i.ID, "enrolment_ends", i.Expires, "error", err)
	}
	s.metrics.renewed.Inc()
	return &enrolmentv1.RenewResponse{Identity: out}, nil
}

func (s *Server) issue(service, instance string, key crypto.PublicKey) (*enrolmentv1.Identity, error) {
	authority, now := s.Mesh.Authority(), s.Now()
	id := identity.ID{TrustDomain: authority.TrustDomain(), Service: service, Instance: instance}
	chain, err := authority.IssueInstance(id, key, now, s.CertificateLifetime)
	if err != nil {
		return nil, err
	}
	out := &enrolmentv1.Identity{
		Service: service, Instance: instance, TrustDomain: id.TrustDomain, Issuer: s.Mesh.Issuer(),
		Certificates: chain, Expires: timestamppb.New(now.Add(s.CertificateLifetime)), Renew: timestamppb.New(now.Add(s.CertificateLifetime / 2)),
	}
	for _, c := range authority.Certificates() {
		out.Authorities = append(out.Authorities, c.Raw)
	}
	return out, nil
}

// turnWait is how long an enrolment waits for its turn.
const turnWait = 5 * time.Second

func (s *Server) turn(ctx context.Context, source string) (leave func(), err error) {
	places := s.working
	if s.failed.Limited(source, s.Now()) {
		places = s.slow
	}
	timer := time.NewTimer(turnWait)
	defer timer.Stop()
	select {
	case places <- struct{}{}:
		return func() { <-places }, nil
	case <-timer.C:
		return nil, status.Error(codes.Unavailable, "too many instances enrol at the same time; try again")
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

func sourceOf(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	return failures.SourceOf(p.Addr.String())
}
