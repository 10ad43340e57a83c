package controlplane

import (
	"context"
	"crypto/tls"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/transport"
	"github.com/watchword-mesh/watchword/internal/quota"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

// What the peers of ADS may have. A data plane has a connection for ADS, one for
// its reports, and for a moment one to renew; as many again while it restarts, and
// some that its network has lost.
var (
	strangerLimits = transport.Limits{Total: 1000, PerSource: 200}
	// enrolmentLimits bound enrolments that are being read or looked at: each may
	// be a message of a MiB.
	enrolmentLimits = transport.Limits{Total: 128, PerSource: 32}
)

const (
	// strangerLife is how long a connection without a certificate of an enrolled
	// instance stays open: long enough to enrol, which waits 5 s for its turn.
	strangerLife = 30 * time.Second
	// instanceConnections of one instance.
	instanceConnections = 64
	// An instance may make instanceBurst calls, streams too, and then
	// instanceCalls a second.
	instanceCalls, instanceBurst = 50, 500
	// Of unary calls an instance has so many at a time, and all have so many: each
	// may be a message of a MiB.
	instanceUnary, allUnary = 8, 512
)

// gate stands before all calls on the port of ADS. What it refuses has cost a
// header: of the message nothing was read.
type gate struct {
	who       identities
	strangers transport.Limits
	enrols    *quota.Places
	unary     *quota.Places
	calls     *quota.Pace
	refused   *prometheus.CounterVec
	overload  func()
}

// strangersOf leaves enrolled instances at least half of the connections of ADS.
func strangersOf(ads transport.Limits) transport.Limits {
	s := strangerLimits
	s.Total = min(s.Total, max(ads.Total/2, 1))
	s.PerSource = min(s.PerSource, max(s.Total/2, 1))
	return s
}

func newGate(who identities, ads transport.Limits, r prometheus.Registerer, overload func()) *gate {
	g := &gate{
		strangers: strangersOf(ads),
		who:       who,
		enrols:    quota.NewPlaces(enrolmentLimits.Total, enrolmentLimits.PerSource),
		unary:     quota.NewPlaces(allUnary, instanceUnary),
		calls:     quota.NewPace(instanceCalls, instanceBurst),
		overload:  overload,
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_ads_calls_refused_total", Help: "Calls on the port of ADS that were refused before they were read.",
		}, []string{"reason"}),
	}
	for _, reason := range []string{"stranger", "rate", "busy"} {
		g.refused.WithLabelValues(reason)
	}
	r.MustRegister(g.refused)
	return g
}

// credentials are those of the listener.
func (g *gate) credentials(config *tls.Config) credentials.TransportCredentials {
	return transport.ByPeer(transport.Closable(credentials.NewTLS(config)), transport.Peers{
		Known: func(state tls.ConnectionState) (string, bool) {
			id, _, err := g.who.ofPeer(state)
			return id.Service + "/" + id.Instance, err == nil
		},
		Strangers: g.strangers, StrangerLife: strangerLife, PerPeer: instanceConnections,
		Refused: g.overload,
	})
}

var (
	errCalls = status.Errorf(codes.ResourceExhausted, "this instance makes more than %d calls a second; try again later", instanceCalls)
	errUnary = status.Error(codes.ResourceExhausted, "too many calls of this instance, or of all, at the same time; try again")
	errEnrol = status.Error(codes.Unavailable, "too many instances enrol at the same time; try again")
)

// stream implements grpc.StreamServerInterceptor.
func (g *gate) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	leave, err := g.enter(ss.Context(), info)
	if err != nil {
		return err
	}
	defer leave()
	return next(srv, ss)
}

func (g *gate) enter(ctx context.Context, info *grpc.StreamServerInfo) (leave func(), err error) {
	if info.FullMethod == enrolmentv1.EnrolmentService_Enrol_FullMethodName {
		return g.take(g.enrols, sourceOf(ctx), errEnrol)
	}
	id, _, err := g.who.ofCall(ctx)
	if err != nil {
		g.refused.WithLabelValues("stranger").Inc()
		return nil, err
	}
	name := id.Service + "/" + id.Instance
	if g.calls.Take(name, 1, time.Now()) > 0 {
		g.refused.WithLabelValues("rate").Inc()
		return nil, errCalls
	}
	if transport.IsUnary(info) {
		return g.take(g.unary, name, errUnary)
	}
	return func() {}, nil
}

func (g *gate) take(p *quota.Places, key string, full error) (leave func(), err error) {
	leave, ok := p.Take(key)
	if !ok {
		g.refused.WithLabelValues("busy").Inc()
		return nil, full
	}
	return leave, nil
}

// sourceOf is what calls of strangers are counted by.
func sourceOf(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	return transport.SourceOf(p.Addr)
}
