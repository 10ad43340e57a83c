package test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"pgregory.net/rapid"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/internal/jose"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

var meshes = flag.Int("meshes", 60, "random meshes that TestEnvoyTakesRandomMeshes makes")

// perRun is how many meshes one run of Envoy validates.
const perRun = 30

// Whatever resources the control plane accepts, Envoy accepts what comes of
// them: random meshes are compiled, translated and validated by the real one.
func TestEnvoyTakesRandomMeshes(t *testing.T) {
	gen := meshGen()
	for first := 0; first < *meshes; first += perRun {
		var all []envoy.Resource
		var texts []string
		for i := first; i < min(first+perRun, *meshes); i++ {
			text := gen.Example(i)
			texts = append(texts, text)
			for _, resources := range mesh(t, fmt.Sprintf("mesh %d", i), text) {
				all = append(all, resources...)
			}
		}
		if out, err := validate(t, all); err != nil {
			t.Fatalf("envoy --mode validate: %v\n%.4000s\nof the meshes\n%s", err, out, strings.Join(texts, "\n===\n"))
		}
	}
}

// validate puts the filters of all resources into one static configuration.
func validate(t *testing.T, resources []envoy.Resource) ([]byte, error) {
	t.Helper()
	var filters []json.RawMessage
	for i, r := range resources {
		if r.TypeURL != envoy.ExtensionConfigType {
			continue
		}
		m, err := (&anypb.Any{TypeUrl: r.TypeURL, Value: r.Body}).UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		b, err := protojson.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		// Names repeat over meshes; in one filter chain they must not.
		filters = append(filters, json.RawMessage(strings.Replace(string(b), r.Name, fmt.Sprintf("%s-%d", r.Name, i), 1)))
	}
	filters = append(filters, json.RawMessage(`{"name":"router","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}`))
	config, err := json.Marshal(map[string]any{"static_resources": map[string]any{"listeners": []any{map[string]any{
		"name":    "all",
		"address": map[string]any{"socket_address": map[string]any{"address": "127.0.0.1", "port_value": 0}},
		"filter_chains": []any{map[string]any{"filters": []any{map[string]any{"name": "hcm", "typed_config": map[string]any{
			"@type":        "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
			"stat_prefix":  "all",
			"route_config": map[string]any{},
			"http_filters": filters,
		}}}}},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "envoy.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	return exec.Command(meshtest.EnvoyBinary(t), "--mode", "validate", "--log-level", "error", "--config-path", path).CombinedOutput()
}

// keys of the generated issuers; making them is what takes time.
var keys = func() []string {
	var out []string
	for _, alg := range []string{"ES256", "ES384", "EdDSA", "RS256", "PS256"} {
		k, err := jose.GenerateKey(alg)
		if err != nil {
			panic(err)
		}
		out = append(out, k.Public().JWK())
	}
	return append(out, `{"kty":"oct","alg":"HS256","kid":"s","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3JldA"}`)
}()

// meshGen makes manifests of meshes that are right by construction: two
// issuers, up to four services with routes, and policies of every kind, level,
// mode and action.
func meshGen() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		g := &meshWriter{T: t}
		for i := range 2 {
			g.resource("Issuer", fmt.Sprintf("idp-%d", i), map[string]any{"issuer": fmt.Sprintf("https://idp-%d.example/\"quoted'", i),
				"keySet": map[string]any{"jwks": `{"keys":[` + strings.Join(g.some(keys, 1), ",") + `]}`}})
		}
		services := g.some([]string{"orders", "payments", "a", "b-2"}, 1)
		for _, name := range services {
			g.resource("Service", name, g.service(name))
		}
		g.policies(services)
		return g.out.String()
	})
}

type meshWriter struct {
	*rapid.T
	out strings.Builder
}

func (g *meshWriter) resource(kind, name string, spec map[string]any) {
	b, err := json.Marshal(map[string]any{"apiVersion": "watchword.dev/v1", "kind": kind, "metadata": map[string]any{"name": name}, "spec": spec})
	if err != nil {
		g.Fatal(err)
	}
	fmt.Fprintf(&g.out, "---\n%s\n", b)
}

func (g *meshWriter) flip() bool { return rapid.Bool().Draw(g.T, "flip") }

// some draws distinct values, in order.
func (g *meshWriter) some(from []string, least int) []string {
	var out []string
	for i, s := range from {
		if g.flip() || len(from)-i <= least-len(out) {
			out = append(out, s)
		}
	}
	return out
}

func (g *meshWriter) maybe(m map[string]any, field string, list []string) {
	if len(list) > 0 {
		m[field] = list
	}
}

// requests are the lists of a route or an operation; never all empty.
func (g *meshWriter) requests(paths []string) map[string]any {
	m := map[string]any{}
	g.maybe(m, "hosts", g.some([]string{"orders.example", "*.example.com", "xn--bcher-kva.example"}, 0))
	g.maybe(m, "methods", g.some([]string{"GET", "POST", "M-SEARCH"}, 0))
	g.maybe(m, "paths", g.some(paths, 1))
	return m
}

func (g *meshWriter) service(name string) map[string]any {
	spec := map[string]any{"audiences": []string{name, "https://" + name + ".example/a"}}
	one, two := g.requests([]string{"/one", "/one/*", "/users/@me", "/caf%C3%A9/*"}), g.requests([]string{"/two/(x)+$", "/two/*"})
	one["name"], two["name"] = "one", "two"
	spec["routes"] = []any{one, two}
	if g.flip() {
		spec["inbound"] = map[string]any{"port": 8080, "localAddress": "127.0.0.1:9090", "protocol": rapid.SampledFrom([]string{"HTTP1", "HTTP2"}).Draw(g.T, "protocol")}
	}
	return spec
}

func (g *meshWriter) policies(services []string) {
	targets := []map[string]any{nil, {"services": services}, {"services": services, "routes": []string{"one"}}}
	for i, target := range targets {
		if g.flip() {
			g.resource("AuthenticationPolicy", fmt.Sprintf("n%d", i), g.targeted(target, g.authentication()))
		}
		for j, action := range []string{"ALLOW", "DENY"} {
			if g.flip() {
				g.resource("AuthorizationPolicy", fmt.Sprintf("z%d-%d", i, j), g.targeted(target, map[string]any{"action": action, "rules": g.rules()}))
			}
		}
	}
}

func (g *meshWriter) targeted(target, spec map[string]any) map[string]any {
	if target != nil {
		spec["target"] = target
	}
	return spec
}

// authentication always accepts the built-in issuer and one other, so that
// rules about either can match.
func (g *meshWriter) authentication() map[string]any {
	var rules []any
	for i, issuer := range []string{"watchword", "idp-0", "idp-1"} {
		r := map[string]any{"issuer": issuer, "clockSkew": fmt.Sprintf("%ds", rapid.IntRange(1, 600).Draw(g.T, "skew"))}
		if i > 0 {
			r["audiences"] = []string{"x", "urn:y\"'"}
		}
		if g.flip() {
			r["fromHeaders"] = []any{map[string]any{"name": "X-Token", "prefix": "v= "}}
			g.maybe(r, "fromParams", g.some([]string{"token", "t~1"}, 0))
			g.maybe(r, "fromCookies", g.some([]string{"sid"}, 0))
		}
		if g.flip() {
			r["outputClaims"] = []any{map[string]any{"claimPath": []string{"realm.access", "roles"}, "header": "X-Roles"}}
			r["forwardOriginalToken"] = true
			r["maxLifetime"] = "1h"
		}
		rules = append(rules, r)
	}
	mode := rapid.SampledFrom([]string{"STRICT", "OPTIONAL"}).Draw(g.T, "mode")
	return map[string]any{"mode": mode, "jwtRules": rules}
}

func (g *meshWriter) rules() []any {
	var rules []any
	for range rapid.IntRange(1, 3).Draw(g.T, "rules") {
		r := map[string]any{"from": map[string]any{"issuers": []string{"watchword"},
			"subjects": []any{map[string]any{"issuer": "watchword", "subject": "spiffe://mesh.local/é\"'%"}}}}
		if g.flip() {
			r["to"] = g.requests([]string{"/one/x", "/x%5By%5D/*"})
		}
		if g.flip() {
			r["when"] = []any{
				map[string]any{"claimPath": []string{"a.b", "c"}, "values": []any{"s", 3.5, true}},
				map[string]any{"claimPath": []string{"scope"}, "op": "NOT_IN", "values": []any{"write"}},
				map[string]any{"claimPath": []string{"email"}, "op": "EXISTS"},
			}
		}
		rules = append(rules, r)
	}
	return rules
}
