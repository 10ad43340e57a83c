package store

import (
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/issuer/clientauth"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

func joinToken(service, id string, uses int) JoinToken {
	return JoinToken{ID: id, Service: service, Hash: []byte{1, 2}, Uses: uses, Created: noon, Expires: noon.Add(time.Hour), CreatedBy: "unix:root"}
}

func addJoinToken(t *testing.T, s *Store, token JoinToken) JoinToken {
	t.Helper()
	if err := s.AddJoinToken(t.Context(), token, entry("CreateJoinToken")); err != nil {
		t.Fatalf("AddJoinToken(%+v): %v", token, err)
	}
	return mustJoinToken(t, s, token.Service, token.ID)
}

func mustJoinToken(t *testing.T, s *Store, service, id string) JoinToken {
	t.Helper()
	token, err := s.JoinToken(t.Context(), service, id)
	if err != nil {
		t.Fatalf("JoinToken(%s, %s): %v", service, id, err)
	}
	return token
}

func TestJoinTokens(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	if err := s.AddJoinToken(t.Context(), joinToken("a", "T1", 1), entry("x")); !errors.Is(err, ErrNoService) {
		t.Errorf("for a service that is not there: %v, want ErrNoService", err)
	}
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a"), service("a-2")}})
	for _, uses := range []int{0, MaxJoinTokenUses + 1} {
		if err := s.AddJoinToken(t.Context(), joinToken("a", "T1", uses), entry("x")); err == nil {
			t.Errorf("a token with %d uses was taken", uses)
		}
	}
	one, two := addJoinToken(t, s, joinToken("a", "T1", 3)), addJoinToken(t, s, joinToken("a-2", "T2", 1))
	want := joinToken("a", "T1", 3)
	want.Revision = one.Revision
	if d := cmp.Diff(want, one); d != "" || one.Revision == 0 {
		t.Errorf("read back (-want +got):\n%s", d)
	}
	for of, want := range map[string][]JoinToken{"": {one, two}, "a": {one}, "nobody": nil} {
		if got, err := s.ListJoinTokens(t.Context(), of); err != nil || !cmp.Equal(got, want) {
			t.Errorf("ListJoinTokens(%q): %v, %v; want %v", of, got, err, want)
		}
	}
	if got, err := s.FindJoinToken(t.Context(), "T2"); err != nil || !cmp.Equal(got, two) {
		t.Errorf("FindJoinToken(T2): %v, %v; want %v", got, err, two)
	}
	if err := s.RevokeJoinToken(t.Context(), "a", "T1", entry("RevokeJoinToken")); err != nil {
		t.Fatal(err)
	}
	_, byID := s.FindJoinToken(t.Context(), "T1")
	_, byName := s.JoinToken(t.Context(), "a", "T1")
	again := s.RevokeJoinToken(t.Context(), "a", "T1", entry("RevokeJoinToken"))
	for what, err := range map[string]error{"by ID": byID, "by name": byName, "revoked again": again} {
		if !errors.Is(err, ErrUnknown) {
			t.Errorf("a revoked token %s: %v, want ErrUnknown", what, err)
		}
	}
}

func TestLoadLeavesOutJoinTokens(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a")}})
	addJoinToken(t, s, joinToken("a", "T1", 1))
	mustEnrol(t, s, instance("a", "i1"), nil)
	if _, err := s.AddSecret(t.Context(), clientauth.Secret{ID: "1", Service: "a"}, audit.Entry{}); err != nil {
		t.Fatal(err)
	}
	kvs, _, err := s.readAll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, kv := range kvs {
		names = append(names, strings.TrimPrefix(string(kv.Key), s.prefix))
	}
	want := []string{"config/.fence", "config/Service/a", "instances/a/i1", "secrets/a/1"}
	if !cmp.Equal(names, want) {
		t.Errorf("Load reads %v, want %v", names, want)
	}
}

// What is to hold only as long as no resource is written is refused after one was,
// and nothing is stored; what is no resource doesn't count.
func TestResourcesAt(t *testing.T) {
	s := openTest(t, t.TempDir(), testKEK(t))
	first := mustCommit(t, s, Change{Put: []*policyv1.Resource{service("a", "x")}})
	add := func(id string, at int64) (token, secret error) {
		_, secret = s.AddSecret(t.Context(), clientauth.Secret{ID: id, Service: "a"}, entry("CreateClientSecret"), ResourcesAt(at))
		return s.AddJoinToken(t.Context(), joinToken("a", id, 1), entry("CreateJoinToken"), ResourcesAt(at)), secret
	}
	for i := range 2 { // a token and a secret are no resources
		if token, secret := add(strconv.Itoa(i), first); token != nil || secret != nil {
			t.Errorf("at the revision of the last resource: %v, %v", token, secret)
		}
	}
	second := mustCommit(t, s, Change{Put: []*policyv1.Resource{service("b", "x")}})
	if token, secret := add("3", second-1); !errors.Is(token, ErrConflict) || !errors.Is(secret, ErrConflict) {
		t.Errorf("after another resource: %v, %v; want ErrConflict", token, secret)
	}
	if list, err := s.ListJoinTokens(t.Context(), "a"); err != nil || len(list) != 2 {
		t.Errorf("join tokens %v, %v; want two", list, err)
	}
	third := mustCommit(t, s, Change{Delete: []policy.Key{{Kind: policy.KindService, Name: "a"}}})
	if token, secret := add("4", third); !errors.Is(token, ErrNoService) || !errors.Is(secret, ErrNoService) {
		t.Errorf("without the service: %v, %v; want ErrNoService", token, secret)
	}
}
