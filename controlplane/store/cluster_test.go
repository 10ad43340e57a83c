package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

// eachEtcd runs a test on the etcd inside the process, and one over the network with the limits and
// the leases of a server.
func eachEtcd(t *testing.T, test func(t *testing.T, s *Store)) {
	t.Run("inside", func(t *testing.T) { test(t, openTest(t, t.TempDir(), testKEK(t))) })
	t.Run("external", func(t *testing.T) { test(t, openExternal(t, testKEK(t))) })
}

func mustJoin(t *testing.T, s *Store, id, previous string, ttl time.Duration) *Place {
	t.Helper()
	p, err := s.Join(t.Context(), member(id), ttl, previous)
	if err != nil {
		t.Fatalf("Join(%s): %v", id, err)
	}
	return p
}

func member(id string) ledger.Member {
	return ledger.Member{ID: id, Host: "host", PID: 7, Started: noon, Version: "v", Address: "host:7401"}
}

func mustCluster(t *testing.T, s *Store) ledger.Cluster {
	t.Helper()
	c, _, err := s.cluster(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// follow gives what WatchCluster tells, and the first that fulfils a condition.
func follow(t *testing.T, s *Store) (await func(what string, is func(ledger.Cluster) bool) ledger.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	told := make(chan ledger.Cluster, 100)
	ended := make(chan error, 1)
	go func() {
		ended <- s.WatchCluster(ctx, func(c ledger.Cluster) {
			select {
			case told <- c:
			case <-ctx.Done():
			}
		})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("WatchCluster: %v", err)
		}
	})
	return func(what string, is func(ledger.Cluster) bool) ledger.Cluster {
		t.Helper()
		var last ledger.Cluster
		for {
			select {
			case last = <-told:
				if is(last) {
					return last
				}
			case <-ctx.Done():
				t.Fatalf("never %s; last was %+v", what, last)
			}
		}
	}
}

// A member is seen with all that it says from its join on, its records as it writes
// them, and when it leaves it is departed at once and has said that it signs no more.
// The same is read and watched.
func TestJoinRenewLeave(t *testing.T) {
	eachEtcd(t, func(t *testing.T, s *Store) {
		await := follow(t, s)
		p := mustJoin(t, s, "m1", "", 5*time.Second)
		want := member("m1")
		want.Joined = p.Revision
		c := await("joined", func(c ledger.Cluster) bool { return c.Alive["m1"] })
		if d := cmp.Diff(ledger.Cluster{Members: map[string]ledger.Member{"m1": want}, Alive: map[string]bool{"m1": true}, Records: map[string]ledger.Record{}, Joined: p.Revision}, c); d != "" {
			t.Errorf("after the join (-want +got):\n%s", d)
		}
		if err := p.Renew(t.Context()); err != nil {
			t.Errorf("Renew: %v", err)
		}
		record := ledger.Record{Applied: 3, Claim: 3, Held: map[string]ledger.Held{"a": {Claim: 2, Count: 1}}, Clock: noon, KEKs: []string{"k"}}
		for range 2 {
			record.Applied++
			if err := p.WriteRecord(t.Context(), record); err != nil {
				t.Errorf("WriteRecord: %v", err)
			}
		}
		await("written", func(c ledger.Cluster) bool { return cmp.Equal(c.Records["m1"], record) })
		if err := p.Leave(t.Context(), record); err != nil {
			t.Errorf("Leave: %v", err)
		}
		c = await("gone", func(c ledger.Cluster) bool { return !c.Alive["m1"] })
		if _, there := c.Members["m1"]; !there || !c.Records["m1"].SigningStopped {
			t.Errorf("after it left: %+v; want its record, that it signs no more", c)
		}
		if d := cmp.Diff(mustCluster(t, s), c); d != "" {
			t.Errorf("read and watched differ (-read +watched):\n%s", d)
		}
		if err := p.Renew(t.Context()); !errors.Is(err, ErrLost) {
			t.Errorf("Renew after Leave: %v, want ErrLost", err)
		}
		<-p.Lost()
	})
}

// A place that nobody renews is lost by time alone, with the lead; it is known to
// whoever comes to renew it. Who comes back takes the place of its former self in one
// transaction, and the former self writes nothing any more.
func TestPlaceIsLost(t *testing.T) {
	eachEtcd(t, func(t *testing.T, s *Store) {
		await := follow(t, s)
		p := mustJoin(t, s, "m1", "", time.Second)
		if err := p.WriteRecord(t.Context(), ledger.Record{Applied: 1}); err != nil {
			t.Fatal(err)
		}
		if err := p.Campaign(t.Context()); err != nil {
			t.Fatal(err)
		}
		c := await("departed", func(c ledger.Cluster) bool {
			return len(c.Records) == 1 && !c.Alive["m1"] && c.Leader == ""
		})
		if len(c.Members) != 1 {
			t.Errorf("members of %+v; want the departed one", c)
		}
		if err := p.Renew(t.Context()); !errors.Is(err, ErrLost) {
			t.Errorf("Renew: %v, want ErrLost", err)
		}
		<-p.Lost()
		again := mustJoin(t, s, "m2", "m1", 10*time.Second)
		c = mustCluster(t, s)
		if len(c.Members) != 1 || len(c.Alive) != 1 || len(c.Records) != 1 || c.Records["m2"].Applied != 1 || !c.Alive["m2"] || c.Joined != again.Revision {
			t.Errorf("after it came back: %+v; want m2 alone with the record of m1, joined at %d", c, again.Revision)
		}
		if err := p.WriteRecord(t.Context(), ledger.Record{Applied: 2}); !errors.Is(err, ErrLost) || len(mustCluster(t, s).Records) != 1 {
			t.Errorf("the former self writes: %v, %+v; want ErrLost, and nothing written", err, mustCluster(t, s))
		}
	})
}

// A record that was under way for long does not replace a newer one, and the writer goes
// on after a write whose answer was lost.
func TestRecordsKeepTheirOrder(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	p := mustJoin(t, s, "m1", "", 10*time.Second)
	late := &Place{ID: "m1", store: s, lost: make(chan struct{})}
	for _, applied := range []int64{1, 2} {
		if err := p.WriteRecord(t.Context(), ledger.Record{Applied: applied}); err != nil {
			t.Fatal(err)
		}
	}
	if err := late.writeRecord(t.Context(), `{"applied":1}`); !errors.Is(err, ErrConflict) {
		t.Errorf("a late write: %v, want ErrConflict", err)
	}
	p.record-- // as if the answer had been lost
	if err := p.WriteRecord(t.Context(), ledger.Record{Applied: 3}); err != nil || mustCluster(t, s).Records["m1"].Applied != 3 {
		t.Errorf("after a lost answer: %v, %+v", err, mustCluster(t, s).Records)
	}
}

// One member leads at a time; the next one does when the first has left, and what the
// first would write then is refused. A member that is alive can't be forgotten, nor by
// who does not lead.
func TestCampaign(t *testing.T) {
	s := openExternal(t, testKEK(t))
	active, _ := firstKeys(t, s)
	first, second := mustJoin(t, s, "m1", "", 10*time.Second), mustJoin(t, s, "m2", "", 10*time.Second)
	for range 2 {
		if err := first.Campaign(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	elected := make(chan error, 1)
	go func() { elected <- second.Campaign(t.Context()) }()
	change := func(leader string) error {
		snap := mustLoad(t, s)
		_, err := s.CommitKeys(t.Context(), KeyChange{
			Leader: leader, Joined: second.Revision, OpenRevision: snap.Open.Revision,
			Read: map[string]int64{active.KeyID: snap.Keys[active.KeyID].Revision}, Put: []keyset.Record{snap.Keys[active.KeyID]},
		})
		return err
	}
	if err := change("m1"); err != nil {
		t.Errorf("the leader writes: %v", err)
	}
	if err := change("m2"); !errors.Is(err, ErrConflict) {
		t.Errorf("another writes: %v, want ErrConflict", err)
	}
	if err := s.Forget(t.Context(), "m1", "m2"); !errors.Is(err, ErrConflict) {
		t.Errorf("forgetting one that is alive: %v, want ErrConflict", err)
	}
	if err := first.Leave(t.Context(), ledger.Record{}); err != nil {
		t.Fatal(err)
	}
	if err := <-elected; err != nil {
		t.Fatal(err)
	}
	if err := change("m1"); !errors.Is(err, ErrConflict) {
		t.Errorf("a former leader writes: %v, want ErrConflict", err)
	}
	if err := s.Forget(t.Context(), "m1", "m1"); !errors.Is(err, ErrConflict) {
		t.Errorf("forgetting by who does not lead: %v, want ErrConflict", err)
	}
	mustJoin(t, s, "m3", "", 10*time.Second)
	if err := change("m2"); !errors.Is(err, ErrConflict) {
		t.Errorf("the leader writes after another has joined: %v, want ErrConflict", err)
	}
	if err := s.Forget(t.Context(), "m2", "m1"); err != nil || len(mustCluster(t, s).Members) != 2 || len(mustCluster(t, s).Records) != 0 {
		t.Errorf("Forget: %v, %+v; want m2 and m3 left", err, mustCluster(t, s))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := mustJoin(t, s, "m4", "", 10*time.Second).Campaign(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Campaign with an ended context: %v", err)
	}
}

// On the etcd inside the process all former members were processes that are gone: who
// joins says so for them. On an existing cluster it does not.
func TestFormerMembers(t *testing.T) {
	eachEtcd(t, func(t *testing.T, s *Store) {
		mustJoin(t, s, "m1", "", 10*time.Second)
		mustJoin(t, s, "m2", "", 10*time.Second)
		c := mustCluster(t, s)
		if inside := s.server != nil; c.Records["m1"].SigningStopped != inside || c.Alive["m1"] == inside || !c.Alive["m2"] || c.Records["m2"].SigningStopped {
			t.Errorf("inside %v: %+v", inside, c)
		}
	})
}

// A replica of a version that knows of no others keeps this one out.
func TestOlderReplica(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	if _, err := s.client.Put(t.Context(), s.prefix+replicaKey, "{}"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Join(t.Context(), member("m1"), time.Second, ""); !errors.Is(err, ErrOlder) {
		t.Errorf("Join: %v, want ErrOlder", err)
	}
	if n := len(mustCluster(t, s).Members); n != 0 {
		t.Errorf("%d members are left of it", n)
	}
}

// Who was asleep while etcd compacted sees what is there now, and what went meanwhile
// is gone.
func TestWatchClusterSurvivesCompaction(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	p := mustJoin(t, s, "m1", "", 10*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	told := make(chan ledger.Cluster)
	go func() {
		defer close(told)
		_ = s.WatchCluster(ctx, func(c ledger.Cluster) {
			select {
			case told <- c:
			case <-ctx.Done():
			}
		})
		if t.Context().Err() == nil && ctx.Err() == context.DeadlineExceeded {
			t.Error("m2 is never seen")
		}
	}()
	// The first is held, so that the watch begins after the compaction.
	for i := range 5 {
		if err := p.WriteRecord(ctx, ledger.Record{Applied: int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	mustJoin(t, s, "m2", "m1", 10*time.Second)
	if _, err := s.client.Compact(ctx, mustRevision(t, s)); err != nil {
		t.Fatal(err)
	}
	for c := range told {
		if c.Alive["m2"] {
			if len(c.Members) != 1 || len(c.Records) != 1 || c.Records["m2"].Applied != 4 {
				t.Errorf("after compaction: %+v, want m2 alone", c)
			}
			break
		}
	}
}
