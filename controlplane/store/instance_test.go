package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

var noon = time.Date(2030, 1, 2, 12, 0, 0, 0, time.UTC)

func instance(service, id string) Instance {
	return Instance{Service: service, ID: id, Node: "node-" + id, PublicJWK: `{"kid":"` + id + `"}`, AttestedBy: "join-token/t",
		Enrolled: noon, Renewed: noon, Expires: noon.Add(time.Hour)}
}

func mustEnrol(t *testing.T, s *Store, i Instance, use *JoinToken) Instance {
	t.Helper()
	got, err := s.Enrol(t.Context(), i, use, entry("Enrol"))
	if err != nil {
		t.Fatalf("Enrol(%+v): %v", i, err)
	}
	return got
}

func keysOf(all Instances) []string {
	var keys []string
	for i := range all.All() {
		keys = append(keys, i.key())
	}
	slices.Sort(keys)
	return keys
}

// A join token is there for a service that is there, comes back as it was, can be

// found by its ID alone, and is gone when it is revoked.

// An enrolment uses a token once; the same key again is the same instance and

// uses nothing, also when the token is used up; another key is then refused.

func TestEnrol(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	if _, err := s.Enrol(t.Context(), instance("a", "i1"), nil, entry("Enrol")); !errors.Is(err, ErrNoService) {
		t.Errorf("of a service that is not there: %v, want ErrNoService", err)
	}
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}})
	token := addJoinToken(t, s, joinToken("a", "T1", 1))
	first := mustEnrol(t, s, instance("a", "i1"), &token)
	if _, err := s.Enrol(t.Context(), instance("a", "i2"), &token, entry("Enrol")); !errors.Is(err, ErrConflict) {
		t.Errorf("with a token that was used since it was read: %v, want ErrConflict", err)
	}
	token = mustJoinToken(t, s, "a", "T1")
	if !cmp.Equal(token.Instances, []string{"i1"}) {
		t.Errorf("the token was used by %v, want [i1]", token.Instances)
	}
	if _, err := s.Enrol(t.Context(), instance("b", "i2"), &token, entry("Enrol")); err == nil {
		t.Error("a token of service a has enrolled an instance of b")
	}
	later := instance("a", "i1")
	later.Enrolled, later.Renewed, later.Expires = noon.Add(time.Minute), noon.Add(time.Minute), noon.Add(2*time.Hour)
	second := mustEnrol(t, s, later, &token)
	if !second.Enrolled.Equal(noon) || !second.Expires.Equal(later.Expires) || second.Revision <= first.Revision {
		t.Errorf("the same key again: %+v; want the first time of enrolment, and the new end", second)
	}
	if now := mustJoinToken(t, s, "a", "T1"); now.Revision != token.Revision {
		t.Errorf("the same key again has used the token: %+v", now)
	}
	if _, err := s.Enrol(t.Context(), instance("a", "i2"), &token, entry("Enrol")); !errors.Is(err, ErrUsedUp) {
		t.Errorf("another key with a token of one use: %v, want ErrUsedUp", err)
	}
	other := instance("a", "i1")
	other.PublicJWK = "other"
	if _, err := s.Enrol(t.Context(), other, nil, entry("Enrol")); !errors.Is(err, ErrOtherKey) {
		t.Errorf("another key under the same ID: %v, want ErrOtherKey", err)
	}
	got, ok := mustLoad(t, s).Instances.Get("a/i1")
	if d := cmp.Diff(second, got); d != "" || !ok {
		t.Errorf("loaded (-want +got):\n%s", d)
	}
	if n := len(mustListAudit(t, s, AuditQuery{})); n != 3 { // CreateJoinToken, Enrol, Enrol
		t.Errorf("%d audit entries, want 3", n)
	}
}

// However many enrol at once with one token, it is used as often as it says.

func TestEnrolAtOnce(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}})
	addJoinToken(t, s, joinToken("a", "T1", 5))
	var wg sync.WaitGroup
	outcomes := make(chan error, 12)
	for n := range cap(outcomes) {
		wg.Go(func() {
			for {
				token, err := s.JoinToken(t.Context(), "a", "T1")
				if err == nil {
					_, err = s.Enrol(t.Context(), instance("a", fmt.Sprint(n)), &token, entry("Enrol"))
				}
				if !errors.Is(err, ErrConflict) {
					outcomes <- err
					return
				}
			}
		})
	}
	wg.Wait()
	enrolled := 0
	for range cap(outcomes) {
		switch err := <-outcomes; {
		case err == nil:
			enrolled++
		case !errors.Is(err, ErrUsedUp):
			t.Errorf("an enrolment: %v, want none or ErrUsedUp", err)
		}
	}
	used := len(mustJoinToken(t, s, "a", "T1").Instances)
	if n := mustLoad(t, s).Instances.Len(); n != 5 || enrolled != 5 || used != 5 {
		t.Errorf("%d instances, %d told so, %d in the token; want 5 each", n, enrolled, used)
	}
}

// A renewal goes through for the instance as it was read, and brings back none

// that was revoked.

func TestRenew(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}})
	i := mustEnrol(t, s, instance("a", "i1"), nil)
	i.Renewed, i.Expires = noon.Add(time.Minute), noon.Add(2*time.Hour)
	if err := s.Renew(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if err := s.Renew(t.Context(), i); !errors.Is(err, ErrConflict) {
		t.Errorf("from an older revision: %v, want ErrConflict", err)
	}
	now, _ := mustLoad(t, s).Instances.Get("a/i1")
	if !now.Expires.Equal(i.Expires) {
		t.Errorf("renewed until %s, want %s", now.Expires, i.Expires)
	}
	if _, _, _, err := s.RevokeInstances(t.Context(), "a", []string{"i1"}, entry("RevokeInstances")); err != nil {
		t.Fatal(err)
	}
	if err := s.Renew(t.Context(), now); !errors.Is(err, ErrUnknown) {
		t.Errorf("of a revoked instance: %v, want ErrUnknown", err)
	}
}

// Some instances are revoked by name, more than one transaction takes too; what

// was not there is not counted, and others stay.

// To revoke all of a service ends its join tokens too, and says from when on

// proofs from elsewhere count, in one transaction; a caller who judged by an older

// state does not get in, and other services keep theirs.

// With a service all that proves it goes: who makes a service of that name again

// finds nothing valid, and who judged by the old one does not get in.

// The watch names the instances that came, were renewed and went, and its

// snapshots are those of a load; a reload after a gap finds the same.

func TestWatchInstances(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}})
	mustEnrol(t, s, instance("a", "i0"), nil)
	from := mustLoad(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	events := make(chan Event, 8)
	go func() { _ = s.Watch(ctx, from, func(e Event) { events <- e }) }()
	expect := func(what string, names ...string) {
		t.Helper()
		e := <-events
		if loaded := mustLoad(t, s); !cmp.Equal(e.Instances, names) || !e.Snapshot.Instances.Equal(loaded.Instances) || !cmp.Equal(e.Snapshot.RevokedBefore, loaded.RevokedBefore) {
			t.Errorf("%s: the event names %v, its snapshot has %v; want %v and %v", what, e.Instances, keysOf(e.Snapshot.Instances), names, keysOf(loaded.Instances))
		}
	}
	i1 := mustEnrol(t, s, instance("a", "i1"), nil)
	expect("enrolled", "a/i1")
	i1.Expires = i1.Expires.Add(time.Hour)
	if err := s.Renew(ctx, i1); err != nil {
		t.Fatal(err)
	}
	expect("renewed", "a/i1")
	if _, _, _, err := s.RevokeInstances(ctx, "a", []string{"i1"}, entry("x")); err != nil {
		t.Fatal(err)
	}
	expect("revoked", "a/i1")
	mustEnrol(t, s, instance("a", "i2"), nil)
	expect("enrolled", "a/i2")
	if _, _, _, err := s.RevokeInstances(ctx, "a", nil, entry("x")); err != nil {
		t.Fatal(err)
	}
	expect("all revoked", "a/i0", "a/i2")
	mustEnrol(t, s, instance("a", "i3"), nil)
	if got := difference(from, mustLoad(t, s)).Instances; !cmp.Equal(got, []string{"a/i0", "a/i3"}) {
		t.Errorf("the difference to the first snapshot: %v, want a/i0 and a/i3", got)
	}
	if got := keysOf(from.Instances); !cmp.Equal(got, []string{"a/i0"}) {
		t.Errorf("the first snapshot has become %v", got)
	}
}

// Sweep removes what has expired and nothing else, the surplus of the audit by

// number and by age, and no instance that was renewed since.

// A record that was renewed between the look and the deletion stays.

// Load reads what a snapshot has, and no join tokens: they may be many, and are

// read when somebody asks.
