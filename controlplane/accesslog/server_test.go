package accesslog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/dataplane/reason"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type message = accesslogv3.StreamAccessLogsMessage

// stream is one that sends the messages, and then nothing more.
type stream struct {
	grpc.ServerStream
	ctx      context.Context
	messages []*message
	read     int
	end      error // after the messages; default io.EOF
	closed   bool
}

func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) Recv() (*message, error) {
	if s.read == len(s.messages) {
		if s.end != nil {
			return nil, s.end
		}
		return nil, io.EOF
	}
	s.read++
	return s.messages[s.read-1], nil
}

func (s *stream) SendAndClose(*accesslogv3.StreamAccessLogsResponse) error {
	s.closed = true
	return nil
}

func logs(entries ...*entry) *message {
	return &message{LogEntries: &accesslogv3.StreamAccessLogsMessage_TcpLogs{
		TcpLogs: &accesslogv3.StreamAccessLogsMessage_TCPAccessLogEntries{LogEntry: entries}}}
}

func from(node *corev3.Node, m *message) *message {
	m.Identifier = &accesslogv3.StreamAccessLogsMessage_Identifier{LogName: envoy.RefusalLog, Node: node}
	return m
}

func node(service string) *corev3.Node { return &corev3.Node{Id: "n1", Cluster: service} }

// denied is an entry of a request that a stage has refused, with more facts.
func denied(stage string, w reason.Word, facts ...string) *entry {
	fields := map[string]*structpb.Value{
		"watchword_" + stage + "_enforced_engine_result":       structpb.NewStringValue("denied"),
		"watchword_" + stage + "_enforced_effective_policy_id": structpb.NewStringValue(string(w)),
	}
	for i := 0; i+1 < len(facts); i += 2 {
		fields[facts[i]] = structpb.NewStringValue(facts[i+1])
	}
	return &entry{CommonProperties: &datav3.AccessLogCommon{Metadata: &corev3.Metadata{
		FilterMetadata: map[string]*structpb.Struct{"envoy.filters.http.rbac": {Fields: fields}}}}}
}

// Who may send what: everything else ends with words that tell what to change.
func TestStream(t *testing.T) {
	refused := denied("verify", reason.TokenExpired)
	http := from(node("orders"), &message{LogEntries: &accesslogv3.StreamAccessLogsMessage_HttpLogs{
		HttpLogs: &accesslogv3.StreamAccessLogsMessage_HTTPAccessLogEntries{}}})
	for _, tt := range []struct {
		name     string
		messages []*message
		end      error
		code     codes.Code
		says     string
		service  string // under which it is counted
		counts   uint64
	}{
		{name: "nothing", code: codes.InvalidArgument, says: "before it said who sends"},
		{name: "no identifier", messages: []*message{logs(refused)}, code: codes.InvalidArgument, says: envoy.RefusalLog},
		{name: "another log", messages: []*message{{Identifier: &accesslogv3.StreamAccessLogsMessage_Identifier{LogName: "x", Node: node("orders")}}},
			code: codes.InvalidArgument, says: envoy.RefusalLog},
		{name: "no service", messages: []*message{from(&corev3.Node{Id: "n1"}, logs(refused))}, code: codes.InvalidArgument, says: "node.cluster"},
		{name: "HTTP", messages: []*message{http}, code: codes.InvalidArgument, says: "tcp_grpc"},
		{name: "HTTP later", messages: []*message{from(node("orders"), logs(refused)), http}, code: codes.InvalidArgument, says: "tcp_grpc", service: "orders", counts: 1},
		{name: "ends in order", messages: []*message{from(node("orders"), logs(refused)), logs(refused, refused)}, service: "orders", counts: 3},
		{name: "breaks off", messages: []*message{from(node("orders"), logs(refused))}, end: status.Error(codes.Canceled, "gone"), code: codes.Canceled, says: "gone", service: "orders", counts: 1},
		{name: "service in the metadata", service: "orders", counts: 1, messages: []*message{from(&corev3.Node{Cluster: "x",
			Metadata: &structpb.Struct{Fields: map[string]*structpb.Value{"watchword.service": structpb.NewStringValue("orders")}}}, logs(refused))}},
		{name: "an unknown service", messages: []*message{from(node("nobody"), logs(refused))}, service: Other, counts: 1},
		{name: "about no refusal", messages: []*message{from(node("orders"), logs(new(entry), nil, refused))}, service: "orders", counts: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := New(Config{Known: func(name string) bool { return name == "orders" }})
			in := &stream{ctx: t.Context(), messages: tt.messages, end: tt.end}
			err := s.StreamAccessLogs(in)
			if status.Code(err) != tt.code || err != nil && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("it ended with %v, want code %s and %q", err, tt.code, tt.says)
			}
			if err == nil && !in.closed {
				t.Error("the client got no answer")
			}
			n := uint64(0)
			for _, c := range s.Report(tt.service).Counts {
				n += c.Count
			}
			if n != tt.counts {
				t.Errorf("%d were counted for service %q, want %d; all: %+v", n, tt.service, tt.counts, s.Report("").Counts)
			}
		})
	}
}

// A sender that floods has to wait, alone as well as with others, and what is
// beyond the bound of a message is dropped.
func TestFloodHasToWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reg := prometheus.NewPedanticRegistry()
		s := New(Config{Registerer: reg, Rate: 4000})
		batch := make([]*entry, maxBatch+7)
		for i := range batch {
			batch[i] = denied("verify", reason.TokenExpired)
		}
		took := func(streams, batches int) time.Duration {
			began, done := time.Now(), make(chan error)
			for i := range streams {
				go func() {
					in := &stream{ctx: t.Context()}
					for range batches {
						in.messages = append(in.messages, from(node(fmt.Sprint("s", i)), logs(batch...)))
					}
					done <- s.StreamAccessLogs(in)
				}()
			}
			for range streams {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			s.Wait()
			return time.Since(began)
		}
		// 5 batches of 1000 at 1000 a second, the first at once.
		if d := took(1, 5); d != 4*time.Second {
			t.Errorf("one stream took %s, want 4s", d)
		}
		time.Sleep(time.Hour)
		// 32 batches at 4000 a second, the first at once.
		if d := took(8, 4); d < 7*time.Second || d > 8*time.Second {
			t.Errorf("eight streams took %s, want 7.75s", d)
		}
		if got, want := gather(t, reg)["watchword_refusal_entries_dropped_total"], float64(7*(5+32)); got != want {
			t.Errorf("%v entries were dropped, want %v", got, want)
		}
	})
}

// The wait of a flooding sender ends with its stream.
func TestWaitEndsWithStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s := New(Config{Rate: 1})
		batch := make([]*entry, maxBatch)
		done := make(chan error, 1)
		go func() {
			done <- s.StreamAccessLogs(&stream{ctx: ctx, messages: []*message{from(node("s"), logs(batch...)), logs(batch...)}})
		}()
		synctest.Wait()
		cancel()
		if err := <-done; status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), context.Canceled.Error()) {
			t.Errorf("it ended with %v, want Unavailable because of %v", err, context.Canceled)
		}
	})
}

// The metric has one series per service, reason and enforcement, whoever calls.
func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s := New(Config{Registerer: reg, Known: func(name string) bool { return name == "orders" }})
	for _, name := range []string{"orders", "made-up", "made-up-too"} {
		both := denied("deny", "consumer_denied[p/0]", "watchword_observed_verify_shadow_engine_result", "denied", "watchword_observed_verify_shadow_effective_policy_id", "token_expired")
		if err := s.StreamAccessLogs(&stream{ctx: t.Context(), messages: []*message{from(node(name), logs(both, denied("verify", "made_up"), new(entry)))}}); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]float64{
		"watchword_refusal_entries_dropped_total":                   3,
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

// Refusals for a key that is not known are told, once a batch, and only for
// services that there are.
func TestKeyUnknown(t *testing.T) {
	var told []string
	s := New(Config{
		Known:      func(name string) bool { return name != "made-up" },
		KeyUnknown: func(name string) { told = append(told, name) },
	})
	key, other := denied("verify", reason.KeyUnknown), denied("verify", reason.IssuerUnknown)
	for _, m := range []*message{
		from(node("a"), logs(key, other, key)), from(node("b"), logs(other)), from(node("made-up"), logs(key)), from(node("c"), logs(other, key)),
	} {
		if err := s.StreamAccessLogs(&stream{ctx: t.Context(), messages: []*message{m}}); err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(told, " "); got != "a c" {
		t.Errorf("KeyUnknown was called for %q, want a c", got)
	}
}

// A time that can't be is not believed.
func TestStartTime(t *testing.T) {
	for at, want := range map[*timestamppb.Timestamp]time.Time{
		nil:                                     start,
		{Nanos: -1}:                             start,
		timestamppb.New(start.Add(time.Second)): start,
		timestamppb.New(start.Add(-25 * time.Hour)):   start,
		timestamppb.New(start.Add(-23 * time.Hour)):   start.Add(-23 * time.Hour),
		timestamppb.New(start.Add(-time.Millisecond)): start.Add(-time.Millisecond),
		{Seconds: 1 << 62}:                            start,
	} {
		if got := startTime(&datav3.AccessLogCommon{StartTime: at}, start); !got.Equal(want) {
			t.Errorf("startTime(%v) = %s, want %s", at, got, want)
		}
	}
}

// Whatever a data plane sends, a report ends, and what is kept of it is short,
// printable as UTF-8, and holds no token.
func FuzzEntries(f *testing.F) {
	good := denied("verify", reason.KeyUnknown, "watchword_route_shadow_effective_policy_id", "route-0001", "watchword_consumer_shadow_effective_policy_id", "eyJhbGciOiJub25lIn0.e30.")
	good.CommonProperties.CustomTags = map[string]string{"method": "GET", "path": "/a?b=c", "status": "403"}
	wire, err := proto.Marshal(from(node("orders"), logs(good)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wire, "/a;eyJ.b\xff")
	f.Add([]byte(nil), strings.Repeat("ä", maxText))
	f.Fuzz(func(t *testing.T, wire []byte, text string) {
		m := new(message)
		if proto.Unmarshal(wire, m) != nil {
			m = from(node("orders"), logs(denied("deny", reason.Word(text))))
		}
		s := New(Config{})
		if err := s.StreamAccessLogs(&stream{ctx: t.Context(), messages: []*message{m}, end: errors.New("gone")}); err == nil {
			t.Fatal("the stream ended without the error that ended it")
		}
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
