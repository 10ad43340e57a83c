package accesslog

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	logsv1 "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/dataplane/reason"
)

const (
	// defaultRate is how many bytes are taken in a second. A record has some 640
	// and costs some 11 microseconds, so that a flood costs a sixth of a core.
	defaultRate = 8 << 20
	// recordCost is how many bytes a record counts as at least: one that is empty
	// has 2, and costs a good deal more than those.
	recordCost = 640
	// maxBatch is how many bytes a report may have. Envoy sends some 16 KiB, and
	// at most one record beyond that, so that it stays below with recordCost too.
	maxBatch = 256 << 10
	// maxWait is how long a report waits for its turn before it is dropped.
	maxWait = time.Second
)

// Config of a Server.
type Config struct {
	// Identify says which service a report comes from, by the certificate of who
	// sends it. An error with the code Unauthenticated, PermissionDenied or
	// Unavailable goes to the client as it is; of others it is told nothing.
	// Without it every report is refused.
	Identify func(context.Context) (service string, err error)
	// Logger gets reports that can't be taken, at debug; nil logs nothing.
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
	// have, once for each report at most. It must not block.
	KeyUnknown func(service string)
	// Rate is how many bytes of reports are taken in a second, 0 for 8 MiB, where
	// each record counts as 640 at least. What comes faster has to wait, and then
	// is dropped.
	Rate int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Server is the service that Envoys send their RefusalLog to.
type Server struct {
	logsv1.UnimplementedLogsServiceServer
	Config
	ledger  *ledger
	metrics *metrics
	limiter *rate.Limiter
	calls   sync.WaitGroup
	// booking is held by those that count, so that Forget comes after all that
	// still knew the service.
	booking sync.RWMutex
}

// New returns a Server that has counted nothing.
func New(c Config) *Server {
	if c.Identify == nil {
		c.Identify = func(context.Context) (string, error) { return "", errUnknown }
	}
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
		limiter: rate.NewLimiter(rate.Limit(c.Rate), maxBatch),
	}
}

// Register adds the service to a gRPC server, whose Stop ends all calls.
func (s *Server) Register(g grpc.ServiceRegistrar) { logsv1.RegisterLogsServiceServer(g, s) }

// Wait returns when all calls have ended: use it after the gRPC server was
// stopped, which does not wait for them.
func (s *Server) Wait() { s.calls.Wait() }

// Export implements logsv1.LogsServiceServer. A report is taken or dropped as a
// whole, in the order in which they come.
func (s *Server) Export(ctx context.Context, report *logsv1.ExportLogsServiceRequest) (*logsv1.ExportLogsServiceResponse, error) {
	s.calls.Add(1)
	defer s.calls.Done()
	// Before it has its turn, so that strangers don't take the turns of others.
	from, err := s.senders(ctx, report)
	if err == nil {
		err = s.turn(ctx, cost(report))
	}
	if err != nil {
		return nil, s.drop(report, err)
	}
	for i, part := range report.GetResourceLogs() {
		keyUnknown := false
		for _, scope := range part.GetScopeLogs() {
			keyUnknown = s.book(from[i], scope.GetLogRecords()) || keyUnknown
		}
		if keyUnknown {
			s.KeyUnknown(from[i].service)
		}
	}
	return new(logsv1.ExportLogsServiceResponse), nil
}

// cost is how many bytes a report counts as. What holds records counts as they
// do, since it can be empty too.
func cost(report *logsv1.ExportLogsServiceRequest) int {
	n := records(report)
	for _, part := range report.GetResourceLogs() {
		n += 1 + len(part.GetScopeLogs())
	}
	return max(proto.Size(report), n*recordCost)
}

func records(report *logsv1.ExportLogsServiceRequest) int {
	n := 0
	for _, part := range report.GetResourceLogs() {
		for _, scope := range part.GetScopeLogs() {
			n += len(scope.GetLogRecords())
		}
	}
	return n
}

// turn waits until a report of some bytes may be looked at.
func (s *Server) turn(ctx context.Context, size int) error {
	if size > maxBatch {
		return status.Errorf(codes.ResourceExhausted, "a report of %d bytes, with each record as %d at least, is larger than %d", size, recordCost, maxBatch)
	}
	now := time.Now() // of the machine, since it is slept by
	r := s.limiter.ReserveN(now, size)
	wait := r.DelayFrom(now)
	if wait > maxWait {
		r.CancelAt(now)
		return status.Errorf(codes.ResourceExhausted, "more than %d bytes of reports come in a second", s.Rate)
	}
	if wait == 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		r.Cancel()
		return status.FromContextError(ctx.Err()).Err()
	}
}

// drop counts the records of a report that is not taken.
func (s *Server) drop(report *logsv1.ExportLogsServiceRequest, err error) error {
	n := records(report)
	s.metrics.dropped.Add(float64(n))
	s.Logger.Debug("a report of refusals is dropped", "records", n, "error", err)
	return err
}

// book says whether a record is about a key that is not known.
func (s *Server) book(from sender, records []*record) (keyUnknown bool) {
	s.booking.RLock()
	defer s.booking.RUnlock()
	known := s.Known(from.service)
	now := s.Now()
	for _, rec := range records {
		refusals := s.refusals(from, rec, now)
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
