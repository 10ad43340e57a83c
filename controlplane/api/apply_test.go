package api

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const sharedYAML = `apiVersion: watchword.dev/v1
kind: Issuer
metadata: {name: shared}
spec: {issuer: shared, keySet: {jwks: '{"keys":[{"kty":"oct","kid":"s","alg":"HS256","k":"c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MDE"}]}'}}
`

// Create, update and unchanged in one transaction, each with its difference;
// applied again, nothing is written.
func TestApply(t *testing.T) {
	s, m := open(t, serviceYAML("a", "x"), serviceYAML("b", "x"), serviceYAML("untouched", "x"))
	docs := join(serviceYAML("a", "x"), serviceYAML("b", "y", "c", "a"), serviceYAML("c", "x"))
	resp, err := apply(s, docs)
	if err != nil {
		t.Fatal(err)
	}
	if want := "UNCHANGED Service/a\nUPDATED Service/b\nCREATED Service/c"; actions(resp.GetChanges()) != want || resp.GetRevision() != 12 || resp.GetTransactions() != 1 {
		t.Errorf("changes %q at %d in %d transactions; want %q at 12 in 1", actions(resp.GetChanges()), resp.GetRevision(), resp.GetTransactions(), want)
	}
	if got := m.state[policy.Key{Kind: policy.KindService, Name: "c"}].GetMetadata(); got.GetUid() != "new-uid-1" {
		t.Errorf("a new resource has the metadata %v, want a uid of its own", got)
	}
	if got := m.state[policy.Key{Kind: policy.KindService, Name: "b"}].GetMetadata(); got.GetUid() != "uid-of-b" {
		t.Errorf("an updated resource has the metadata %v, want the uid that it had", got)
	}
	if len(m.waited) != 1 || m.waited[0] != 12 {
		t.Errorf("Apply waited for the revisions %v, want 12: the next call must see the change", m.waited)
	}
	resp, err = apply(s, docs)
	if err != nil || resp.GetRevision() != 12 || m.commits != 1 || resp.GetTransactions() != 0 {
		t.Errorf("applied again: %v, %v after %d commits; want nothing written", resp, err, m.commits)
	}
	if want := "UNCHANGED Service/a\nUNCHANGED Service/b\nUNCHANGED Service/c"; actions(resp.GetChanges()) != want {
		t.Errorf("applied again: %q, want %q", actions(resp.GetChanges()), want)
	}
}

// A dry run says what would be done, with differences, and does nothing;
// secrets are redacted, and a change of a secret alone is said.
func TestDryRunDiff(t *testing.T) {
	s, m := open(t, serviceYAML("a", "x"), serviceYAML("gone", "x"), sharedYAML)
	other := strings.Replace(sharedYAML, "c2VjcmV0c2", "b3RoZXJzZX", 1)
	if other == sharedYAML {
		t.Fatal("the secrets are equal")
	}
	resp, err := s.Apply(root(), &adminv1.ApplyRequest{
		Documents: documents(join(serviceYAML("a", "y", "b"), serviceYAML("b", "x"), other)), DryRun: true, Prune: true})
	if err != nil {
		t.Fatalf("%v\n%s", err, faultLines(err))
	}
	var got bytes.Buffer
	for _, c := range resp.GetChanges() {
		fmt.Fprintf(&got, "%s %s/%s\n%s", c.GetAction(), c.GetKind(), c.GetName(), c.GetDiff())
	}
	if m.commits != 0 || resp.GetRevision() != 11 || resp.GetTransactions() != 0 {
		t.Errorf("a dry run: %d commits, revision %d; want none, and 11 that it was compared with", m.commits, resp.GetRevision())
	}
	golden(t, "testdata/diff.txt", got.Bytes())
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")); diff != "" {
		t.Errorf("%s -want +got (rewrite with -update):\n%s", file, diff)
	}
}

// All faults of form and meaning in all files come at once, in the order of the
// documents, and nothing is stored.
func TestApplyFaults(t *testing.T) {
	s, m := open(t)
	_, err := apply(s,
		join(serviceYAML("a", "x", "nobody", "b"), "apiVersion: watchword.dev/v1\nkind: Service\nmetadata: {name: c}\nspec: {audience: [x]}\n"),
		join("# first\n"+serviceYAML("b", "x", "nobody"), "kind: [\n"))
	wantError(t, err, codes.InvalidArgument, "4 faults, nothing was changed; the first: a.yaml:8: Service/a: spec.calls[0].service: there is no Service \"nobody\"")
	want := `a.yaml:8: Service/a: spec.calls[0].service: there is no Service "nobody"
a.yaml:14: Service/c: spec.audience: unknown field; the fields here are audiences, routes, inbound, calls, dataPlanes, selfIssued, bootstrap, hosts, endpoints, outbound, lease
b.yaml:9: Service/b: spec.calls[0].service: there is no Service "nobody"
b.yaml:11: not YAML: did not find expected node content`
	if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(faultLines(err), "\n")); diff != "" {
		t.Errorf("faults -want +got:\n%s", diff)
	}
	if m.commits != 0 || m.revision != 11 {
		t.Errorf("%d commits, revision %d; want nothing stored", m.commits, m.revision)
	}
}

// An answer lists a bounded number of faults, and no more are looked for.
func TestApplyManyFaults(t *testing.T) {
	s, _ := open(t)
	_, err := apply(s, strings.Repeat("kind: X\n---\n", 300))
	wantError(t, err, codes.InvalidArgument, "200 faults")
	if got := len(strings.Split(faultLines(err), "\n")); got != mostFaults {
		t.Errorf("%d faults are listed, want %d", got, mostFaults)
	}
}

// Nothing to apply is an error: with prune it would delete everything.
func TestApplyNothing(t *testing.T) {
	for _, docs := range [][]*adminv1.Document{nil, documents(""), documents("---\n# nothing\n", "null")} {
		s, m := open(t, serviceYAML("a", "x"))
		_, err := s.Apply(root(), &adminv1.ApplyRequest{Documents: docs, Prune: true})
		wantError(t, err, codes.InvalidArgument, "the documents hold no resource")
		if m.commits != 0 {
			t.Errorf("applying %v committed", docs)
		}
	}
}

// Prune deletes what is not given and has all labels, in an order in which each
// step is valid; the built-in issuer stays.
func TestPrune(t *testing.T) {
	for name, tt := range map[string]struct {
		selector map[string]string
		want     string
	}{
		"all":      {nil, "DELETED Issuer/shared\nUNCHANGED Service/a\nDELETED Service/b\nDELETED Service/c"},
		"team":     {map[string]string{"team": "x"}, "UNCHANGED Service/a\nDELETED Service/b"},
		"no match": {map[string]string{"team": "x", "more": "y"}, "UNCHANGED Service/a"},
	} {
		s, m := open(t, serviceYAML("a", "x"), serviceYAML("b", "x"), serviceYAML("c", "y"), sharedYAML)
		resp, err := s.Apply(root(), &adminv1.ApplyRequest{Documents: documents(serviceYAML("a", "x")), Prune: true, PruneSelector: tt.selector})
		if err != nil {
			t.Errorf("%s: %v: %s", name, err, faultLines(err))
			continue
		}
		if got := actions(resp.GetChanges()); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
		if m.state.Issuer(policy.BuiltinIssuer) == nil {
			t.Errorf("%s: the built-in issuer is gone", name)
		}
	}
}

// What prune would break names the resource that needs it.
func TestPruneStillNeeded(t *testing.T) {
	s, m := open(t, serviceYAML("a", "x"), serviceYAML("b", "y", "a"))
	_, err := s.Apply(root(), &adminv1.ApplyRequest{Documents: documents(serviceYAML("c", "x")), Prune: true, PruneSelector: map[string]string{"team": "x"}})
	wantError(t, err, codes.InvalidArgument, `Service/b: spec.calls[0].service: there is no Service "a"`)
	if m.commits != 0 {
		t.Error("something was stored")
	}
}

// Optimistic concurrency: who names an old revision, or another incarnation, is
// refused and told the way out; who names none takes what is there.
func TestApplyRevision(t *testing.T) {
	named := func(metadata string) string {
		return "apiVersion: watchword.dev/v1\nkind: Service\nmetadata: {name: a" + metadata + "}\nspec: {audiences: [z]}\n"
	}
	for name, tt := range map[string]struct {
		text, want string
		code       codes.Code
	}{
		"none":         {named(""), "", codes.OK},
		"current":      {named(", revision: 11, uid: uid-of-a"), "", codes.OK},
		"old":          {named(", revision: 7"), "Service/a: names revision 7, but it was changed at revision 11: get it again, and make the change there", codes.FailedPrecondition},
		"future":       {named(", revision: 12"), "Service/a: names revision 12, but it was changed at revision 11", codes.FailedPrecondition},
		"gone":         {strings.Replace(named(", revision: 7"), "name: a", "name: b", 1), "Service/b: names revision 7, but there is none (deleted?): leave metadata.revision out to create it", codes.FailedPrecondition},
		"made anew":    {named(", uid: other"), "a.yaml:3: Service/a: metadata.uid: the stored resource has another uid", codes.InvalidArgument},
		"uid and gone": {strings.Replace(named(", uid: other"), "name: a", "name: b", 1), "a.yaml:3: Service/b: metadata.uid", codes.InvalidArgument},
	} {
		s, m := open(t, serviceYAML("a", "x"))
		_, err := apply(s, tt.text)
		if tt.code == codes.OK {
			if err != nil || m.revision != 12 {
				t.Errorf("%s: %v at %d, want it stored at 12", name, err, m.revision)
			}
			continue
		}
		wantError(t, err, tt.code, tt.want)
		if m.commits != 0 {
			t.Errorf("%s: something was stored", name)
		}
	}
}

// Another writer in between: the plan is made again on what he stored, and
// goes through if it still holds.
func TestApplyRetries(t *testing.T) {
	s, m := open(t)
	others := [][]*policyv1.Resource{resources(t, serviceYAML("other", "x")), resources(t, serviceYAML("other2", "x")), nil}
	m.meanwhile = func() []*policyv1.Resource { o := others[0]; others = others[1:]; return o }
	resp, err := apply(s, serviceYAML("a", "x"))
	if err != nil || resp.GetRevision() != 14 || m.commits != 3 {
		t.Errorf("Apply = %v, %v after %d commits; want revision 14 after 3", resp, err, m.commits)
	}
	if got := actions(resp.GetChanges()); got != "CREATED Service/a" {
		t.Errorf("changes %q: those of the other writer are not ours", got)
	}
	if m.state.Service("other") == nil || m.state.Service("other2") == nil {
		t.Error("what the other writer stored is lost")
	}
}

// Another writer in between who makes the plan invalid: it is refused.
func TestApplyRetryFindsFaults(t *testing.T) {
	s, m := open(t)
	taken := resources(t, "apiVersion: watchword.dev/v1\nkind: Service\nmetadata: {name: other}\nspec: {audiences: [a]}\n")
	m.meanwhile = func() []*policyv1.Resource { o := taken; taken = nil; return o }
	_, err := apply(s, serviceYAML("a", "x"))
	wantError(t, err, codes.InvalidArgument, `the audience "a" belongs to Service`)
	if m.state.Service("a") != nil {
		t.Error("two services have one audience")
	}
}

// Another writer in between who changes the same resource: who named the
// revision that he saw is refused, not merged.
func TestApplyRetryFindsRevision(t *testing.T) {
	s, m := open(t, serviceYAML("a", "x"))
	theirs := resources(t, serviceYAML("a", "z"))
	m.meanwhile = func() []*policyv1.Resource { o := theirs; theirs = nil; return o }
	_, err := apply(s, strings.Replace(serviceYAML("a", "y"), "name: a", "name: a\n  revision: 11", 1))
	wantError(t, err, codes.FailedPrecondition, "Service/a: names revision 11, but it was changed at revision 12")
}

// Somebody who always is faster does not keep a call for ever; a store that
// fails is said to.
func TestApplyGivesUp(t *testing.T) {
	s, m := open(t)
	m.meanwhile = func() []*policyv1.Resource { return resources(t, serviceYAML("other", fmt.Sprint("t", m.commits))) }
	_, err := apply(s, serviceYAML("a", "x"))
	wantError(t, err, codes.Aborted, "others keep changing the configuration at the same time; try again")
	if m.commits != attempts {
		t.Errorf("%d attempts, want %d", m.commits, attempts)
	}
	s, m = open(t)
	m.fail = errors.New("etcd's space quota is used up")
	_, err = apply(s, serviceYAML("a", "x"))
	wantError(t, err, codes.Unavailable, "etcd's space quota is used up")
}

// A caller who is gone gets his own error, not one of the store.
func TestApplyCancelled(t *testing.T) {
	s, _ := open(t)
	ctx, cancel := context.WithCancel(root())
	cancel()
	_, err := s.Apply(ctx, &adminv1.ApplyRequest{Documents: documents(serviceYAML("a", "x"))})
	wantError(t, err, codes.Canceled, "")
}

// What is in tokens already can't be changed: the built-in issuer keeps its
// names, and can't be deleted or replaced; its lifetime can be changed.
func TestBuiltinIssuer(t *testing.T) {
	with := func(issuer, keySet string) string {
		return fmt.Sprintf("apiVersion: watchword.dev/v1\nkind: Issuer\nmetadata: {name: watchword}\nspec: {issuer: %q, keySet: %s}\n", issuer, keySet)
	}
	for name, tt := range map[string]struct{ text, want string }{
		"lifetime":           {with("http://sts.test", "{builtin: {trustDomain: mesh.test, tokenLifetime: 10m}}"), ""},
		"lifetime, no names": {with("http://sts.test", "{builtin: {tokenLifetime: 10m}}"), ""},
		"trust domain":       {with("http://sts.test", "{builtin: {trustDomain: other.test}}"), "spec.keySet.builtin.trustDomain: can't be changed: every token and policy names mesh.test"},
		"issuer":             {with("http://other.test", "{builtin: {trustDomain: mesh.test}}"), "spec.issuer: can't be changed here: tokens in use name http://sts.test"},
		"no issuer":          {with("", "{builtin: {trustDomain: mesh.test}}"), "spec.issuer: can't be changed here"},
		"other keys":         {with("http://sts.test", `{jwks: '{"keys":[]}'}`), `metadata.name: "watchword" is the built-in issuer`},
		"second":             {strings.Replace(with("http://b.test", "{builtin: {trustDomain: b.test}}"), "name: watchword", "name: b", 1), `only the Issuer "watchword" has the built-in keys`},
	} {
		s, m := open(t)
		_, err := apply(s, tt.text)
		if tt.want != "" {
			wantError(t, err, codes.InvalidArgument, tt.want)
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := m.state.Issuer(policy.BuiltinIssuer).GetKeySet().GetBuiltin(); got.GetTrustDomain() != "mesh.test" || got.GetTokenLifetime().GetSeconds() != 600 {
			t.Errorf("%s: stored %v", name, got)
		}
	}
	s, m := open(t)
	_, err := s.Delete(root(), &adminv1.DeleteRequest{References: []*adminv1.Reference{{Kind: "issuer", Name: policy.BuiltinIssuer}}})
	wantError(t, err, codes.FailedPrecondition, "Issuer/watchword is the built-in issuer; it can't be deleted")
	if m.commits != 0 {
		t.Error("something was stored")
	}
}

// Delete takes kinds in any case, several at once if nothing else needs them,
// and refuses the rest by name.
func TestDelete(t *testing.T) {
	ref := func(kind, name string, revision int64) *adminv1.Reference {
		return &adminv1.Reference{Kind: kind, Name: name, Revision: revision}
	}
	for name, tt := range map[string]struct {
		refs []*adminv1.Reference
		code codes.Code
		want string
	}{
		"one":          {[]*adminv1.Reference{ref("service", "free", 0)}, codes.OK, "DELETED Service/free"},
		"revision":     {[]*adminv1.Reference{ref("Service", "free", 11)}, codes.OK, "DELETED Service/free"},
		"both":         {[]*adminv1.Reference{ref("SERVICE", "a", 0), ref("Service", "b", 0)}, codes.OK, "DELETED Service/a\nDELETED Service/b"},
		"needed":       {[]*adminv1.Reference{ref("Service", "a", 0)}, codes.InvalidArgument, `Service/b: spec.calls[0].service: there is no Service "a"`},
		"old revision": {[]*adminv1.Reference{ref("Service", "free", 3)}, codes.FailedPrecondition, "Service/free: names revision 3, but it was changed at revision 11"},
		"not there":    {[]*adminv1.Reference{ref("Service", "free", 0), ref("Service", "nobody", 0)}, codes.NotFound, `there is no Service "nobody"`},
		"unknown kind": {[]*adminv1.Reference{ref("Pod", "a", 0)}, codes.NotFound, `there is no Pod "a"`},
	} {
		s, m := open(t, serviceYAML("a", "x"), serviceYAML("b", "x", "a"), serviceYAML("free", "x"))
		resp, err := s.Delete(root(), &adminv1.DeleteRequest{References: tt.refs})
		if tt.code != codes.OK {
			wantError(t, err, tt.code, tt.want)
			if m.commits != 0 {
				t.Errorf("%s: something was stored", name)
			}
			continue
		}
		if err != nil || actions(resp.GetChanges()) != tt.want || resp.GetRevision() != 12 {
			t.Errorf("%s: %q at %d, %v; want %q at 12", name, actions(resp.GetChanges()), resp.GetRevision(), err, tt.want)
		}
	}
}

// What was wrong before (stored by an older version) does not block a change of
// something else, but a change of the thing itself.
func TestOldFaultsDoNotBlock(t *testing.T) {
	s, _ := open(t, serviceYAML("old", "x", "nobody"))
	if _, err := apply(s, serviceYAML("new", "x")); err != nil {
		t.Errorf("applying something else: %v", err)
	}
	if _, err := s.Delete(root(), &adminv1.DeleteRequest{References: []*adminv1.Reference{{Kind: "Service", Name: "new"}}}); err != nil {
		t.Errorf("deleting something else: %v", err)
	}
	_, err := apply(s, serviceYAML("old", "y", "nobody"))
	wantError(t, err, codes.InvalidArgument, `a.yaml:8: Service/old: spec.calls[0].service: there is no Service "nobody"`)
	if _, err := apply(s, serviceYAML("old", "y")); err != nil {
		t.Errorf("repairing it: %v", err)
	}
}

// The dry run of what comes after the store is asked with what would change,
// and its faults are the answer.
func TestApplyAsksDryRun(t *testing.T) {
	s, m := open(t, serviceYAML("a", "x"), serviceYAML("b", "x"))
	preview := &sound{fault: "Envoy would not take it"}
	s.Preview = preview
	_, err := s.Apply(root(), &adminv1.ApplyRequest{Documents: documents(serviceYAML("c", "x")), Prune: true})
	wantError(t, err, codes.InvalidArgument, "Envoy would not take it")
	if len(preview.asked) != 3 || m.commits != 0 {
		t.Errorf("the preview was asked about %v, and %d commits were made; want three, and none", preview.asked, m.commits)
	}
}

// A change that needs several steps is refused if a state on the way would not
// be sound, since each of them is published.
func TestStepsAreSoundEach(t *testing.T) {
	s, m := open(t, serviceYAML("z", "x"))
	m.limit = 2
	// a calls z2, which is only stored after it.
	_, err := apply(s, join(serviceYAML("a", "x", "z2"), serviceYAML("b", "x"), serviceYAML("z2", "x")))
	wantError(t, err, codes.FailedPrecondition, `after the first 1 the configuration would not be sound`)
	if m.commits != 0 {
		t.Errorf("%d commits were made, want none", m.commits)
	}
	resp, err := apply(s, join(serviceYAML("a", "x", "b"), serviceYAML("b", "x"), serviceYAML("z2", "x")))
	if err != nil || resp.GetTransactions() != 2 {
		t.Errorf("in an order in which each step is sound: %d transactions, %v; want 2", resp.GetTransactions(), err)
	}
}

// An apply names the services that its documents concern also when nothing
// changes, so that a wait after it is about them.
func TestUnchangedApplyNamesServices(t *testing.T) {
	s, _ := open(t, serviceYAML("a", "x"), serviceYAML("b", "x"))
	resp, err := apply(s, serviceYAML("a", "x"))
	if err != nil || !slices.Equal(resp.GetServices(), []string{"a"}) || resp.GetTransactions() != 0 {
		t.Errorf("services %v in %d transactions, %v; want [a] in 0", resp.GetServices(), resp.GetTransactions(), err)
	}
}

// The audit log names what changed and never a secret.
func TestAudit(t *testing.T) {
	s, _ := open(t, serviceYAML("same", "x"))
	var log bytes.Buffer
	s.Logger = hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Trace})
	if _, err := apply(s, join(serviceYAML("same", "x"), sharedYAML)); err != nil {
		t.Fatalf("%v: %s", err, status.Convert(err).Details())
	}
	if got := log.String(); !strings.Contains(got, "resource=Issuer/shared revision=12") || strings.Contains(got, "same") || strings.Contains(got, "c2Vjcm") {
		t.Errorf("the log is %q; want Issuer/shared alone, without its secret", got)
	}
}
