package store

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"

	"github.com/watchword-mesh/watchword/controlplane/revocation"
)

func revoked(t testing.TB, value string, ends time.Time) revocation.Entry {
	t.Helper()
	e, err := revocation.New(revocation.Entry{Kind: revocation.Token, Issuer: "sts", Value: value, Created: time.Unix(1, 0).UTC(), Ends: ends})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// A revocation, its audit entry and the floor are written at one revision, are there
// after a start and at the watch, and a second time adds nothing. A KEK is rotated over it.
func TestRevoke(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	before := mustLoad(t, s)
	e := revoked(t, "j1", time.Unix(100, 0).UTC())
	kept, revision, err := s.Revoke(t.Context(), e, entry("Revoke"), RevocationsAt(before.Revision))
	if err != nil || !cmp.Equal(kept, e) {
		t.Fatalf("Revoke: %+v, %v", kept, err)
	}
	after := mustLoad(t, s)
	if !cmp.Equal(after.Revocations, map[string]revocation.Entry{e.ID: e}) || after.Revision != revision {
		t.Errorf("loaded %+v at %d, want the entry at %d", after.Revocations, after.Revision, revision)
	}
	floor, err := s.get(t.Context(), floorKey)
	if err != nil || floor == nil || floor.ModRevision != revision || len(floor.Value) > 0 {
		t.Errorf("the floor is %v, %v; want it empty, at %d", floor, err, revision)
	}
	if got := mustListAudit(t, s, AuditQuery{Limit: 1}); len(got) != 1 || got[0].Method != "Revoke" || got[0].Revision != revision {
		t.Errorf("the audit has %+v", got)
	}
	if got := difference(before, after).Revocations; !cmp.Equal(got, []string{e.ID}) {
		t.Errorf("the difference is %v, want %s", got, e.ID)
	}
	if _, again, err := s.Revoke(t.Context(), e, entry("Revoke")); err != nil || again != revision {
		t.Errorf("the same again: %d, %v; want %d", again, err, revision)
	}
	wider := revoked(t, "j1", time.Unix(200, 0).UTC())
	kept, later, err := s.Revoke(t.Context(), wider, entry("Revoke"))
	if err != nil || later <= revision || !kept.Ends.Equal(wider.Ends) {
		t.Errorf("wider: %+v at %d, %v", kept, later, err)
	}
	if _, _, err := s.Revoke(t.Context(), revoked(t, "j2", time.Time{}), entry("Revoke"), RevocationsAt(revision)); !errors.Is(err, ErrConflict) {
		t.Errorf("judged by what was before: %v, want ErrConflict", err)
	}
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}})
	if _, _, err := s.Revoke(t.Context(), revoked(t, "j2", time.Time{}), entry("Revoke"), ResourcesAt(later)); !errors.Is(err, ErrConflict) {
		t.Errorf("judged by other resources: %v, want ErrConflict", err)
	}
	if _, err := s.DeleteRevocation(t.Context(), e.ID, entry("DeleteRevocation")); err != nil {
		t.Error(err)
	}
	if _, err := s.DeleteRevocation(t.Context(), e.ID, entry("DeleteRevocation")); !errors.Is(err, ErrNoRevocation) {
		t.Errorf("twice: %v, want ErrNoRevocation", err)
	}
	if got := mustLoad(t, s); len(got.Revocations) != 0 {
		t.Errorf("left: %v", got.Revocations)
	}
}

// What has ended goes, and what never ends, ends later, or was widened stays.
func TestSweepRevokedTokens(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	at := func(seconds int64) time.Time { return time.Unix(seconds, 0).UTC() }
	for value, ends := range map[string]time.Time{"ended": at(100), "never": {}, "later": at(300), "widened": at(100)} {
		if _, _, err := s.Revoke(t.Context(), revoked(t, value, ends), entry("Revoke")); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := s.Revoke(t.Context(), revoked(t, "widened", at(300)), entry("Revoke")); err != nil {
		t.Fatal(err)
	}
	removed, err := s.sweepRevocations(t.Context(), at(200))
	got := map[string]bool{}
	for _, e := range mustLoad(t, s).Revocations {
		got[e.Value] = true
	}
	if want := map[string]bool{"never": true, "later": true, "widened": true}; err != nil || removed != 1 || !cmp.Equal(got, want) {
		t.Errorf("removed %d, %v; left %v, want %v", removed, err, got, want)
	}
}

// What is no entry, or is under another name, is not read as one.
func FuzzDecodeRevocation(f *testing.F) {
	e := revoked(f, "j1", time.Unix(100, 0).UTC())
	text, err := encodeJSON(revocationRecord(e))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(revocationsPrefix+e.ID, text)
	f.Add(revocationsPrefix+"x", "{}")
	f.Fuzz(func(t *testing.T, name, text string) {
		e, err := decodeRevocation(name, []byte(text))
		if err == nil && (name != revocationsPrefix+e.ID || e.ID == "") {
			t.Errorf("%q has %+v", name, e)
		}
	})
}
