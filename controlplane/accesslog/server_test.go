package accesslog

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	logsv1 "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	logsdatav1 "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/dataplane/reason"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type callerKey struct{}

// as makes calls those of a service.
func as(ctx context.Context, service string) context.Context {
	return context.WithValue(ctx, callerKey{}, service)
}

// forTest fills in what a server can't be without: calls are of the service that
// as says, or else of orders.
func (c Config) forTest() Config {
	if c.Identify == nil {
		c.Identify = func(ctx context.Context) (string, error) {
			if service, ok := ctx.Value(callerKey{}).(string); ok {
				return service, nil
			}
			return "orders", nil
		}
	}
	return c
}

// from is a report of a data plane.
func from(service string, records ...*record) *logsv1.ExportLogsServiceRequest {
	return &logsv1.ExportLogsServiceRequest{ResourceLogs: []*logsdatav1.ResourceLogs{{
		Resource:  &resourcev1.Resource{Attributes: pairs("log_name", envoy.RefusalLog, "node_name", "n1", "watchword.service", service)},
		ScopeLogs: []*logsdatav1.ScopeLogs{{LogRecords: records}},
	}}}
}

func pairs(texts ...string) []*commonv1.KeyValue {
	var out []*commonv1.KeyValue
	for i := 0; i+1 < len(texts); i += 2 {
		out = append(out, &commonv1.KeyValue{Key: texts[i], Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: texts[i+1]}}})
	}
	return out
}

// denied is a record of a request that a stage has refused, with more facts.
func denied(stage string, w reason.Word, facts ...string) *record {
	fields := map[string]string{
		"watchword_" + stage + "_enforced_engine_result":       "denied",
		"watchword_" + stage + "_enforced_effective_policy_id": string(w),
	}
	for i := 0; i+1 < len(facts); i += 2 {
		fields[facts[i]] = facts[i+1]
	}
	text, err := json.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return &record{Attributes: pairs("facts", string(text))}
}

// Who may send what: everything else ends with words that tell what to change.
func TestExport(t *testing.T) {
	refused := denied("verify", reason.TokenExpired)
	unnamed, otherLog := from("orders", refused), from("orders", refused)
	unnamed.ResourceLogs[0].Resource = nil
	otherLog.ResourceLogs[0].Resource.Attributes[0].Value = pairs("", "x")[0].Value
	twoParts := from("orders", refused, refused)
	twoParts.ResourceLogs = append(twoParts.ResourceLogs, from("orders", refused).ResourceLogs...)
	most := maxBatch/recordCost - 2 // besides what holds them
	mixed := from("orders", refused)
	mixed.ResourceLogs = append(mixed.ResourceLogs, from("billing", refused).ResourceLogs...)
	full, overfull := from("orders", make([]*record, most)...), from("orders", make([]*record, most+1)...)
	hollow := from("orders", refused)
	hollow.ResourceLogs[0].ScopeLogs = append(hollow.ResourceLogs[0].ScopeLogs, make([]*logsdatav1.ScopeLogs, most)...)
	large := from("orders", &record{Attributes: pairs("x", strings.Repeat("x", maxBatch))})
	for _, tt := range []struct {
		name    string
		of      string // the service that calls; default orders
		report  *logsv1.ExportLogsServiceRequest
		code    codes.Code
		says    string
		service string // under which it is counted
		counts  uint64
		dropped float64
	}{
		{name: "nothing", report: new(logsv1.ExportLogsServiceRequest)},
		{name: "no sender", report: unnamed, code: codes.InvalidArgument, says: envoy.RefusalLog, dropped: 1},
		{name: "another log", report: otherLog, code: codes.InvalidArgument, says: envoy.RefusalLog, dropped: 1},
		{name: "no service", report: from("", refused), service: "orders", counts: 1},
		{name: "another service", report: from("billing", refused), code: codes.PermissionDenied, says: "watchword.service", dropped: 1},
		{name: "another service in a later part", report: mixed, code: codes.PermissionDenied, says: "watchword.service", dropped: 2},
		{name: "too large", report: large, code: codes.ResourceExhausted, says: "larger than 262144", dropped: 1},
		{name: "as many as may be, of nothing", report: full, dropped: float64(most)},
		{name: "too many of nothing", report: overfull, code: codes.ResourceExhausted, says: "larger than 262144", dropped: float64(most + 1)},
		{name: "too many scopes of nothing", report: hollow, code: codes.ResourceExhausted, says: "larger than 262144", dropped: 1},
		{name: "one", report: from("orders", refused), service: "orders", counts: 1},
		{name: "many", report: twoParts, service: "orders", counts: 3},
		{name: "an unknown service", of: "nobody", report: from("nobody", refused), service: Other, counts: 1},
		{name: "about no refusal", report: from("orders", new(record), nil, refused, &record{Attributes: pairs("facts", "{")}), service: "orders", counts: 1, dropped: 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reg := prometheus.NewPedanticRegistry()
			s := New(Config{Registerer: reg, Known: func(name string) bool { return name == "orders" }}.forTest())
			resp, err := s.Export(as(t.Context(), orDefault(tt.of, "orders")), tt.report)
			if status.Code(err) != tt.code || err != nil && !strings.Contains(err.Error(), tt.says) || (resp == nil) != (err != nil) {
				t.Errorf("Export = %v, %v, want code %s and %q", resp, err, tt.code, tt.says)
			}
			n := uint64(0)
			for _, c := range s.Report(tt.service).Counts {
				n += c.Count
			}
			if n != tt.counts {
				t.Errorf("%d were counted for service %q, want %d; all: %+v", n, tt.service, tt.counts, s.Report("").Counts)
			}
			if got := gather(t, reg)["watchword_refusal_records_dropped_total"]; got != tt.dropped {
				t.Errorf("%v records were dropped, want %v", got, tt.dropped)
			}
		})
	}
}

func orDefault(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// Who is nobody can't report, is not told why unless the words are meant for it,
// and takes no turn of others; what it sends is counted as dropped.
func TestExportNeedsAnIdentity(t *testing.T) {
	for _, tt := range []struct {
		name     string
		identify func(context.Context) (string, error)
		code     codes.Code
	}{
		{"nobody to ask", nil, codes.Unauthenticated},
		{"an error", func(context.Context) (string, error) { return "orders", errors.New("at 10.0.0.1") }, codes.Unauthenticated},
		{"a revoked one", func(context.Context) (string, error) { return "", status.Error(codes.PermissionDenied, "revoked") }, codes.PermissionDenied},
		{"no service", func(context.Context) (string, error) { return "", nil }, codes.Unauthenticated},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reg := prometheus.NewPedanticRegistry()
			s := New(Config{Registerer: reg, Identify: tt.identify, Rate: 1})
			for range 3 { // which the rate would not allow
				_, err := s.Export(t.Context(), from("orders", denied("verify", reason.TokenExpired)))
				if status.Code(err) != tt.code || strings.Contains(err.Error(), "10.0.0.1") {
					t.Errorf("Export = %v, want %s and nothing of the cause", err, tt.code)
				}
			}
			if got := gather(t, reg)["watchword_refusal_records_dropped_total"]; got != 3 || len(s.Report("").Counts) != 0 {
				t.Errorf("%v records were dropped, want 3; counted: %+v, want nothing", got, s.Report("").Counts)
			}
		})
	}
}

// Who sends more than the rate has to wait, and what would wait too long is
// dropped at once; so nobody is held up for long, and nothing piles up.
func TestFloodIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Rate: maxBatch}.forTest()) // one of the largest reports a second
		report := from("orders", denied("verify", reason.TokenExpired, "x", strings.Repeat("x", maxBatch/2-1000)))
		began := time.Now()
		var mu sync.Mutex
		waits := map[time.Duration]int{}
		var calls sync.WaitGroup
		for range 100 {
			calls.Go(func() {
				_, err := s.Export(t.Context(), report)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					waits[-1]++
					if status.Code(err) != codes.ResourceExhausted {
						t.Errorf("Export = %v, want ResourceExhausted", err)
					}
					return
				}
				waits[time.Since(began).Round(100*time.Millisecond)]++
			})
		}
		calls.Wait()
		s.Wait()
		// Two at once (the burst), and two in the second that one may wait.
		want := map[time.Duration]int{0: 2, 500 * time.Millisecond: 1, time.Second: 1, -1: 96}
		if diff := cmp.Diff(want, waits); diff != "" {
			t.Errorf("waits (-want +got):\n%s", diff)
		}
	})
}

// Records that are nearly empty are no way around the rate.
func TestFloodOfNothingIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Rate: maxBatch}.forTest())
		report := from("orders", make([]*record, 100)...)
		began, taken := time.Now(), 0
		for time.Since(began) < 10*time.Second {
			if _, err := s.Export(t.Context(), report); err != nil {
				t.Fatal(err)
			}
			taken += 100
		}
		// What was saved up, and ten seconds; one report beyond.
		if most := 11*maxBatch/recordCost + 100; taken > most {
			t.Errorf("%d records were taken in 10 s, want %d at most", taken, most)
		}
	})
}

// A report whose sender is gone does not wait on.
func TestWaitEndsWithCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := New(Config{Rate: maxBatch}.forTest())
		report := from("orders", denied("verify", reason.TokenExpired, "x", strings.Repeat("x", maxBatch-1000)))
		if _, err := s.Export(ctx, report); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { _, err := s.Export(ctx, report); done <- err }()
		synctest.Wait()
		cancel()
		if err := <-done; status.Code(err) != codes.Canceled {
			t.Errorf("it ended with %v, want Canceled", err)
		}
	})
}

// The metric has one series per service, reason and enforcement, whoever calls.
func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s := New(Config{Registerer: reg, Known: func(name string) bool { return name == "orders" }}.forTest())
	for _, name := range []string{"orders", "made-up", "made-up-too"} {
		both := denied("deny", "consumer_denied[p/0]", "watchword_observed_verify_shadow_engine_result", "denied", "watchword_observed_verify_shadow_effective_policy_id", "token_expired")
		if _, err := s.Export(as(t.Context(), name), from(name, both, denied("verify", "made_up"), new(record))); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]float64{
		"watchword_refusal_records_dropped_total":                   3,
		"watchword_refusals_total enforced (other) (other)":         2,
		"watchword_refusals_total enforced (other) orders":          1,
		"watchword_refusals_total enforced consumer_denied (other)": 2,
		"watchword_refusals_total enforced consumer_denied orders":  1,
		"watchword_refusals_total observed token_expired (other)":   2,
		"watchword_refusals_total observed token_expired orders":    1,
	}
	if diff := cmp.Diff(want, gather(t, reg)); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// A service that is gone leaves nothing, though reports of it come meanwhile.
func TestForget(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	var gone atomic.Bool
	s := New(Config{Registerer: reg, Rate: 1 << 40, Known: func(name string) bool { return name == "stays" || !gone.Load() }}.forTest())
	const senders, reports = 4, 200
	var calls sync.WaitGroup
	for range senders {
		calls.Go(func() {
			for range reports {
				for _, name := range []string{"orders", "stays"} {
					if _, err := s.Export(as(t.Context(), name), from(name, denied("verify", reason.TokenExpired))); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	gone.Store(true)
	s.Forget("orders")
	calls.Wait()
	if got := s.Report("orders"); len(got.Counts)+len(got.Sample) != 0 {
		t.Errorf("of a service that is gone there is %+v, want nothing", got)
	}
	got := gather(t, reg)
	if _, ok := got["watchword_refusals_total enforced token_expired orders"]; ok || got["watchword_refusals_total enforced token_expired stays"] != senders*reports {
		t.Errorf("the metrics are %v, want none of orders and %d of stays", got, senders*reports)
	}
	if n := s.Report("stays").Counts[0].Count; n != senders*reports {
		t.Errorf("%d are counted of another service, want %d", n, senders*reports)
	}
}

// gather returns the counters by name and values of labels.
func gather(t *testing.T, reg prometheus.Gatherer) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			key := f.GetName()
			for _, l := range m.GetLabel() {
				key += " " + l.GetValue()
			}
			out[key] = m.GetCounter().GetValue()
		}
	}
	return out
}

// Refusals for a key that is not known are told, once a report, and only for
// services that there are.
func TestKeyUnknown(t *testing.T) {
	var told []string
	s := New(Config{
		Known:      func(name string) bool { return name != "made-up" },
		KeyUnknown: func(name string) { told = append(told, name) },
	}.forTest())
	key, other := denied("verify", reason.KeyUnknown), denied("verify", reason.IssuerUnknown)
	for _, report := range []*logsv1.ExportLogsServiceRequest{
		from("a", key, other, key), from("b", other), from("made-up", key), from("c", other, key),
	} {
		service := texts(report.GetResourceLogs()[0].GetResource().GetAttributes())[envoy.SenderService]
		if _, err := s.Export(as(t.Context(), service), report); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(told, " "); got != "a c" {
		t.Errorf("KeyUnknown was called for %q, want a c", got)
	}
}

// A time that can't be is not believed.
func TestStartTime(t *testing.T) {
	nanos := func(d time.Duration) uint64 { return uint64(start.Add(d).UnixNano()) }
	for at, want := range map[uint64]time.Time{
		0:                        start,
		math.MaxUint64:           start,
		math.MaxInt64:            start,
		nanos(time.Second):       start,
		nanos(-25 * time.Hour):   start,
		nanos(-23 * time.Hour):   start.Add(-23 * time.Hour),
		nanos(-time.Millisecond): start.Add(-time.Millisecond),
	} {
		if got := startTime(&record{TimeUnixNano: at}, start); !got.Equal(want) {
			t.Errorf("startTime(%v) = %s, want %s", at, got, want)
		}
	}
}

// Whatever a data plane sends, a report ends, and what is kept of it is short,
// valid UTF-8, and holds no token.
func FuzzExport(f *testing.F) {
	good := denied("verify", reason.KeyUnknown, "watchword_route_shadow_effective_policy_id", "route-0001", "watchword_consumer_shadow_effective_policy_id", "eyJhbGciOiJub25lIn0.e30.")
	good.Attributes = append(good.Attributes, pairs("method", "GET", "path", "/a?b=c", "status", "403", "subject", "s", "issuer", "-")...)
	wire, err := proto.Marshal(from("orders", good))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wire, "/a;eyJ.b\xff")
	f.Add([]byte(nil), strings.Repeat("ä", maxText))
	f.Fuzz(func(t *testing.T, wire []byte, text string) {
		report := new(logsv1.ExportLogsServiceRequest)
		if proto.Unmarshal(wire, report) != nil {
			rec := denied("deny", reason.Word(text))
			rec.Attributes = append(rec.Attributes, pairs("subject", text, "path", text, "method", text, "peer", text)...)
			report = from("orders", rec)
		}
		s := New(Config{}.forTest())
		_, _ = s.Export(t.Context(), report)
		for _, r := range s.Report("").Sample {
			for _, kept := range []string{r.Node, r.Peer, r.Route, r.Method, r.Path, r.Caller.Consumer, r.Caller.Issuer, r.Caller.Subject, r.Rule} {
				checkText(t, kept)
			}
			if !reason.Known(r.Reason) && r.Reason != Other {
				t.Fatalf("reason %q is kept", r.Reason)
			}
		}
		checkText(t, clean(text))
		if p := path(text); strings.ContainsAny(p, "?#;") {
			t.Fatalf("path(%q) = %q", text, p)
		}
	})
}

func checkText(t *testing.T, kept string) {
	t.Helper()
	if len(kept) > maxText || !utf8.ValidString(kept) || strings.Contains(kept, "eyJ") {
		t.Fatalf("%q (%d bytes) is kept", kept, len(kept))
	}
}
