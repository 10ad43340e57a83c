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
	for n := range maxBatch + 3 {
		ids = append(ids, fmt.Sprintf("i%03d", n))
		mustEnrol(t, s, instance("a", ids[n]), nil)
	}
	mustEnrol(t, s, instance("a", "stays"), nil)
	revoked, tokens, revision, err := s.RevokeInstances(t.Context(), "a", append(ids, "unknown"), entry("RevokeInstances"))
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
	old := mustLoad(t, s).Revision
	mustCommit(t, s, Change{Delete: []policy.Key{{Kind: policy.KindService, Name: "a"}}})
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}})
	snap := mustLoad(t, s)
	tokens, err := s.ListJoinTokens(t.Context(), "")
	if err != nil || len(tokens) != 1 || tokens[0].Service != "a-2" {
		t.Errorf("join tokens: %v, %v; want the one of a-2", tokens, err)
	}
	_, kept := snap.RevokedBefore["a-2"]
	if got := keysOf(snap.Instances); !cmp.Equal(got, []string{"a-2/i1"}) || !kept || len(snap.RevokedBefore) != 1 {
		t.Errorf("instances %v, revoked before %v; want those of a-2", got, snap.RevokedBefore)
	}
	late := instance("a", "i2")
	late.Revision = old
	if _, err := s.Enrol(t.Context(), late, nil, entry("Enrol")); !errors.Is(err, ErrConflict) {
		t.Errorf("of who judged by the service before: %v, want ErrConflict", err)
	}
}
