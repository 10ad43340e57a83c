package controlplane

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/store"
)

// joinedMember is a membership on an etcd of its own, which applies what it is told to.
type joinedMember struct {
	*membership
	*cluster
	store   *store.Store
	applied atomic.Int64
}

func joinTest(t *testing.T) *joinedMember {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{DataDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	c := Config{Logger: hclog.NewNullLogger(), Bounds: ledger.Bounds{Authority: 2 * time.Second}}.withDefaults()
	m := &joinedMember{membership: newMembership(s, c, "here:7401"), cluster: newCluster(c.Bounds, c.Logger), store: s}
	m.membership.applied = m.applied.Load
	if err := m.join(t.Context()); err != nil {
		t.Fatal(err)
	}
	return m
}

// background runs something until the end of the test, which must end without an error.
func background(t *testing.T, run func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("it ended with %v", err)
		}
	})
}

// until waits for what is stored of all replicas to be as it should.
func (m *joinedMember) until(t *testing.T, what string, is func(ledger.Cluster) bool) (c ledger.Cluster) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		moved := m.cluster.change()
		m.observe(func(o *ledger.Observer) { c = o.Cluster() })
		if is(c) {
			return c
		}
		select {
		case <-moved:
		case <-deadline:
			t.Fatalf("never %s: %+v", what, c)
		}
	}
}

// A replica has authority when it has applied what was there at its join, and not
// before; it keeps it by renewals. When its place is lost it takes another, in which
// the former one goes, and is without authority until it has applied what was there at
// the second join.
func TestMembershipComesBack(t *testing.T) {
	m := joinTest(t)
	background(t, func(ctx context.Context) error { return m.store.WatchCluster(ctx, m.see) })
	first := m.current()
	if _, holds := m.holds(); holds || m.maySign() {
		t.Error("authority before anything is applied")
	}
	m.applied.Store(first.Revision)
	if _, holds := m.holds(); !holds || !m.maySign() {
		t.Error("no authority after the join, with all applied")
	}
	changed := m.membership.change()
	background(t, m.keep)
	if err := first.Leave(t.Context(), ledger.Record{}); err != nil {
		t.Fatal(err)
	}
	<-changed
	second := m.current()
	if _, holds := m.holds(); holds || second.ID == first.ID {
		t.Errorf("after the loss: holds %v, the place %s after %s; want another, and no authority yet", holds, second.ID, first.ID)
	}
	c := m.until(t, "back", func(c ledger.Cluster) bool { return c.Alive[second.ID] })
	if _, there := c.Members[first.ID]; there || len(c.Members) != 1 {
		t.Errorf("members %+v, want the second place alone", c.Members)
	}
	m.applied.Store(second.Revision - 1)
	if _, holds := m.holds(); holds {
		t.Error("authority before all is applied that was there at the second join")
	}
	m.applied.Store(second.Revision)
	if until, holds := m.holds(); !holds {
		t.Errorf("no authority after all is applied; it ended at %s", until)
	}
	m.leave(ledger.Record{Applied: 5})
	m.until(t, "left", func(c ledger.Cluster) bool {
		return !c.Alive[second.ID] && c.Records[second.ID].SigningStopped && c.Records[second.ID].Applied == 5
	})
}

// The work of the leader runs while it has its place, once, and anew with the next
// place.
func TestLeadership(t *testing.T) {
	m := joinTest(t)
	m.applied.Store(never)
	leaders := make(chan string)
	background(t, m.keep)
	background(t, func(ctx context.Context) error {
		return m.leadership(ctx, func(ctx context.Context, leader string) {
			leaders <- leader
			<-ctx.Done()
		})
	})
	first := m.current()
	if got := <-leaders; got != first.ID {
		t.Errorf("%s leads, want %s", got, first.ID)
	}
	if err := m.store.Forget(t.Context(), first.ID, "nobody"); err != nil {
		t.Errorf("the leader writes: %v", err)
	}
	if err := first.Leave(t.Context(), ledger.Record{}); err != nil {
		t.Fatal(err)
	}
	if got := <-leaders; got == first.ID || got != m.current().ID {
		t.Errorf("%s leads after the loss of %s, want %s", got, first.ID, m.current().ID)
	}
	if err := m.store.Forget(t.Context(), first.ID, "nobody"); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the former leader writes: %v, want ErrConflict", err)
	}
}

// A record is written at once for each place, and when something of it is new; the
// longest lifetime of tokens stays in it; and what claims say goes in as it is.
func TestRecords(t *testing.T) {
	m := joinTest(t)
	background(t, func(ctx context.Context) error { return m.store.WatchCluster(ctx, m.see) })
	l := newLoop(hclog.NewNullLogger(), newLoopMetrics(prometheus.NewRegistry()))
	goOn := func(revision int64, lifetime time.Duration) {
		issuer := builtinIssuer("http://sts", "mesh.local")
		if lifetime > 0 {
			issuer.GetIssuer().GetKeySet().GetBuiltin().TokenLifetime = durationpb.New(lifetime)
		}
		l.current.Store(&store.Snapshot{Revision: revision, Config: policy.State{policy.KeyOf(issuer): issuer}})
		l.mu.Lock()
		defer l.mu.Unlock()
		close(l.moved)
		l.moved = make(chan struct{})
	}
	goOn(7, 0)
	claimed := make(chan struct{}, 1)
	var held atomic.Pointer[map[string]ledger.Held]
	held.Store(new(map[string]ledger.Held))
	w := &records{loop: l, members: m.membership, keks: func() []string { return []string{"k"} }, log: hclog.NewNullLogger(), now: time.Now, claimed: claimed,
		claims: func(time.Time) (int64, map[string]ledger.Held, time.Time) {
			return l.applied(), *held.Load(), time.Time{}
		}}
	background(t, w.run)
	id := m.current().ID
	c := m.until(t, "written", func(c ledger.Cluster) bool { return c.Records[id].Applied == 7 })
	if got := c.Records[id]; got.Claim != 7 || got.Lifetime != 5*time.Minute || len(got.KEKs) != 1 || time.Since(got.Clock) > time.Minute {
		t.Errorf("record %+v, want claim and applied 7, lifetime 5m, one KEK and the time", got)
	}
	held.Store(&map[string]ledger.Held{"a": {Claim: 1, Count: 2, Who: []string{"n"}}})
	claimed <- struct{}{}
	m.until(t, "held", func(c ledger.Cluster) bool { return c.Records[id].Held["a"].Count == 2 })
	for n, life := range []time.Duration{20 * time.Minute, time.Minute} {
		revision := int64(8 + n)
		goOn(revision, life)
		c = m.until(t, "another lifetime", func(c ledger.Cluster) bool { return c.Records[id].Applied == revision })
		if got := c.Records[id].Lifetime; got != 20*time.Minute {
			t.Errorf("lifetime %s after %s was in force, want 20m", got, life)
		}
	}
}

// Clocks that differ by more than is allowed are told of once, until they are right
// again: one that is ahead at once, one that lags when it does so again, since the
// record may only have been long under way.
func TestClocks(t *testing.T) {
	now := time.Unix(1000, 0)
	k := newClocks(time.Second)
	alive := map[string]bool{"a": true}
	for n, step := range []struct {
		clock time.Duration
		news  int
		off   bool
	}{
		{-time.Hour, 0, false}, // of long ago
		{0, 0, false},
		{900 * time.Millisecond, 0, false},
		{2 * time.Second, 1, true},
		{3 * time.Second, 0, true},
		{0, 0, false},
		{-3 * time.Second, 0, false},
		{-4 * time.Second, 1, true},
		{-100 * time.Millisecond, 0, false},
	} {
		c := ledger.Cluster{Alive: alive, Records: map[string]ledger.Record{"a": {Clock: now.Add(step.clock)}}}
		for range 2 { // what is seen again says nothing new
			news := k.see(c, now)
			if len(news) != step.news || (k.off["a"] != 0) != step.off {
				t.Errorf("step %d, %s: news %v, off %v; want %d, %v", n, step.clock, news, k.off, step.news, step.off)
			}
			step.news = 0
		}
		now = now.Add(time.Minute)
	}
	k.see(ledger.Cluster{}, now)
	if len(k.last)+len(k.off)+len(k.late) != 0 {
		t.Errorf("of one that is gone is left: %+v", k)
	}
}
