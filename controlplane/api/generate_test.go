package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
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

func consumerYAML(spec string) string {
	return "{apiVersion: watchword.dev/v1, kind: Consumer, metadata: {name: alice}, spec: {" + spec + "}}\n"
}

// stored is the credentials of the Consumer alice as "id key algorithm secret",
// one a line, after the consumer's own id.
func stored(m *memory) string {
	c := m.state.Consumer("alice")
	out := []string{c.GetId()}
	for _, d := range c.GetCredentials() {
		line := d.GetId() + " " + d.GetKey() + " " + d.GetAlgorithm()
		for _, k := range d.GetKeySet().GetSecret().GetKeys() {
			line += " " + k.GetSecret()
		}
		out = append(out, line)
	}
	return strings.Join(out, "\n")
}

func made(list []*adminv1.Generated) string {
	var out []string
	for _, g := range list {
		out = append(out, g.GetResource()+" "+g.GetField()+" = "+g.GetValue())
	}
	return strings.Join(out, "\n")
}

func secretOf(n, length int) string { return fmt.Sprintf("%0*d", length, n) }

// What a Consumer leaves out is made and told once. Applied again it stays, and
// nothing is told: `get` shows keys, and never a secret.
func TestGenerate(t *testing.T) {
	s, m := open(t)
	const own = "a-secret-that-the-document-brings"
	doc := consumerYAML(`username: alice, credentials: [
		{}, {key: k, algorithm: HS384}, {id: i, algorithm: HS512}, {id: j, key: l, keySet: {secret: {keys: [{}, {kid: a, secret: ` + own + `}, {kid: b, algorithm: HS512}]}}},
		{key: own, keySet: {jwks: '{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"P9505FFOjil8oumX2B7h0dctVBPD6je3euppPRzip7k","y":"NmjJBiEnH3x_ff-xKws2HHjaEi3yfNcHObuDUl5ClIs"}]}'}}]`)
	resp, err := apply(s, doc)
	if err != nil {
		t.Fatalf("%v %s", err, faultLines(err))
	}
	want := strings.Join([]string{
		"new-uid-2",
		"new-uid-3 newuid3  " + secretOf(1, 32),
		"new-uid-4 k HS384 " + secretOf(2, 48),
		"i " + secretOf(3, 32) + " HS512 " + secretOf(4, 64),
		"j l  " + secretOf(5, 32) + " " + own + " " + secretOf(6, 64),
		"new-uid-5 own ",
	}, "\n")
	if diff := cmp.Diff(want, stored(m)); diff != "" {
		t.Errorf("%s is stored with -want +got:\n%s", doc, diff)
	}
	told := strings.Join([]string{
		"Consumer/alice spec.credentials[0].key = newuid3",
		"Consumer/alice spec.credentials[0].keySet.secret.keys[0].secret = " + secretOf(1, 32),
		"Consumer/alice spec.credentials[1].keySet.secret.keys[0].secret = " + secretOf(2, 48),
		"Consumer/alice spec.credentials[2].key = " + secretOf(3, 32),
		"Consumer/alice spec.credentials[2].keySet.secret.keys[0].secret = " + secretOf(4, 64),
		"Consumer/alice spec.credentials[3].keySet.secret.keys[0].secret = " + secretOf(5, 32),
		"Consumer/alice spec.credentials[3].keySet.secret.keys[2].secret = " + secretOf(6, 64),
	}, "\n")
	if diff := cmp.Diff(told, made(resp.GetGenerated())); diff != "" {
		t.Errorf("%s tells -want +got:\n%s", doc, diff)
	}
	for _, c := range resp.GetChanges() {
		if strings.Contains(c.GetDiff(), secretOf(1, 32)) {
			t.Errorf("the difference shows a secret: %s", c.GetDiff())
		}
	}
	again, err := apply(s, doc)
	if err != nil || actions(again.GetChanges()) != "UNCHANGED Consumer/alice" || len(again.GetGenerated()) > 0 {
		t.Errorf("applied again: %v, %q, tells %q; want no change", err, actions(again.GetChanges()), made(again.GetGenerated()))
	}
	list, err := s.List(root(), &adminv1.ListRequest{Kind: "consumer"})
	if text := fmt.Sprint(list); err != nil || strings.Contains(text, secretOf(1, 32)) || !strings.Contains(text, policy.Redacted) {
		t.Errorf("List = %s, %v; want no secret", text, err)
	}
}

// Which stored credential one is: by its id, its key, or its place among those
// that gave neither.
func TestGenerateKeepsStored(t *testing.T) {
	const first = "new-uid-2\nnew-uid-3 newuid3  1\nnew-uid-4 b  2\nc c2  3\nnew-uid-5 newuid5  4"
	short := regexp.MustCompile(` 0+`)
	before := consumerYAML(`username: alice, credentials: [{}, {key: b}, {id: c, key: c2}, {}]`)
	for name, tt := range map[string]struct{ spec, want string }{
		"the same":            {"{}, {key: b}, {id: c, key: c2}, {}", first},
		"another order":       {"{id: c, key: c2}, {}, {}, {key: b}", "new-uid-2\nc c2  3\nnew-uid-3 newuid3  1\nnew-uid-5 newuid5  4\nnew-uid-4 b  2"},
		"less said":           {"{}, {key: b}, {id: c}, {}", first},
		"an id that get told": {"{id: new-uid-5}, {key: b}, {id: c}, {}", "new-uid-2\nnew-uid-5 newuid5  4\nnew-uid-4 b  2\nc c2  3\nnew-uid-3 newuid3  1"},
		"one more":            {"{}, {}, {}", "new-uid-2\nnew-uid-3 newuid3  1\nnew-uid-5 newuid5  4\nnew-uid-6 newuid6  5"},
		"one that had a key goes, and nothing of it stays": {"{}", "new-uid-2\nnew-uid-3 newuid3  1"},
		"another id":                 {"{id: d, key: b}", "new-uid-2\nd b  2"},
		"another key":                {"{id: c, key: d}", "new-uid-2\nc d  3"},
		"a secret of its own":        {"{key: b, keySet: {secret: {keys: [{secret: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx}]}}}", "new-uid-2\nnew-uid-4 b  xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"},
		"the default, said":          {"{key: b, algorithm: HS256}", "new-uid-2\nnew-uid-4 b HS256 2"},
		"a longer secret is needed":  {"{key: b, algorithm: HS512}", "new-uid-2\nnew-uid-4 b HS512 5"},
		"a longer one, in its place": {"{key: b, keySet: {secret: {keys: [{algorithm: HS512}]}}}", "new-uid-2\nnew-uid-4 b  5"},
		"an empty secret is kept":    {"{key: b, keySet: {secret: {keys: [{}]}}}", "new-uid-2\nnew-uid-4 b  2"},
	} {
		s, m := open(t)
		if _, err := apply(s, before); err != nil {
			t.Fatal(err)
		}
		if got := short.ReplaceAllString(stored(m), " "); got != first {
			t.Fatalf("stored at first:\n%s\nwant\n%s", got, first)
		}
		if _, err := apply(s, consumerYAML("username: alice, credentials: ["+tt.spec+"]")); err != nil {
			t.Errorf("%s: %v %s", name, err, faultLines(err))
		}
		if diff := cmp.Diff(tt.want, short.ReplaceAllString(stored(m), " ")); diff != "" {
			t.Errorf("%s: %s is stored with -want +got:\n%s", name, tt.spec, diff)
		}
	}
}

// A time that Kong's API has kept stays, though the document does not say it.
func TestGenerateKeepsTimes(t *testing.T) {
	s, m := open(t)
	if _, err := apply(s, consumerYAML("username: a, createdAt: 5, credentials: [{key: k, createdAt: 6}]")); err != nil {
		t.Fatal(err)
	}
	if _, err := apply(s, consumerYAML("username: b, credentials: [{key: k}]")); err != nil {
		t.Fatal(err)
	}
	c := m.state.Consumer("alice")
	if got := [2]int64{c.GetCreatedAt(), c.GetCredentials()[0].GetCreatedAt()}; c.GetUsername() != "b" || got != [2]int64{5, 6} {
		t.Errorf("%s was made at %v, want b at 5 and 6", c.GetUsername(), got)
	}
}

// A secret in base64 stands for random bytes all the same, and public keys are
// never made.
func TestGenerateForms(t *testing.T) {
	s, m := open(t)
	if _, err := apply(s, consumerYAML("credentials: [{key: a, keySet: {secret: {keys: [{base64: true}]}}}]")); err != nil {
		t.Fatalf("%v %s", err, faultLines(err))
	}
	if keys, faults := policy.ConsumerKeys(m.state.Consumer("alice")); len(faults) > 0 || len(keys[0]) != 1 || !strings.HasSuffix(stored(m), "=") {
		t.Errorf("stored %q, with the keys %v, faults %v", stored(m), keys, faults)
	}
	_, err := apply(s, consumerYAML("credentials: [{key: a, algorithm: RS256}]"))
	if want := "a.yaml:1: Consumer/alice: spec.credentials[0].keySet: is missing: give the public key for RS256 (only shared secrets are made here)"; faultLines(err) != want {
		t.Errorf("faults %q, want %q", faultLines(err), want)
	}
}

// A dry run shows that something would be made, and makes nothing: what it would
// forget is not shown either.
func TestGenerateDryRun(t *testing.T) {
	s, m := open(t)
	docs := documents(consumerYAML("username: alice, credentials: [{}, {}, {key: k}]"))
	resp, err := s.Apply(root(), &adminv1.ApplyRequest{Documents: docs, DryRun: true})
	if err != nil {
		t.Fatalf("%v %s", err, faultLines(err))
	}
	told := "Consumer/alice spec.credentials[0].key = (generated)\n" +
		"Consumer/alice spec.credentials[0].keySet.secret.keys[0].secret = (generated)\n" +
		"Consumer/alice spec.credentials[1].key = (generated)\n" +
		"Consumer/alice spec.credentials[1].keySet.secret.keys[0].secret = (generated)\n" +
		"Consumer/alice spec.credentials[2].keySet.secret.keys[0].secret = (generated)"
	if diff := cmp.Diff(told, made(resp.GetGenerated())); diff != "" {
		t.Errorf("told -want +got:\n%s", diff)
	}
	diff := resp.GetChanges()[0].GetDiff()
	if strings.Contains(diff, "uid") || strings.Count(diff, "(generated)") != 6 || m.commits > 0 {
		t.Errorf("%d commits, and the difference\n%s\nwant none, and what would be made as (generated)", m.commits, diff)
	}
}

// After a conflict the secrets that are told are those that were stored.
func TestGenerateAfterConflict(t *testing.T) {
	s, m := open(t)
	others := resources(t, serviceYAML("other", "x"))
	m.meanwhile = func() []*policyv1.Resource { o := others; others = nil; return o }
	resp, err := apply(s, consumerYAML("credentials: [{key: k}]"))
	if err != nil {
		t.Fatal(err)
	}
	want := "Consumer/alice spec.credentials[0].keySet.secret.keys[0].secret = " + m.state.Consumer("alice").GetCredentials()[0].GetKeySet().GetSecret().GetKeys()[0].GetSecret()
	if got := made(resp.GetGenerated()); got != want || m.commits != 2 {
		t.Errorf("after %d commits told %q, want %q", m.commits, got, want)
	}
}

// A secret that is stored but can't be told any more is not lost without a word;
// nor does it get into an error or the log.
func TestGenerateLost(t *testing.T) {
	s, m := open(t)
	var log bytes.Buffer
	s.Logger = hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Trace})
	ctx, cancel := context.WithCancel(root())
	m.meanwhile = func() []*policyv1.Resource { cancel(); return nil }
	_, err := s.Apply(ctx, &adminv1.ApplyRequest{Documents: documents(consumerYAML("credentials: [{key: k}]"))})
	wantError(t, err, codes.Canceled, "made for Consumer/alice may be stored and can't be shown: delete those credentials, and apply again")
	if text := log.String() + status.Convert(err).Message(); strings.Contains(text, secretOf(1, 32)) {
		t.Errorf("a secret got out: %s", text)
	}
	m.meanwhile, m.fail = nil, errors.New("no leader")
	_, err = apply(s, consumerYAML("credentials: [{key: k2}]"))
	if wantError(t, err, codes.Unavailable, "no leader"); strings.Contains(err.Error(), "made") {
		t.Errorf("nothing was stored, and the error is %v", err)
	}
}

// Secrets are of letters and digits, and no two are equal.
func TestNewSecret(t *testing.T) {
	seen := map[string]bool{}
	for _, length := range []int{0, 1, 32, 48, 64, 1000} {
		got := NewSecret(length)
		if !regexp.MustCompile(`^[A-Za-z0-9]*$`).MatchString(got) || len(got) != length || (length > 1 && seen[got]) {
			t.Errorf("NewSecret(%d) = %q", length, got)
		}
		seen[got] = true
	}
	counts := map[rune]int{}
	for _, r := range NewSecret(62_000) {
		counts[r]++
	}
	for r, n := range counts {
		if n < 800 || n > 1200 { // six standard deviations
			t.Errorf("%q is there %d times of 62,000, want about 1,000", r, n)
		}
	}
	if len(counts) != 62 {
		t.Errorf("%d characters are used, want 62", len(counts))
	}
}
