package xdsclient

import (
	"bytes"
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

// lockedBuffer is written by a logger and read by the test.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// logTo gives the config a logger, of which read gives the text at level info.
func logTo(t *testing.T, c *Config) (read func() string) {
	t.Helper()
	var b lockedBuffer
	c.Logger = hclog.New(&hclog.LoggerOptions{Output: &b, Level: hclog.Info})
	return b.String
}

// A config that can't work is refused before anybody is asked.
func TestConfig(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"no address":           func(c *Config) { c.Addresses = nil },
		"no TLS":               func(c *Config) { c.TLS = nil },
		"no handler":           func(c *Config) { c.Handler = nil },
		"nothing to subscribe": func(c *Config) { c.Subscriptions = nil },
		`subscription to "*"`:  func(c *Config) { c.Subscriptions[0].Name = "*" },
		`subscription to ""`:   func(c *Config) { c.Subscriptions[0].Name = "" },
		`of type ""`:           func(c *Config) { c.Subscriptions[0].TypeURL = "" },
		`"orders" of type "` + rulesetType + `": it is there twice`: func(c *Config) { c.Subscriptions[2].Name = "orders" },
	} {
		c := config(newEnforcer(), "a:1")
		change(&c)
		if err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Run: %v, want an error with %q", err, want)
		}
	}
}

// A program that runs two data planes is told what to do about their metrics, and
// keeps running; one after the other is no fault.
func TestRegisterer(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := config(newEnforcer(), "127.0.0.1:1")
	c.Registerer = reg
	first := mustClient(t, c)
	if err := Run(t.Context(), c); err == nil || !strings.Contains(err.Error(), "registerer of its own") {
		t.Errorf("Run with the registerer of another: %v", err)
	}
	first.metrics.unregister()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errStop)
	if err := Run(ctx, c); !errors.Is(err, errStop) {
		t.Errorf("Run after the other's end: %v, want the cause of its context's end", err)
	}
	if left := gather(t, reg); len(left) != 0 {
		t.Errorf("metrics are left: %v", left)
	}
}

// network is one in memory, on which a test can stop all traffic without ending a
// connection, as a firewall does that has lost its state.
type network struct {
	listener *bufconn.Listener
	mu       sync.Mutex
	dials    []time.Time
	conns    []*link
	down     bool
}

func newNetwork() *network { return &network{listener: bufconn.Listen(1 << 20)} }

func (n *network) dial(ctx context.Context, _ string) (net.Conn, error) {
	n.mu.Lock()
	n.dials = append(n.dials, time.Now())
	down := n.down
	n.mu.Unlock()
	if down {
		return nil, errors.New("no route to host")
	}
	conn, err := n.listener.DialContext(ctx)
	if err != nil {
		return nil, err
	}
	l := &link{Conn: conn, closed: make(chan struct{}), frozen: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conns = append(n.conns, l)
	return l, nil
}

func (n *network) setDown(down bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.down = down
}

// tried gives the times of the dials since the last call.
func (n *network) tried() []time.Time {
	n.mu.Lock()
	defer n.mu.Unlock()
	dials := n.dials
	n.dials = nil
	return dials
}

// freeze stops all traffic of the connections there are.
func (n *network) freeze() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.conns {
		close(l.frozen)
	}
	n.conns = nil
}

// link is the client's end of a connection.
type link struct {
	net.Conn
	once           sync.Once
	closed, frozen chan struct{}
}

func (l *link) Read(p []byte) (int, error) {
	n, err := l.Conn.Read(p)
	select {
	case <-l.frozen: // it has got lost on its way
		<-l.closed
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (l *link) Write(p []byte) (int, error) {
	select {
	case <-l.frozen:
		return len(p), nil
	default:
		return l.Conn.Write(p)
	}
}

func (l *link) Close() error {
	l.once.Do(func() { close(l.closed) })
	select {
	case <-l.frozen: // the other end does not hear of it
		return nil
	default:
		return l.Conn.Close()
	}
}

// inBubble runs a test with a client in a bubble of synctest, where time is free.
func inBubble(t *testing.T, change func(*Config), test func(t *testing.T, n *network, p *plane, e *enforcer)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n, e := newNetwork(), newEnforcer()
		p := servePlane(t, n.listener)
		cfg := config(e, "control-plane:1")
		change(&cfg)
		c := mustClient(t, cfg)
		c.dial = n.dial
		stop := start(t, c)
		test(t, n, p, e)
		stop()
		p.stop()
		_ = n.listener.Close()
	})
}

// A revoked instance is told so at each attempt, is never connected, and gets in when
// it may again.
func TestRefused(t *testing.T) {
	inBubble(t, func(*Config) {}, func(t *testing.T, _ *network, p *plane, e *enforcer) {
		for _, want := range []error{status.Error(codes.PermissionDenied, "revoked"), status.Error(codes.Unauthenticated, "unknown")} {
			p.next(t).finish(want)
			if got := take(t, e.refused, "Refused"); status.Code(got) != status.Code(want) || !strings.Contains(got.Error(), status.Convert(want).Message()) {
				t.Errorf("Refused(%v), want %v", got, want)
			}
		}
		p.next(t).finish(status.Error(codes.Unavailable, "stopping"))
		s := p.next(t)
		s.send(&response{TypeUrl: rulesetType, Nonce: "a"})
		wantUp(t, e, true)
		s.finish(status.Error(codes.PermissionDenied, "revoked"))
		wantUp(t, e, false)
		if got := take(t, e.refused, "Refused"); status.Code(got) != codes.PermissionDenied {
			t.Errorf("Refused(%v) for a stream that was refused later, want PermissionDenied", got)
		}
		if len(e.refused) > 0 {
			t.Errorf("Refused(%v) without a refusal", <-e.refused)
		}
	})
}

// Where the control plane has nothing new to say, a stream that is not refused soon
// is one.
func TestAdmission(t *testing.T) {
	inBubble(t, func(*Config) {}, func(t *testing.T, _ *network, p *plane, e *enforcer) {
		p.next(t)
		time.Sleep(admission / 2)
		if len(e.up) > 0 {
			t.Error("Connected before the control plane could refuse")
		}
		time.Sleep(admission)
		wantUp(t, e, true)
	})
}

// A connection that is dead without a word is noticed within 16 s, one of which gRPC may
// take to close it, and in the quiet before no stream is lost. What is in force is claimed anew.
func TestHalfOpen(t *testing.T) {
	reg := prometheus.NewRegistry()
	inBubble(t, func(c *Config) { c.Registerer = reg }, func(t *testing.T, n *network, p *plane, e *enforcer) {
		s := p.next(t)
		s.greet()
		s.greet()
		s.send(&response{TypeUrl: rulesetType, Nonce: "a", Resources: []*discovery.Resource{resource(rulesetType, "orders", "1", "x")}})
		s.want(ack(rulesetType, "a"))

		time.Sleep(time.Hour)
		if len(n.tried()) != 1 || s.stream.Context().Err() != nil {
			t.Error("a quiet stream did not last for an hour")
		}
		if got := last(t, reg); time.Since(got) > pingTime {
			t.Errorf("last heard at %v, %v ago; want it no longer ago than %v", got, time.Since(got), pingTime)
		}
		wantUp(t, e, true)

		frozen := time.Now()
		n.freeze()
		wantUp(t, e, false)
		const most = pingTime + pingTimeout + time.Second
		if took := time.Since(frozen); took > most {
			t.Errorf("a dead connection was noticed after %v, want at most %v", took, most)
		}
		if got := last(t, reg); got.After(frozen) {
			t.Errorf("last heard at %v, after the last word at %v", got, frozen)
		}
		again := p.next(t)
		if got := again.greet().GetInitialResourceVersions(); got["orders"] != "1" {
			t.Errorf("claims %v, want orders at 1", got)
		}
		if took := time.Since(frozen); took > most+firstWait {
			t.Errorf("back after %v", took)
		}
	})
}

func wantUp(t *testing.T, e *enforcer, want bool) {
	t.Helper()
	if got := take(t, e.up, "Connected"); got != want {
		t.Errorf("Connected(%t), want %t", got, want)
	}
}

func last(t *testing.T, reg *prometheus.Registry) time.Time {
	t.Helper()
	return time.Unix(0, int64(gather(t, reg)["last_contact_timestamp_seconds"]*1e9))
}

const metricPrefix = "watchword_dataplane_"

// gather gives the metrics, by name without prefix and {TYPE} if there is one.
func gather(t *testing.T, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	all, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range all {
		for _, m := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), metricPrefix)
			for _, l := range m.GetLabel() {
				name += "{" + l.GetValue() + "}"
			}
			got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return got
}

// While nobody answers, the waits grow to 15 s at most and are never all the same;
// the log says it once a minute. After a stream that has lived for a while the next
// attempt comes at once.
func TestBackoff(t *testing.T) {
	var logged func() string
	inBubble(t, func(c *Config) { logged = logTo(t, c) }, func(t *testing.T, n *network, p *plane, _ *enforcer) {
		s := p.next(t)
		n.setDown(true)
		n.tried()
		s.finish(nil)
		time.Sleep(time.Hour)
		tried := n.tried()
		bounds := map[time.Duration]bool{}
		for i := range tried[1:] {
			waited, bound := tried[i+1].Sub(tried[i]), longestWait
			if i < 6 { // behind the wait after the stream
				bound = firstWait << (i + 1)
			}
			bounds[waited] = true
			if waited > bound {
				t.Errorf("wait %d was %v, want at most %v", i, waited, bound)
			}
		}
		// The mean of the waits is half the longest.
		if len(tried) < 350 || len(tried) > 650 || len(bounds) < len(tried)/2 {
			t.Errorf("%d attempts in an hour, with %d different waits; want some 480", len(tried), len(bounds))
		}
		if n := strings.Count(logged(), "no route to host"); n < 40 || n > 60 {
			t.Errorf("%d lines about it, want one a minute", n)
		}

		n.setDown(false)
		s = p.next(t)
		time.Sleep(steady)
		cut := time.Now()
		s.finish(nil)
		p.next(t)
		if took := time.Since(cut); took > firstWait {
			t.Errorf("back after %v, want at most %v", took, firstWait)
		}
	})
}

// Streams that end as soon as they have begun are failures, though each has brought
// something.
func TestShortStreams(t *testing.T) {
	inBubble(t, func(*Config) {}, func(t *testing.T, _ *network, p *plane, e *enforcer) {
		begin := time.Now()
		const streams = 40
		for range streams {
			s := p.next(t)
			s.send(&response{TypeUrl: rulesetType, Nonce: "a"})
			wantUp(t, e, true)
			s.finish(nil)
			wantUp(t, e, false)
		}
		// Of the mean of 7.5 s; less than a third of it has a chance of one to millions.
		if took := time.Since(begin); took < streams*longestWait/6 {
			t.Errorf("%d streams in %v", streams, took)
		}
	})
}

// Each number means what its help says.
func TestMetrics(t *testing.T) {
	p := newPlane(t)
	e := newEnforcer()
	e.bad["shop"] = errors.New("no")
	cfg := config(e, p.address)
	reg := prometheus.NewRegistry()
	cfg.Registerer = reg
	start(t, mustClient(t, cfg))
	s := p.next(t)
	s.greet()
	s.greet()
	s.send(&response{TypeUrl: rulesetType, Nonce: "a", Resources: []*discovery.Resource{resource(rulesetType, "orders", "1", ""), resource(rulesetType, "shop", "1", "")}})
	s.greet()
	s.send(&response{TypeUrl: leaseType, Nonce: "a", RemovedResources: []string{"mesh.lease"}})
	s.greet()
	wantMetrics(t, reg, 1, 0)
	wantUp(t, e, true)
	s.finish(nil)
	wantUp(t, e, false)
	s = p.next(t)
	s.send(&response{TypeUrl: leaseType, Nonce: "b"})
	wantUp(t, e, true)
	wantMetrics(t, reg, 1, 1)
}

func wantMetrics(t *testing.T, reg *prometheus.Registry, connected, reconnects float64) {
	t.Helper()
	got := gather(t, reg)
	if got["last_contact_timestamp_seconds"] == 0 {
		t.Error("never heard")
	}
	delete(got, "last_contact_timestamp_seconds")
	want := map[string]float64{
		"connected": connected, "reconnects_total": reconnects,
		"updates_accepted_total{Ruleset}": 1, "updates_accepted_total{Lease}": 1,
		"updates_refused_total{Ruleset}": 1, "updates_refused_total{Lease}": 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}
