package store

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

func TestRevokeInstances(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}})
	var ids []string
	for n := range maxRevoked + 3 {
		ids = append(ids, fmt.Sprintf("i%03d", n))
		mustEnrol(t, s, instance("a", ids[n]), nil)
	}
	mustEnrol(t, s, instance("a", "stays"), nil)
	e := entry("RevokeInstances")
	for _, id := range ids {
		e.Subjects = append(e.Subjects, "revoked "+id)
	}
	revoked, tokens, revision, err := s.RevokeInstances(t.Context(), "a", ids, e)
	if err != nil || !cmp.Equal(revoked, ids) || tokens != nil {
		t.Errorf("revoked %v, %v, %v; want %v", revoked, tokens, err, ids)
	}
	snap := mustLoad(t, s)
	if got := keysOf(snap.Instances); !cmp.Equal(got, []string{"a/stays"}) || snap.Revision != revision {
		t.Errorf("left: %v at %d; want a/stays at %d", got, snap.Revision, revision)
	}
	entries := mustListAudit(t, s, AuditQuery{Limit: 2})
	if got := methods(entries); !cmp.Equal(got, []string{"RevokeInstances", "RevokeInstances"}) {
		t.Errorf("audit: %v, want one entry for each of two transactions", got)
	}
	if got := entries[0].Subjects; !cmp.Equal(got, e.Subjects[maxRevoked:]) {
		t.Errorf("the later entry is about %v, want %v", got, e.Subjects[maxRevoked:])
	}
}

// An instance that is gone is ErrUnknown, and nothing is written down as done of its
// transaction; what was ended before is returned.
func TestRevokeInstancesThatAreGone(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}})
	var ids []string
	for n := range maxRevoked + 1 {
		ids = append(ids, fmt.Sprintf("i%03d", n))
		mustEnrol(t, s, instance("a", ids[n]), nil)
	}
	if revoked, _, revision, err := s.RevokeInstances(t.Context(), "a", []string{ids[0], "gone"}, entry("RevokeInstances")); !errors.Is(err, ErrUnknown) || revoked != nil || revision != 0 {
		t.Errorf("with one that is gone: %v at %d, %v; want none and ErrUnknown", revoked, revision, err)
	}
	if got := methods(mustListAudit(t, s, AuditQuery{Limit: 1})); !cmp.Equal(got, []string{"Enrol"}) {
		t.Errorf("audit: %v, want no revocation", got)
	}
	revoked, _, _, err := s.RevokeInstances(t.Context(), "a", append(ids, "gone"), entry("RevokeInstances"))
	if !errors.Is(err, ErrUnknown) || !cmp.Equal(revoked, ids[:maxRevoked]) {
		t.Errorf("with one that is gone from the second transaction: %v, %v; want those of the first", revoked, err)
	}
	if got := keysOf(mustLoad(t, s).Instances); !cmp.Equal(got, []string{"a/" + ids[maxRevoked]}) {
		t.Errorf("left: %v, want the last", got)
	}
}

func TestRevokeAll(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	if _, _, _, err := s.RevokeInstances(t.Context(), "a", nil, entry("RevokeInstances")); !errors.Is(err, ErrNoService) {
		t.Errorf("of a service that is not there: %v, want ErrNoService", err)
	}
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a"), service("a-2")}})
	token := addJoinToken(t, s, joinToken("a", "T1", 9))
	mustEnrol(t, s, instance("a", "i1"), &token)
	token = mustJoinToken(t, s, "a", "T1")
	mustEnrol(t, s, instance("a-2", "i1"), nil)
	before := mustLoad(t, s)
	e := entry("RevokeInstances")
	e.Time = noon
	revoked, tokens, revision, err := s.RevokeInstances(t.Context(), "a", nil, e)
	if err != nil || !cmp.Equal(revoked, []string{"i1"}) || !cmp.Equal(tokens, []string{"T1"}) {
		t.Errorf("revoked %v and %v, %v; want [i1] and [T1]", revoked, tokens, err)
	}
	snap := mustLoad(t, s)
	if d := cmp.Diff(map[string]time.Time{"a": noon}, snap.RevokedBefore); d != "" || snap.Revision != revision {
		t.Errorf("RevokedBefore at %d, want %d (-want +got):\n%s", snap.Revision, revision, d)
	}
	if got := keysOf(snap.Instances); !cmp.Equal(got, []string{"a-2/i1"}) {
		t.Errorf("left: %v, want a-2/i1", got)
	}
	late := instance("a", "i2")
	late.Revision = before.Revision
	if _, err := s.Enrol(t.Context(), late, nil, entry("Enrol")); !errors.Is(err, ErrConflict) {
		t.Errorf("of who judged by the state before: %v, want ErrConflict", err)
	}
	if _, err := s.Enrol(t.Context(), instance("a", "i3"), &token, entry("Enrol")); !errors.Is(err, ErrConflict) {
		t.Errorf("with a token that was revoked: %v, want ErrConflict", err)
	}
	late.Revision = snap.Revision
	mustEnrol(t, s, late, nil)
}

func TestDeletedServiceLosesItsInstances(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a"), service("a-2")}})
	for _, name := range []string{"a", "a-2"} {
		if _, _, _, err := s.RevokeInstances(t.Context(), name, nil, audit.Entry{}); err != nil {
			t.Fatal(err)
		}
		mustEnrol(t, s, instance(name, "i1"), nil)
		addJoinToken(t, s, joinToken(name, "T1", 1))
	}
	old, began := mustLoad(t, s).Revision, time.Now()
	mustCommit(t, s, Change{Delete: []policy.Key{{Kind: policy.KindService, Name: "a"}}})
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}})
	snap := mustLoad(t, s)
	tokens, err := s.ListJoinTokens(t.Context(), "")
	if err != nil || len(tokens) != 1 || tokens[0].Service != "a-2" {
		t.Errorf("join tokens: %v, %v; want the one of a-2", tokens, err)
	}
	if got := keysOf(snap.Instances); !cmp.Equal(got, []string{"a-2/i1"}) {
		t.Errorf("instances %v, want that of a-2", got)
	}
	// A Kubernetes token of before the deletion proves nothing to the new service.
	if at := snap.RevokedBefore["a"]; at.Before(began) || !snap.RevokedBefore["a-2"].Before(at) {
		t.Errorf("revoked before %v; want the time of the deletion, after %s, for a", snap.RevokedBefore, began)
	}
	late := instance("a", "i2")
	late.Revision = old
	if _, err := s.Enrol(t.Context(), late, nil, entry("Enrol")); !errors.Is(err, ErrConflict) {
		t.Errorf("of who judged by the service before: %v, want ErrConflict", err)
	}
}

// An instance that was revoked by name does not come back, whatever it proves; one
// that was revoked with all others may, by a new proof. What is long ago is forgotten.
func TestRevokedByNameStaysOut(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}})
	mustEnrol(t, s, instance("a", "named"), nil)
	mustEnrol(t, s, instance("a", "all"), nil)
	e := entry("RevokeInstances")
	e.Time = noon
	if _, _, _, err := s.RevokeInstances(t.Context(), "a", []string{"named"}, e); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := s.RevokeInstances(t.Context(), "a", nil, e); err != nil {
		t.Fatal(err)
	}
	if i, err := s.Enrol(t.Context(), instance("a", "named"), nil, entry("Enrol")); !errors.Is(err, ErrRevoked) {
		t.Errorf("Enrol of the one that was named: %+v, %v; want ErrRevoked", i, err)
	}
	mustEnrol(t, s, instance("a", "all"), nil)
	if _, _, err := s.Sweep(t.Context(), noon.Add(ForgetRevocations+time.Hour), Retention{}); err != nil {
		t.Fatal(err)
	}
	mustEnrol(t, s, instance("a", "named"), nil)
}
