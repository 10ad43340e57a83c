package api

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

const manifest = "apiVersion: watchword.dev/v1\nkind: "

// hiddenFromOwner is what an owner of the service a must learn nothing of.
const hiddenFromOwner = manifest + `Consumer
metadata: {name: alice}
spec: {username: alice-doe, id: c1, credentials: [{id: i1, key: k1, keySet: {secret: {keys: [{secret: a0123456789012345678901234567890123456789}]}}}]}
---
` + manifest + `Issuer
metadata: {name: corp}
spec: {issuer: "https://corp.test", keySet: {jwksUri: {uri: "https://corp.test/jwks"}}}
---
` + manifest + `AuthorizationPolicy
metadata: {name: theirs}
spec: {action: ALLOW, target: {services: [b]}}
---
` + manifest + `RoleBinding
metadata: {name: people}
spec: {role: VIEWER, subjects: [{token: {issuer: corp, subjects: [a]}}]}
`

// Whatever an owner gives of others, it gets the same answer whether it is there,
// whether it is equal, and at which revision it is; dry run or not.
func TestWritesAreNoOracle(t *testing.T) {
	empty, _ := open(t, serviceYAML("a", "x"), serviceYAML("b", "x"))
	full, m := open(t, serviceYAML("a", "x"), serviceYAML("b", "x"), hiddenFromOwner)
	answer := func(s *Server, f func(*Server, context.Context) error) string {
		st := status.Convert(f(s, by("owner")))
		return st.Code().String() + " " + st.Message()
	}
	same := func(what string, f func(*Server, context.Context) error) {
		t.Helper()
		there, gone := answer(full, f), answer(empty, f)
		if there != gone || !strings.HasPrefix(there, "PermissionDenied ") {
			t.Errorf("%s:\n%s, if it is there;\n%s, if not; want one refusal", what, there, gone)
		}
	}
	apply := func(what, text string) {
		t.Helper()
		for _, dry := range []bool{true, false} {
			same(what, func(s *Server, ctx context.Context) error {
				_, err := s.Apply(ctx, &adminv1.ApplyRequest{Documents: documents(text), DryRun: dry})
				return err
			})
		}
	}
	for _, text := range strings.Split(hiddenFromOwner, "---\n") {
		apply("equal", text)
		apply("with a revision", strings.Replace(text, "metadata: {", "metadata: {revision: 3, ", 1))
		apply("with a uid", strings.Replace(text, "metadata: {", "metadata: {uid: guess, ", 1))
		apply("beside its own", join(text, ownPolicy))
		for _, r := range resources(t, text) {
			same("Change", func(s *Server, ctx context.Context) error {
				_, err := s.Change(ctx, "test", []*policyv1.Resource{r}, nil)
				return err
			})
		}
	}
	apply("a guess", manifest+"Consumer\nmetadata: {name: alice}\nspec: {username: alice-doe}\n")
	apply("a wrong guess", manifest+"Consumer\nmetadata: {name: alice}\nspec: {username: bob}\n")
	for _, ref := range []*adminv1.Reference{{Kind: "consumer", Name: "alice"}, {Kind: "Issuer", Name: "corp"}, {Kind: "AuthorizationPolicy", Name: "theirs"}, {Kind: "RoleBinding", Name: "people"}, {Kind: "Consumer", Name: "alice", Revision: 3}} {
		same("delete "+ref.String(), func(s *Server, ctx context.Context) error {
			_, err := s.Delete(ctx, &adminv1.DeleteRequest{References: []*adminv1.Reference{ref}})
			return err
		})
		same("Change that removes "+ref.String(), func(s *Server, ctx context.Context) error {
			_, err := s.Change(ctx, "test", nil, []policy.Key{referred(ref)})
			return err
		})
	}
	for _, selector := range []map[string]string{nil, {"team": "x"}, {"team": "y"}} {
		same("prune", func(s *Server, ctx context.Context) error {
			_, err := s.Apply(ctx, &adminv1.ApplyRequest{Documents: documents(ownPolicy), Prune: true, PruneSelector: selector, DryRun: true})
			return err
		})
	}
	if m.commits > 0 {
		t.Errorf("%d commits were made", m.commits)
	}
}

// A policy that an owner sees and may not write is refused with the role that it
// takes; the name of one that is hidden is taken, and no more is said.
func TestOwnersNames(t *testing.T) {
	s, _ := open(t, serviceYAML("a", "x"), serviceYAML("b", "x"), hiddenFromOwner, manifest+"AuthorizationPolicy\nmetadata: {name: all}\nspec: {action: DENY, rules: [{to: {paths: [/x]}}]}\n")
	on := func(name, services string) string {
		return manifest + "AuthorizationPolicy\nmetadata: {name: " + name + "}\nspec: {action: ALLOW, target: {services: [" + services + "]}}\n"
	}
	for text, want := range map[string]string{
		on("new", "a"):    "",
		on("new", "b"):    "nothing was changed: AuthorizationPolicy/new: needs the role OPERATOR",
		on("theirs", "a"): "nothing was changed: AuthorizationPolicy/theirs: needs the role OPERATOR",
		on("all", "a"):    "nothing was changed: AuthorizationPolicy/all: needs the role OPERATOR",
	} {
		_, err := s.Apply(by("owner"), &adminv1.ApplyRequest{Documents: documents(text), DryRun: true})
		if got := status.Convert(err).Message(); got != want {
			t.Errorf("%s\n%q, want %q", text, got, want)
		}
	}
	_, err := s.Delete(by("owner"), &adminv1.DeleteRequest{References: []*adminv1.Reference{{Kind: "AuthorizationPolicy", Name: "nope"}}})
	wantError(t, err, codes.PermissionDenied, "AuthorizationPolicy/nope: is not there, or needs the role OPERATOR")
	_, err = s.Delete(by("operator"), &adminv1.DeleteRequest{References: []*adminv1.Reference{{Kind: "AuthorizationPolicy", Name: "nope"}}})
	wantError(t, err, codes.NotFound, `there is no AuthorizationPolicy "nope"`)
}

// The services that an owner's change is about are its own, to the owner.
func TestOwnersServices(t *testing.T) {
	s, _ := open(t, serviceYAML("a", "x"), serviceYAML("b", "x"))
	s.Preview = &everywhere{}
	for who, want := range map[string][]string{"owner": {"a"}, "operator": {"a", "b"}} {
		resp, err := s.Apply(by(who), &adminv1.ApplyRequest{Documents: documents(ownPolicy), DryRun: true})
		if diff := cmp.Diff(want, resp.GetServices()); err != nil || diff != "" {
			t.Errorf("the services of a change by %s: %v, -want +got:\n%s", who, err, diff)
		}
	}
}

// everywhere is a Preview to which a change is about all services.
type everywhere struct{ sound }

func (everywhere) Concerns(_, after policy.State, _ []policy.Key) []string { return after.Services() }

// A change that is written in steps must not give an owner on the way what the whole
// does not: in between, the service would verify with the secret that the mesh's
// policy gives to others.
func TestNoSecretBetweenSteps(t *testing.T) {
	policyOf := func(name, service string) string {
		return manifest + "AuthenticationPolicy\nmetadata: {name: " + name + "}\nspec: {target: {services: [" + service + "]}, jwtRules: [{issuer: watchword}]}\n"
	}
	s, m := open(t, serviceYAML("a", "x"), serviceYAML("b", "x"), policyOf("first", "a"),
		manifest+"Issuer\nmetadata: {name: partner}\nspec: {issuer: p, keySet: {secret: {keys: [{secret: a0123456789012345678901234567890123456789}]}}}\n",
		manifest+"AuthenticationPolicy\nmetadata: {name: mesh}\nspec: {jwtRules: [{issuer: partner, audiences: [a]}]}\n")
	docs := join(policyOf("first", "b"), policyOf("second", "a")) // in this order
	apply := func() error {
		_, err := s.Apply(access.With(t.Context(), access.Actor{Name: "unix:owner", Roles: []access.Role{{Role: access.ServiceOwner, Services: []string{"a", "b"}}}}), &adminv1.ApplyRequest{Documents: documents(docs)})
		return err
	}
	m.limit = 1
	wantError(t, apply(), codes.PermissionDenied, `gives Service "a" a shared secret`)
	if m.commits > 0 {
		t.Errorf("%d commits were made, want none", m.commits)
	}
	m.limit = 2
	if err := apply(); err != nil {
		t.Errorf("at once: %v", err)
	}
}
