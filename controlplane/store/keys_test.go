package store

import (
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

func newKey(t *testing.T) keyset.Record {
	t.Helper()
	k, err := keyset.New("ES256", noon)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// firstKeys stores one key that signs and one that is to sign next.
func firstKeys(t *testing.T, s *Store) (active, next keyset.Record) {
	t.Helper()
	active, err := keyset.First("ES256", noon)
	if err != nil {
		t.Fatal(err)
	}
	next = newKey(t)
	if added, err := s.AddFirstKey(t.Context(), active, next); err != nil || !added {
		t.Fatalf("AddFirstKey: %v, %v; want true", added, err)
	}
	snap := mustLoad(t, s)
	return snap.Keys[active.KeyID], snap.Keys[next.KeyID]
}

// The first start stores both keys and which signs, in one revision; every field of a
// record comes back as it was written, with etcd's revisions.
func TestFirstKeys(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	active, next := firstKeys(t, s)
	snap := mustLoad(t, s)
	if snap.Open.Active != active.KeyID || snap.Open.Revision != active.Published || active.Published != next.Published || active.Revision != active.Published || snap.Floor != 0 {
		t.Errorf("open %+v, floor %d, keys published at %d and %d, changed at %d; want all of one revision, and no floor", snap.Open, snap.Floor, active.Published, next.Published, active.Revision)
	}
	want := active
	want.State, want.Unsigned, want.Lifetime = keyset.Retiring, noon.Add(time.Hour), time.Minute
	open := keyset.Open{Active: next.KeyID, Except: map[string]string{"a": active.KeyID}, Asked: noon}
	var err error
	want.Revision, err = s.CommitKeys(t.Context(), KeyChange{
		Read: map[string]int64{want.KeyID: active.Revision}, OpenRevision: snap.Open.Revision, Put: []keyset.Record{want}, Open: &open, Floor: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	open.Revision = want.Revision
	snap = mustLoad(t, s)
	if d := cmp.Diff(want, snap.Keys[want.KeyID]); d != "" {
		t.Errorf("the key (-want +got):\n%s", d)
	}
	if d := cmp.Diff(open, snap.Open); d != "" || snap.Floor != want.Revision {
		t.Errorf("floor %d, want %d; open (-want +got):\n%s", snap.Floor, want.Revision, d)
	}
}

// Data of before there was more than one key get what says which signs, once, with
// the key as it was.
func TestKeysOfBefore(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	active, _ := firstKeys(t, s)
	for _, name := range []string{openKey, keysPrefix + newKey(t).KeyID} {
		if _, err := s.client.Delete(t.Context(), s.prefix+name); err != nil {
			t.Fatal(err)
		}
	}
	var revision int64
	for range 2 {
		if added, err := s.AddFirstKey(t.Context(), newKey(t), newKey(t)); err != nil || added {
			t.Fatalf("AddFirstKey: %v, %v; want false", added, err)
		}
		snap := mustLoad(t, s)
		if snap.Open.Active != active.KeyID || len(snap.Keys) != 2 || revision != 0 && snap.Open.Revision != revision {
			t.Errorf("%d keys, open %+v; want 2, %s active, written once", len(snap.Keys), snap.Open, active.KeyID)
		}
		revision = snap.Open.Revision
	}
}

// Each thing that a change of the keys counts on keeps it from being written when it
// does not hold, and nothing else does.
func TestCommitKeysConflicts(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	active, next := firstKeys(t, s)
	put := func(name, value string) int64 {
		t.Helper()
		resp, err := s.client.Put(t.Context(), s.prefix+name, value)
		if err != nil {
			t.Fatal(err)
		}
		return resp.Header.Revision
	}
	joined := put(joinedKey, "")
	put(leaderKey, "leader")
	snap := mustLoad(t, s)
	fits := func() KeyChange {
		return KeyChange{
			Leader: "leader", Joined: joined, OpenRevision: snap.Open.Revision,
			Read:   map[string]int64{active.KeyID: active.Revision, next.KeyID: next.Revision},
			Delete: []string{"not there"}, Audit: audit.Entry{Method: "Test"},
		}
	}
	for name, spoil := range map[string]func(*KeyChange){
		"another leads":      func(c *KeyChange) { c.Leader = "another" },
		"a member joined":    func(c *KeyChange) { c.Joined-- },
		"open has changed":   func(c *KeyChange) { c.OpenRevision-- },
		"open was not there": func(c *KeyChange) { c.OpenRevision = 0 },
		"a key has changed":  func(c *KeyChange) { c.Read[next.KeyID]-- },
		"a key is gone":      func(c *KeyChange) { c.Read["gone"] = 7 },
		"a key is there":     func(c *KeyChange) { delete(c.Read, active.KeyID); c.Put = []keyset.Record{active} },
	} {
		c := fits()
		spoil(&c)
		before := mustRevision(t, s)
		if _, err := s.CommitKeys(t.Context(), c); !errors.Is(err, ErrConflict) || mustRevision(t, s) != before {
			t.Errorf("%s: %v, revision %d after %d; want ErrConflict, and nothing written", name, err, mustRevision(t, s), before)
		}
	}
	c := fits()
	c.Joined, c.Leader = 0, ""
	if _, err := s.CommitKeys(t.Context(), c); err != nil {
		t.Errorf("an emergency, whoever leads and has joined: %v", err)
	}
	if _, err := s.CommitKeys(t.Context(), fits()); err != nil {
		t.Errorf("with all that must hold: %v", err)
	}
	if _, err := s.client.Delete(t.Context(), s.prefix+leaderKey); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CommitKeys(t.Context(), fits()); !errors.Is(err, ErrConflict) {
		t.Errorf("nobody leads: %v, want ErrConflict", err)
	}
}

// The record of a revoked key has no private key, stays readable, and does not come
// into the way of another key-encryption key; one that is not revoked can't lose its
// private key.
func TestRevokedKeyIsErased(t *testing.T) {
	before, after := testKEK(t), testKEK(t)
	s := openTest(t, t.TempDir(), before)
	active, next := firstKeys(t, s)
	gone := active
	gone.State = keyset.Revoked
	next.State = keyset.Active
	c := KeyChange{
		Read:         map[string]int64{active.KeyID: active.Revision, next.KeyID: next.Revision},
		OpenRevision: mustLoad(t, s).Open.Revision,
		Put:          []keyset.Record{gone, next}, Open: &keyset.Open{Active: next.KeyID}, Floor: true,
	}
	if _, err := s.CommitKeys(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	kv, err := s.get(t.Context(), keysPrefix+gone.KeyID)
	if err != nil {
		t.Fatal(err)
	}
	var stored map[string]any
	if err := json.Unmarshal(kv.Value, &stored); err != nil || stored["private"] != nil {
		t.Errorf("the record of the revoked key is %s, %v; want none of its private key", kv.Value, err)
	}
	if err := s.RotateKEK(t.Context(), NewKeyring(after, before), nil); err != nil {
		t.Errorf("RotateKEK: %v", err)
	}
	if got := sealedWith(t, s); len(got) != 1 || got[after.ID()] == 0 {
		t.Errorf("sealed with %v, want all with %s", got, after.ID())
	}
	s.UseKeyring(NewKeyring(after))
	snap := mustLoad(t, s)
	if k := snap.Keys[gone.KeyID]; k.State != keyset.Revoked || k.PrivatePKCS8 != nil || k.PublicJWK != active.PublicJWK {
		t.Errorf("the revoked key reads as %v", k)
	}
	if _, err := keyset.NewSet(keyset.Keys{Records: snap.Keys, Open: snap.Open}); err != nil {
		t.Errorf("the keys together: %v", err)
	}
	next.PrivatePKCS8 = nil
	if _, err := s.CommitKeys(t.Context(), KeyChange{OpenRevision: snap.Open.Revision, Read: map[string]int64{next.KeyID: snap.Keys[next.KeyID].Revision}, Put: []keyset.Record{next}}); err == nil || errors.Is(err, ErrConflict) {
		t.Errorf("an active key without its private key: %v, want a refusal", err)
	}
}

// Whoever signs hears of another state of a key, of another Open, and that nobody signs
// with a key any more; a floor alone is of no concern to them, and is in the snapshot.
func TestKeyEvents(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	active, next := firstKeys(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	from := mustLoad(t, s)
	events := make(chan Event, 8)
	go func() { _ = s.Watch(ctx, from, func(e Event) { events <- e }) }()
	last := from
	commit := func(what string, tells bool, c KeyChange) {
		t.Helper()
		c.Read = map[string]int64{active.KeyID: last.Keys[active.KeyID].Revision, next.KeyID: last.Keys[next.KeyID].Revision}
		c.OpenRevision = last.Open.Revision
		revision, err := s.CommitKeys(ctx, c)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		e := <-events
		if e.Snapshot.Revision != revision || e.SigningKeys != tells {
			t.Errorf("%s: revision %d, signing keys %v; want %d, %v", what, e.Snapshot.Revision, e.SigningKeys, revision, tells)
		}
		if again := difference(last, e.Snapshot); again.SigningKeys != tells {
			t.Errorf("%s: compared, signing keys %v; want %v", what, again.SigningKeys, tells)
		}
		last = e.Snapshot
		loaded := mustLoad(t, s)
		if d := cmp.Diff(loaded.Keys, last.Keys); d != "" || !cmp.Equal(loaded.Open, last.Open) || loaded.Floor != last.Floor {
			t.Errorf("%s: watched open %+v, floor %d, read %+v, %d; keys (-read +watched):\n%s", what, last.Open, last.Floor, loaded.Open, loaded.Floor, d)
		}
	}
	commit("floor", false, KeyChange{Floor: true})
	commit("open", true, KeyChange{Open: &keyset.Open{Active: active.KeyID, Except: map[string]string{"a": active.KeyID}}})
	next.State = keyset.Active
	commit("state", true, KeyChange{Put: []keyset.Record{next}})
	active.State = keyset.Retiring
	commit("retired", true, KeyChange{Put: []keyset.Record{active}, Open: &keyset.Open{Active: next.KeyID}})
	active.Unsigned = noon
	commit("unsigned", true, KeyChange{Put: []keyset.Record{active}})
	commit("gone", true, KeyChange{Delete: []string{active.KeyID}, Floor: true})
}
