package seeds

import (
	"fmt"
	"io"
	"net/http"
	"path"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/controlplane/bundle"
	"github.com/watchword-mesh/watchword/controlplane/compile"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
	"github.com/watchword-mesh/watchword/internal/jose"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// reference is what the Go data plane makes of the same documents. It has to
// say what Envoy says, of each request.
type reference struct {
	rulesets map[string]*ruleset.Ruleset
	// consumers with what was made for them, which is shown once.
	made map[string]*policyv1.ConsumerSpec
}

// load compiles what was applied.
func (r *reference) load(t *testing.T, m *mesh, yaml string, resp *adminv1.ApplyResponse) {
	t.Helper()
	objects, faults := policy.Parse([]policy.Document{{Source: "test.yaml", Content: yaml}})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	in := compile.Input{State: policy.State{}, Keys: map[string][]jose.Key{}, Subject: func(name string) string { return "spiffe://mesh.local/" + name }}
	for _, o := range objects {
		in.State[o.Key] = o.Resource
	}
	in.State[policy.Key{Kind: policy.KindIssuer, Name: policy.BuiltinIssuer}] = &policyv1.Resource{
		Metadata: &policyv1.Metadata{Name: policy.BuiltinIssuer},
		Spec: &policyv1.Resource_Issuer{Issuer: &policyv1.IssuerSpec{Issuer: m.IssuerURL(), KeySet: &policyv1.KeySet{
			Source: &policyv1.KeySet_Builtin{Builtin: &policyv1.BuiltinKeys{TrustDomain: "mesh.local"}}}}},
	}
	r.complete(in.State, resp.GetGenerated())
	for _, k := range in.State.Keys() {
		if k.Kind == policy.KindIssuer {
			in.Keys[k.Name] = keysOfIssuer(t, m, k.Name, in.State.Issuer(k.Name))
		}
	}
	r.rulesets = map[string]*ruleset.Ruleset{}
	for _, name := range in.State.Services() {
		rs, err := ruleset.Compile(compile.Ruleset(in, name))
		if err != nil {
			t.Fatalf("the ruleset of %s: %v", name, err)
		}
		r.rulesets[name] = rs
	}
}

// complete fills in what was made of credentials that gave neither key nor
// secret: the first of their consumer.
func (r *reference) complete(state policy.State, generated []*adminv1.Generated) {
	for _, g := range generated {
		name := strings.TrimPrefix(g.GetResource(), "Consumer/")
		spec := state.Consumer(name)
		c := spec.GetCredentials()[0]
		if strings.HasSuffix(g.GetField(), ".key") {
			c.Key = g.GetValue()
		} else {
			c.KeySet = &policyv1.KeySet{Source: &policyv1.KeySet_Secret{Secret: &policyv1.SecretKeys{Keys: []*policyv1.SecretKey{{Secret: g.GetValue()}}}}}
		}
		if r.made == nil {
			r.made = map[string]*policyv1.ConsumerSpec{}
		}
		r.made[name] = spec
	}
	for _, k := range state.Keys() {
		if made := r.made[k.Name]; k.Kind == policy.KindConsumer && made != nil {
			state[k].Spec = &policyv1.Resource_Consumer{Consumer: made}
		}
	}
}

// keysOfIssuer are those in the document, or at the URI that it or the issuer
// gives.
func keysOfIssuer(t *testing.T, m *mesh, name string, spec *policyv1.IssuerSpec) []jose.Key {
	t.Helper()
	uri := spec.GetKeySet().GetJwksUri().GetUri()
	if name == policy.BuiltinIssuer {
		uri = m.IssuerURL() + "/jwks"
	}
	if uri == "" {
		keys, faults := policy.IssuerKeys(spec)
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		return keys
	}
	res, err := m.HTTP(t).Get(uri)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	source, _ := bundle.SourceOf(name, spec)
	keys, faults := jose.ParseSet(text, source.Options)
	if len(faults) > 0 {
		t.Fatalf("the keys at %s: %v: %s", uri, faults, text)
	}
	return keys
}

// check compares what the row wants with the decision of the reference.
func (r *reference) check(t *testing.T, service string, row row) {
	t.Helper()
	d, steps := r.rulesets[service].Explain(asked(row), time.Now())
	var diff string
	switch got := (told{d.Status, d.Body, string(d.Reason), d.ContentType, d.WWWAuthenticate}); {
	case row.want.status != 0:
		diff = gocmp.Diff(refusal(service, row.want), got)
	case !d.Allowed:
		diff = fmt.Sprintf("refused: %+v", got)
	default:
		diff = gocmp.Diff(forwarded(row), passed(d.Forward))
	}
	if diff != "" {
		t.Errorf("%s: %s: the reference -want +got:\n%s\nsteps: %v", row.what, row.call, diff, steps)
	}
}

// asked is the request as it leaves the front of an Envoy that we manage, which
// resolves dots in paths.
func asked(row row) ruleset.Request {
	sent := forwarded(unchanged(row))
	p := sent.Path
	if strings.Contains(p, "/..") {
		p = path.Clean(p)
	}
	if _, query, ok := strings.Cut(row.call.Path, "?"); ok {
		p += "?" + query
	}
	out := ruleset.Request{Method: sent.Method, Authority: row.call.Host, Path: p, Body: []byte(row.call.Body)}
	if out.Authority == "" {
		out.Authority = "127.0.0.1"
	}
	for name, value := range sent.Header {
		out.Header = append(out.Header, ruleset.Field{Name: name, Value: value})
	}
	return out
}

// unchanged is a row whose request arrives as it was sent.
func unchanged(r row) row { return row{call: r.call} }

// passed is the request that the reference sends on.
func passed(r ruleset.Request) request {
	p, query, _ := strings.Cut(r.Path, "?")
	header := http.Header{}
	for _, f := range r.Header {
		header.Add(f.Name, f.Value)
	}
	out := request{r.Method, p, query, string(r.Body), map[string]string{}}
	for name, values := range header {
		if name != "Content-Length" {
			out.Header[name] = strings.Join(values, ",")
		}
	}
	return out
}
