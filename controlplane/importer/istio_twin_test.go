package importer

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/watchword-mesh/watchword/controlplane/compile"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
	"github.com/watchword-mesh/watchword/internal/jose"
)

const twinKeys = `{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","kid":"k","x":"I7-Zq6_RuYwnonUmk05zL8Sz19pWHFkt13GTbKDSUV8","y":"VSQd4621pfs3QZEXnkiXlimT7phMc78xMnkVGcDkjsI"}]}`

// A small world, in which any two policies are likely to have to do with each
// other: the issuers a and a/b, whose principals can be told apart by their
// ends alone.
type istioWorld struct {
	Authentications []twinAuthentication
	Policies        []twinPolicy
}

// twinAuthentication is a RequestAuthentication of the service, or of all.
type twinAuthentication struct {
	All     bool
	Issuers []string
}

type twinPolicy struct {
	All, Deny bool
	Rules     []twinRule
}

type twinRule struct {
	// Lists that say nothing are written as empty ones.
	Empty      bool
	Sources    []twinSource
	Operations []twinOperation
	When       []twinCondition
}

type twinSource struct{ Principals, NotPrincipals []string }

type twinOperation struct{ Paths, NotPaths, Methods, NotMethods []string }

type twinCondition struct {
	Key               string
	Values, NotValues []string
}

type twinRequest struct {
	// Without iss there is no token. Group is the claim permission too, which
	// Istio takes apart at blanks.
	Iss, Sub, Group string
	Path, Method    string
}

func some(t *rapid.T, label string, from ...string) []string {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(from), 0, 2, rapid.ID).Draw(t, label)
}

func drawWorld(t *rapid.T) istioWorld {
	var w istioWorld
	for range rapid.IntRange(0, 2).Draw(t, "authentications") {
		issuers := some(t, "issuers", "a", "a/b")
		if len(issuers) == 0 {
			issuers = []string{"a"}
		}
		w.Authentications = append(w.Authentications, twinAuthentication{rapid.Bool().Draw(t, "all"), issuers})
	}
	for range rapid.IntRange(1, 3).Draw(t, "policies") {
		p := twinPolicy{All: rapid.Bool().Draw(t, "all"), Deny: rapid.Bool().Draw(t, "deny")}
		for range rapid.IntRange(0, 2).Draw(t, "rules") {
			p.Rules = append(p.Rules, drawRule(t))
		}
		w.Policies = append(w.Policies, p)
	}
	return w
}

func drawRule(t *rapid.T) twinRule {
	r := twinRule{Empty: rapid.Bool().Draw(t, "empty lists")}
	principals := []string{"*", "a/*", "a/x", "a/b/x", "a/b/*", "none/x"}
	for range rapid.IntRange(0, 2).Draw(t, "sources") {
		s := twinSource{some(t, "principals", principals...), some(t, "not principals", principals...)}
		if len(s.Principals)+len(s.NotPrincipals) > 0 {
			r.Sources = append(r.Sources, s)
		}
	}
	for range rapid.IntRange(0, 2).Draw(t, "operations") {
		o := twinOperation{some(t, "paths", "/p", "/q/*", "*"), some(t, "not paths", "/p", "/q/*"), some(t, "methods", "GET", "POST", "*"), some(t, "not methods", "GET", "*")}
		if len(o.Paths)+len(o.NotPaths)+len(o.Methods)+len(o.NotMethods) > 0 {
			r.Operations = append(r.Operations, o)
		}
	}
	for range rapid.IntRange(0, 2).Draw(t, "conditions") {
		key := rapid.SampledFrom([]string{"request.auth.claims[group]", "request.auth.claims[permission]", "request.auth.claims[iss]", "request.auth.claims[sub]", "request.auth.principal"}).Draw(t, "key")
		values := map[string][]string{"request.auth.claims[group]": {"m", "n", "*"}, "request.auth.claims[permission]": {"m", "n", "*"}, "request.auth.claims[iss]": {"a", "a/b", "*"}, "request.auth.claims[sub]": {"x", "b/x"}, "request.auth.principal": principals}[key]
		c := twinCondition{key, some(t, "values", values...), some(t, "not values", values...)}
		if len(c.Values)+len(c.NotValues) > 0 {
			r.When = append(r.When, c)
		}
	}
	return r
}

// manifests writes the world as the Kubernetes objects that it stands for.
func (w istioWorld) manifests() string {
	var docs []string
	object := func(kind, name string, all bool, spec map[string]any) {
		if !all {
			spec["selector"] = map[string]any{"matchLabels": map[string]any{"app": "s"}}
		}
		text, _ := json.Marshal(map[string]any{"apiVersion": "security.istio.io/v1", "kind": kind, "metadata": map[string]any{"name": name}, "spec": spec})
		docs = append(docs, string(text))
	}
	for i, a := range w.Authentications {
		var rules []any
		for _, iss := range a.Issuers {
			rules = append(rules, map[string]any{"issuer": iss, "jwks": twinKeys})
		}
		object("RequestAuthentication", fmt.Sprintf("ra%d", i), a.All, map[string]any{"jwtRules": rules})
	}
	for i, p := range w.Policies {
		spec := map[string]any{"rules": []any{}}
		if p.Deny {
			spec["action"] = "DENY"
		}
		for _, r := range p.Rules {
			spec["rules"] = append(spec["rules"].([]any), r.manifest())
		}
		object("AuthorizationPolicy", fmt.Sprintf("ap%d", i), p.All, spec)
	}
	return strings.Join(docs, "\n---\n")
}

func (r twinRule) manifest() map[string]any {
	out := map[string]any{}
	if r.Empty {
		out = map[string]any{"from": []any{}, "to": []any{}, "when": []any{}}
	}
	add := func(list string, m map[string]any, lists map[string][]string, under string) {
		for name, l := range lists {
			if len(l) > 0 || r.Empty {
				m[name] = slices.Concat([]string{}, l)
			}
		}
		if under != "" {
			m = map[string]any{under: m}
		}
		entries, _ := out[list].([]any)
		out[list] = append(entries, m)
	}
	for _, s := range r.Sources {
		add("from", map[string]any{}, map[string][]string{"requestPrincipals": s.Principals, "notRequestPrincipals": s.NotPrincipals}, "source")
	}
	for _, o := range r.Operations {
		add("to", map[string]any{}, map[string][]string{"paths": o.Paths, "notPaths": o.NotPaths, "methods": o.Methods, "notMethods": o.NotMethods}, "operation")
	}
	for _, c := range r.When {
		add("when", map[string]any{"key": c.Key}, map[string][]string{"values": c.Values, "notValues": c.NotValues}, "")
	}
	return out
}

// decide is what Istio's documentation says: deny before allow, and all
// policies that select the workload together.
func (w istioWorld) decide(q twinRequest) bool {
	if q.Iss != "" && !w.accepts(q.Iss) {
		if w.authenticated() {
			return false // 401
		}
		q.Iss, q.Sub, q.Group = "", "", ""
	}
	restricted, allowed := false, false
	for _, p := range w.Policies {
		matches := slices.ContainsFunc(p.Rules, func(r twinRule) bool { return r.matches(q) })
		switch {
		case p.Deny && matches:
			return false
		case !p.Deny:
			restricted, allowed = true, allowed || matches
		}
	}
	return allowed || !restricted
}

func (w istioWorld) authenticated() bool { return len(w.Authentications) > 0 }

func (w istioWorld) accepts(iss string) bool {
	return slices.ContainsFunc(w.Authentications, func(a twinAuthentication) bool { return slices.Contains(a.Issuers, iss) })
}

func (r twinRule) matches(q twinRequest) bool {
	principal := ""
	if q.Iss != "" {
		principal = q.Iss + "/" + q.Sub
	}
	within := func(list, not []string, values ...string) bool {
		match := func(l []string) bool {
			return slices.ContainsFunc(values, func(v string) bool { return matchesAny(l, v) })
		}
		return (len(list) == 0 || match(list)) && !match(not)
	}
	from := len(r.Sources) == 0 || slices.ContainsFunc(r.Sources, func(s twinSource) bool { return within(s.Principals, s.NotPrincipals, principal) })
	to := len(r.Operations) == 0 || slices.ContainsFunc(r.Operations, func(o twinOperation) bool {
		return within(o.Paths, o.NotPaths, q.Path) && within(o.Methods, o.NotMethods, q.Method)
	})
	values := map[string][]string{"request.auth.claims[group]": {q.Group}, "request.auth.claims[permission]": strings.Fields(q.Group),
		"request.auth.claims[iss]": {q.Iss}, "request.auth.claims[sub]": {q.Sub}, "request.auth.principal": {principal}}
	when := !slices.ContainsFunc(r.When, func(c twinCondition) bool { return !within(c.Values, c.NotValues, values[c.Key]...) })
	return from && to && when
}

// matchesAny is Istio's match of strings: exact, a prefix before *, or * for
// what is not empty.
func matchesAny(list []string, value string) bool {
	return slices.ContainsFunc(list, func(p string) bool {
		prefix, wild := strings.CutSuffix(p, "*")
		return value != "" && (p == value || wild && strings.HasPrefix(value, prefix))
	})
}

// What is imported decides every request as Istio does, unless the import says
// that it has left something out.
func TestIstioTwin(t *testing.T) {
	compared := 0
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		// Where nothing is about the service, Watchword asks for tokens of its
		// own; the import warns of it.
		if !w.authenticated() && !slices.ContainsFunc(w.Policies, func(p twinPolicy) bool { return !p.All }) {
			return
		}
		text := w.manifests()
		result, err := Istio([]File{{Name: "in", Content: []byte(text)}}, Options{Workloads: []Workload{{Service: "s", Labels: map[string]string{"app": "s"}}}})
		if err != nil {
			t.Fatalf("%v of\n%s", err, text)
		}
		tells(t, result, text)
		if slices.ContainsFunc(result.Left, func(n Note) bool { return strings.Contains(n.Message, "left out of the") }) {
			return
		}
		rs := compiled(t, result)
		for _, q := range twinRequests() {
			compared++
			got := q.ask(rs)
			if want := w.decide(q); got.Allowed != want {
				t.Fatalf("%+v: allowed %t (%s %s), want %t, with\n%s\nimported as\n%s\nleft %v", q, got.Allowed, got.Reason, got.Rule, want, text, shown(t, result), result.Left)
			}
		}
	})
	if compared == 0 {
		t.Error("no request was compared")
	}
}

func twinRequests() []twinRequest {
	var out []twinRequest
	for _, path := range []string{"/p", "/q/r", "/z"} {
		for _, method := range []string{"GET", "POST"} {
			out = append(out, twinRequest{Path: path, Method: method})
			for _, iss := range []string{"a", "a/b"} {
				for _, sub := range []string{"x", "b/x", "y"} {
					for _, group := range []string{"", "m", "n", "m n"} {
						out = append(out, twinRequest{iss, sub, group, path, method})
					}
				}
			}
		}
	}
	return out
}

func (q twinRequest) ask(rs *ruleset.Ruleset) ruleset.Decision {
	now := time.Unix(1_800_000_000, 0)
	req := ruleset.Request{Method: q.Method, Authority: "s", Path: q.Path}
	if q.Iss == "" {
		return rs.Evaluate(req, now)
	}
	claims := map[string]any{"iss": q.Iss, "sub": q.Sub}
	if q.Group != "" {
		claims["group"], claims["permission"] = q.Group, q.Group
	}
	text, _ := json.Marshal(claims)
	return rs.EvaluateClaims(req, text, nil, now)
}

// compiled is the ruleset of the service s.
func compiled(t *rapid.T, r Result) *ruleset.Ruleset {
	in := compile.Input{State: policy.State{}, Keys: map[string][]jose.Key{}, Subject: func(s string) string { return "spiffe://mesh/" + s }}
	for _, res := range r.Resources {
		in.State[policy.KeyOf(res)] = res
		if res.GetIssuer() != nil {
			in.Keys[res.GetMetadata().GetName()], _ = policy.IssuerKeys(res.GetIssuer())
		}
	}
	rs, err := ruleset.Compile(compile.Ruleset(in, "s"))
	if err != nil {
		t.Fatalf("%v of\n%s", err, shown(t, r))
	}
	return rs
}

func shown(t *rapid.T, r Result) string {
	text, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
