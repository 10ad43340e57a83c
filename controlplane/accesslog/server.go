package accesslog

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/dataplane/reason"
)

const (
	// defaultRate is how many entries are taken in a second. One costs some 10
	// microseconds, so that a flood of refusals costs a tenth of a core.
	defaultRate = 10000
	// streamShare is the part of that which one stream may have.
	streamShare = 4
	// maxBatch is how many entries of one message are looked at. Envoy sends
	// some 16 KiB at a time, a few dozen.
	maxBatch = 1000
)

// Config of a Server. The zero value works.
type Config struct {
	// Logger gets who reports, and what is wrong with it; nil logs nothing.
	Logger hclog.Logger
	// Registerer gets the metrics; nil registers none.
	Registerer prometheus.Registerer
	// Known says whether there is a service of that name, so that clients can't
	// make up labels of metrics; nil knows every name.
	Known func(service string) bool
	// RouteName finds the name of a route by the id that data planes know it
	// by; false if it is not known, as after a change of the policies. Nil knows
	// none.
	RouteName func(service, id string) (name string, ok bool)
	// KeyUnknown is called after refusals by service for a key that it does not
	// have, once for each batch at most. It must not block.
	KeyUnknown func(service string)
	// Rate is how many entries a second are taken over all streams, 0 for 10,000.
	// Whoever sends more has to wait, and a data plane drops what it can't send.
	Rate int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Server is Envoy's access log service for refusals.
type Server struct {
	accesslogv3.UnimplementedAccessLogServiceServer
	Config
	ledger  *ledger
	metrics *metrics
	all     *rate.Limiter
	streams sync.WaitGroup
}

// New returns a Server that has counted nothing.
func New(c Config) *Server {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Known == nil {
		c.Known = func(string) bool { return true }
	}
	if c.RouteName == nil {
		c.RouteName = func(string, string) (string, bool) { return "", false }
	}
	if c.KeyUnknown == nil {
		c.KeyUnknown = func(string) {}
	}
	if c.Rate == 0 {
		c.Rate = defaultRate
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Server{
		Config:  c,
		ledger:  newLedger(defaultLimits, c.Now()),
		metrics: newMetrics(c.Registerer),
		all:     rate.NewLimiter(rate.Limit(c.Rate), maxBatch),
	}
}

// Register adds the service to a gRPC server, whose Stop ends all streams. It
// should bound the size of messages, as xds.ServerOptions does.
func (s *Server) Register(g *grpc.Server) {
	accesslogv3.RegisterAccessLogServiceServer(g, s)
}

// Wait returns when all streams have ended: call it after the gRPC server was
// stopped, which does not wait for them.
func (s *Server) Wait() { s.streams.Wait() }

// StreamAccessLogs implements accesslogv3.AccessLogServiceServer.
func (s *Server) StreamAccessLogs(stream accesslogv3.AccessLogService_StreamAccessLogsServer) error {
	s.streams.Add(1)
	defer s.streams.Done()
	msg, err := stream.Recv()
	if err != nil {
		return ended(err)
	}
	from, err := senderOf(msg.GetIdentifier())
	if err != nil {
		return err
	}
	if !s.Known(from.service) {
		s.Logger.Warn("a data plane of an unknown service reports refusals; they are counted under no service", "service", clean(from.service), "node", from.node)
	}
	own := rate.NewLimiter(rate.Limit(max(1, s.Rate/streamShare)), maxBatch)
	for {
		if err := s.take(stream.Context(), from, msg, own); err != nil {
			return err
		}
		if msg, err = stream.Recv(); errors.Is(err, io.EOF) {
			return stream.SendAndClose(new(accesslogv3.StreamAccessLogsResponse))
		} else if err != nil {
			return ended(err)
		}
	}
}

// ended is the error of a stream that its client has ended.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return status.Error(codes.InvalidArgument, "the stream ended before it said who sends")
	}
	return err
}

// sender is the data plane at the other end of a stream.
type sender struct{ service, node string }

// senderOf reads who sends as the ADS server does.
func senderOf(id *accesslogv3.StreamAccessLogsMessage_Identifier) (sender, error) {
	if id.GetLogName() != envoy.RefusalLog {
		return sender{}, status.Errorf(codes.InvalidArgument, "this service takes the log %q only, and its first message must say that", envoy.RefusalLog)
	}
	service := serviceOf(id.GetNode())
	if service == "" {
		return sender{}, status.Errorf(codes.InvalidArgument, "the first message does not say which service this data plane belongs to: set node.metadata[%q] or node.cluster", envoy.ServiceMetadata)
	}
	return sender{service: service, node: clean(id.GetNode().GetId())}, nil
}

func serviceOf(node *corev3.Node) string {
	if v := node.GetMetadata().GetFields()[envoy.ServiceMetadata].GetStringValue(); v != "" {
		return v
	}
	return node.GetCluster()
}

// take waits until a batch may be looked at, and books it.
func (s *Server) take(ctx context.Context, from sender, msg *accesslogv3.StreamAccessLogsMessage, own *rate.Limiter) error {
	if msg.GetHttpLogs() != nil {
		return status.Error(codes.InvalidArgument, "logs of HTTP requests are not taken, since they may hold tokens: use envoy.access_loggers.tcp_grpc")
	}
	entries := msg.GetTcpLogs().GetLogEntry()
	if more := len(entries) - maxBatch; more > 0 {
		s.metrics.dropped.Add(float64(more))
		entries = entries[:maxBatch]
	}
	for _, limiter := range []*rate.Limiter{own, s.all} {
		if err := limiter.WaitN(ctx, len(entries)); err != nil {
			return status.Errorf(codes.Unavailable, "waiting for the turn of a batch: %v", err)
		}
	}
	if s.book(from, entries) {
		s.KeyUnknown(from.service)
	}
	return nil
}

// book says whether an entry is about a key that is not known.
func (s *Server) book(from sender, entries []*entry) (keyUnknown bool) {
	known := s.Known(from.service)
	now := s.Now()
	for _, e := range entries {
		refusals := s.refusals(from, e)
		if len(refusals) == 0 {
			s.metrics.dropped.Inc()
		}
		for _, r := range refusals {
			if !known {
				r.Service = Other
			}
			service := s.ledger.add(r, now)
			s.metrics.refused(service, r)
			keyUnknown = keyUnknown || known && r.Reason == reason.KeyUnknown
		}
	}
	return keyUnknown
}
