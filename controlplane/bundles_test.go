package controlplane

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/controlplane/bundle"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/store"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// Two issuers at URIs: far is of c, farther of nobody.
const fetchedYAML = `
{apiVersion: watchword.dev/v1, kind: Issuer, metadata: {name: far}, spec: {issuer: "https://far.test", keySet: {jwksUri: {uri: "https://far.test/jwks"}}}}
---
{apiVersion: watchword.dev/v1, kind: Issuer, metadata: {name: farther}, spec: {issuer: "https://farther.test", keySet: {jwksUri: {uri: "https://farther.test/jwks"}}}}
---
{apiVersion: watchword.dev/v1, kind: AuthenticationPolicy, metadata: {name: c}, spec: {target: {services: [c]}, jwtRules: [{issuer: idp, audiences: [c]}, {issuer: far, audiences: [c]}]}}
`

func fetchedSet(kid string) string {
	return `{"keys":[{"crv":"P-256","kid":"` + kid + `","kty":"EC","x":"P9505FFOjil8oumX2B7h0dctVBPD6je3euppPRzip7k","y":"NmjJBiEnH3x_ff-xKws2HHjaEi3yfNcHObuDUl5ClIs"}]}`
}

// fetched stores a set, as the fetcher does.
func (r *replicaInMemory) fetched(issuer, uri, jwks string) store.Event {
	r.state.Revision++
	r.state.Bundles = maps.Clone(r.state.Bundles)
	if r.state.Bundles == nil {
		r.state.Bundles = map[string]bundle.Set{}
	}
	r.state.Bundles[issuer] = bundle.Set{Issuer: issuer, Source: uri, JWKS: jwks, Fetched: time.Unix(r.state.Revision, 0), Revision: r.state.Revision}
	snap := r.state
	return store.Event{Snapshot: &snap, Bundles: []string{issuer}}
}

// A fetched set goes to the services that use its issuer and to no other. An
// equal one, or one from a URI that is no longer the issuer's, goes nowhere,
// and is not even compiled.
func TestLoopTakesBundles(t *testing.T) {
	r := begin(t)
	r.connect("a", "b", "c")
	e := r.edit(fetchedYAML)
	r.apply(e)
	r.until(e.Snapshot.Revision, 0) // far has no keys yet, so its rule is left out
	const far = "https://far.test/jwks"
	for _, step := range []struct {
		name              string
		event             func() store.Event
		compiled, touched int
	}{
		// Its first keys: rules of others may match now, so all are compiled.
		{"the first set", func() store.Event { return r.fetched("far", far, fetchedSet("k1")) }, 3, 1},
		{"an equal set with another age", func() store.Event { return r.fetched("far", far, fetchedSet("k1")) }, 0, 0},
		{"another key", func() store.Event { return r.fetched("far", far, fetchedSet("k2")) }, 1, 1},
		{"a set that can't be read", func() store.Event { return r.fetched("far", far, "junk") }, 3, 1},
		{"the same again", func() store.Event { return r.fetched("far", far, "junk") }, 0, 0},
		{"a good one", func() store.Event { return r.fetched("far", far, fetchedSet("k2")) }, 3, 1},
		{"a change of the issuer that is none", func() store.Event { return r.edit(fetchedYAML[:strings.Index(fetchedYAML, "---")]) }, 1, 0},
		{"another URI: its keys are not those of the old one", func() store.Event {
			return r.edit(strings.Replace(fetchedYAML[:strings.Index(fetchedYAML, "---")], far, "https://other.test/jwks", 1))
		}, 3, 1},
		{"a late set of the old URI", func() store.Event { return r.fetched("far", far, fetchedSet("k3")) }, 0, 0},
		{"a set of the new one", func() store.Event { return r.fetched("far", "https://other.test/jwks", fetchedSet("k4")) }, 3, 1},
		{"a set of an issuer that is not there", func() store.Event { return r.fetched("nobody", far, fetchedSet("k5")) }, 0, 0},
		{"a set for an issuer with keys of its own", func() store.Event { return r.fetched("idp", far, fetchedSet("k6")) }, 0, 0},
		{"the first set of an issuer that nobody uses", func() store.Event { return r.fetched("farther", "https://farther.test/jwks", fetchedSet("k7")) }, 3, 0},
	} {
		before, others, n, e := r.inbound("c"), r.inbound("a")+r.inbound("b"), r.compiled(), step.event()
		r.apply(e)
		r.until(e.Snapshot.Revision, step.touched)
		if got := r.compiled() - n; got != step.compiled {
			t.Errorf("%s: %d services were compiled, want %d", step.name, got, step.compiled)
		}
		if changed := r.inbound("c") != before; changed != (step.touched == 1) {
			t.Errorf("%s: the filter chain of c changed: %t, want %t", step.name, changed, step.touched == 1)
		}
		if r.inbound("a")+r.inbound("b") != others {
			t.Errorf("%s: another service got a new filter chain", step.name)
		}
	}
}

// After a restart the last good sets are in force with the first publication.
func TestLoopStartsWithBundles(t *testing.T) {
	r := begin(t)
	r.apply(r.edit(fetchedYAML))
	r.apply(r.fetched("far", "https://far.test/jwks", fetchedSet("k1")))
	r.connect("c")
	want := r.inbound("c")

	again := begin(t)
	again.state = r.state
	again.start(&again.state)
	again.connect("c")
	if got := again.inbound("c"); got != want {
		t.Errorf("after a restart c gets the filter chain %s, before it %s", got, want)
	}
}

// A refusal for an unknown key hastens the fetch for the issuers of that
// service, and of no other; it does no harm where there is nothing to fetch.
func TestKeyUnknownHastensFetch(t *testing.T) {
	r := begin(t)
	r.keyUnknown("c") // before there is a fetcher
	r.fetcher = bundle.New(bundle.Config{})
	r.apply(r.edit(fetchedYAML))
	for _, name := range []string{"far", "farther"} {
		r.apply(r.fetched(name, "https://"+name+".test/jwks", fetchedSet("k1")))
	}
	next := func(issuer string) time.Time { s, _ := r.fetcher.Status(issuer); return s.Next }
	far, farther := next("far"), next("farther")
	for _, service := range []string{"a", "b", "nobody", ""} {
		r.keyUnknown(service)
	}
	if !next("far").Equal(far) {
		t.Error("a refusal by a service that does not use far hastens its fetch")
	}
	r.keyUnknown("c")
	if !next("far").Before(far) || !next("farther").Equal(farther) {
		t.Errorf("after a refusal by c far is due at %s (before: %s), farther at %s (before: %s); want far alone sooner", next("far"), far, next("farther"), farther)
	}
	r.apply(r.edit("", policy.Key{Kind: policy.KindService, Name: "c"}))
	if _, there := r.verifiedBy.Load("c"); there {
		t.Error("the issuers of a service that is gone are kept")
	}
}

// The fetcher is told of sources and sets when those may have changed; a
// preview compiles with the sets that are in force.
func TestLoopTellsFetcher(t *testing.T) {
	r := begin(t)
	r.fetcher = bundle.New(bundle.Config{Registerer: prometheus.NewRegistry()})
	known := func(issuer string) bool { return keySets{r.fetcher}.Status(issuer) != nil }
	r.apply(r.edit(fetchedYAML))
	if !known("far") || !known("farther") || known("idp") || known("watchword") {
		t.Error("after the policies came the fetcher does not know just far and farther")
	}
	r.apply(r.fetched("far", "https://far.test/jwks", fetchedSet("k1")))
	got := keySets{r.fetcher}.Status("far")
	want := &adminv1.KeySetStatus{Keys: []*adminv1.KeyStatus{{Kid: "k1", Algorithm: "ES256"}}}
	if d := cmp.Diff(want, got, protocmp.Transform(), protocmp.IgnoreFields(want, "fetched", "next")); d != "" || got.GetFetched().GetSeconds() != r.state.Revision || got.GetAttempted() != nil {
		t.Errorf("status of far: %v; -want +got:\n%s", got, d)
	}
	before := r.current.Load().Config
	after := before.Clone()
	key := policy.Key{Kind: policy.KindIssuer, Name: "far"}
	for k, res := range parse(t, strings.Split(fetchedYAML, "---")[0]) {
		res.Metadata.Labels = map[string]string{"team": "x"}
		after[k] = res
	}
	in := preview{r.loop}.input(after, []policy.Key{key})
	if n := len(in.Keys["far"]); n != 1 {
		t.Errorf("a preview of a label compiles with %d keys of far, want 1", n)
	}
	r.apply(r.edit("", key, policy.Key{Kind: policy.KindAuthenticationPolicy, Name: "c"}))
	if known("far") || !known("farther") {
		t.Error("after far was deleted the fetcher does not know just farther")
	}
}

// An issuer that loses its last key concerns the services that used it, though no
// ruleset will name it: who waits for the change waits for them.
func TestPreviewOfLastKey(t *testing.T) {
	r := begin(t)
	inline := r.current.Load().Config
	fetched := inline.Clone()
	key := policy.Key{Kind: policy.KindIssuer, Name: "idp"}
	fetched[key] = parse(t, `{apiVersion: watchword.dev/v1, kind: Issuer, metadata: {name: idp}, spec: {issuer: "https://idp.test", keySet: {jwksUri: {uri: "https://idp.test/jwks"}}}}`)[key]
	if got := (preview{r.loop}).Concerns(inline, fetched, []policy.Key{key}); !slices.Equal(got, []string{"c"}) {
		t.Errorf("idp loses its keys: concerns %q, want c", got)
	}
	if got := (preview{r.loop}).Concerns(fetched, inline, []policy.Key{key}); !slices.Equal(got, []string{"c"}) {
		t.Errorf("idp gets keys: concerns %q, want c", got)
	}
}
