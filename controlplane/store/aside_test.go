package store

import (
	"context"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// What replicas write of themselves, and the audit, wakes nobody who follows the state:
// the next event is that of the next change, of its revision. A join does count, so that
// who joins can wait for having seen it; and no record is in what is read.
func TestWatchLooksAside(t *testing.T) {
	eachEtcd(t, func(t *testing.T, s *Store) {
		p := mustJoin(t, s, "m1", "", 10*time.Second)
		from := mustLoad(t, s)
		if from.Revision < p.Revision {
			t.Errorf("what is read after the join at %d is of %d", p.Revision, from.Revision)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		events := make(chan Event, 100)
		go func() { _ = s.Watch(ctx, from, func(e Event) { events <- e }) }()
		noise := func() {
			t.Helper()
			for i := range 20 {
				if err := p.WriteRecord(ctx, ledger.Record{Applied: int64(i)}); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Record(ctx, entry("Refused")); err != nil {
				t.Fatal(err)
			}
			if err := p.Campaign(ctx); err != nil {
				t.Fatal(err)
			}
		}
		next := func(what string, revision int64) {
			t.Helper()
			if e := <-events; e.Snapshot.Revision != revision {
				t.Errorf("%s: an event of revision %d, want %d", what, e.Snapshot.Revision, revision)
			}
		}
		noise()
		next("a change", mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}}))
		noise()
		joined := mustJoin(t, s, "m2", "", 10*time.Second)
		next("a join", joined.Revision)
		noise()
		next("another change", mustCommit(t, s, Change{Put: []*policyv1.Resource{service("b")}}))
		select {
		case e := <-events:
			t.Errorf("one more event: %+v", e)
		default:
		}
	})
}

// When all that happened for long was aside, and etcd has compacted it, a watch that
// begins again finds its way, and etcd is not thought to have gone back; one that has is.
func TestWatchAfterNoise(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	p := mustJoin(t, s, "m1", "", 10*time.Second)
	from := mustLoad(t, s)
	for i := range 20 {
		if err := p.WriteRecord(t.Context(), ledger.Record{Applied: int64(i)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.client.Compact(t.Context(), mustRevision(t, s)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	events := make(chan Event, 100)
	go func() { _ = s.Watch(ctx, from, func(e Event) { events <- e }) }()
	if e := <-events; len(e.Changed) != 0 || e.SigningKeys || e.CAs || e.Snapshot.Revision <= from.Revision {
		t.Errorf("after compaction: changed %v, signing keys %v, revision %d; want no difference, and a later revision than %d", e.Changed, e.SigningKeys, e.Snapshot.Revision, from.Revision)
	}
	want := mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}})
	if e := <-events; e.Snapshot.Revision != want || len(e.Changed) != 1 {
		t.Errorf("then: %v at %d; want one change at %d", e.Changed, e.Snapshot.Revision, want)
	}
	w := watched{state: from, revision: mustRevision(t, s) + 100}
	if err := s.reload(ctx, &w, func(Event) {}); err == nil {
		t.Error("etcd is behind what was watched, and nobody says so")
	}
}
