package test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/watchword-mesh/watchword/controlplane/compile"
	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/internal/jose"
)

const builtin = `apiVersion: watchword.dev/v1
kind: Issuer
metadata: {name: watchword}
spec: {issuer: "http://127.0.0.1:7402", keySet: {builtin: {trustDomain: mesh.local}}}
`

// mesh compiles and translates manifests on top of the built-in issuer, as an
// apply on an empty mesh would, and returns the resources of all services.
func mesh(t testing.TB, source, text string) map[string][]envoy.Resource {
	t.Helper()
	objects, faults := policy.Parse([]policy.Document{{Source: "builtin", Content: builtin}, {Source: source, Content: text}})
	state := policy.State{}
	for _, o := range objects {
		state[o.Key] = o.Resource
	}
	for _, f := range append(faults, policy.Check(state)...) {
		t.Fatalf("%s:%d: %s: %s: %s in\n%s", f.Source, f.Line, f.Key, f.Field, f.Message, text)
	}
	own, err := jose.GenerateKey("ES256")
	if err != nil {
		t.Fatal(err)
	}
	in := compile.Input{State: state, Keys: map[string][]jose.Key{policy.BuiltinIssuer: {own.Public()}},
		Subject: func(service string) string { return "spiffe://mesh.local/" + service }}
	for k, r := range state {
		if k.Kind == policy.KindIssuer && k.Name != policy.BuiltinIssuer {
			in.Keys[k.Name], _ = policy.IssuerKeys(r.GetIssuer())
		}
	}
	out := map[string][]envoy.Resource{}
	for _, name := range state.Services() {
		if out[name], err = envoy.Resources(compile.Ruleset(in, name)); err != nil {
			t.Fatalf("%s: translating %s: %v in\n%s", source, name, err, text)
		}
	}
	return out
}

var (
	fence   = regexp.MustCompile("(?ms)^```(?:yaml)\n(apiVersion: .*?)^```")
	heredoc = regexp.MustCompile(`(?ms)<<'EOF'\n(apiVersion: .*?)^EOF`)
)

// Every manifest in the documents can be applied as it stands there.
func TestManifestsInDocuments(t *testing.T) {
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, page := range append(pages, "../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, block := range append(fence.FindAllStringSubmatch(string(text), -1), heredoc.FindAllStringSubmatch(string(text), -1)...) {
			found++
			mesh(t, page, block[1])
		}
	}
	if found < 10 {
		t.Errorf("only %d manifests were found; has their form changed?", found)
	}
}

// Every page that another one links to is there.
func TestLinksBetweenDocuments(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	pages, err := filepath.Glob("../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	moves, err := filepath.Glob("../docs/migrate/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, page := range append(append(pages, moves...), "../README.md", "../ARCHITECTURE.md", "../CONTRIBUTING.md", "../SECURITY.md", "../deployments/envoy/README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			target := filepath.Join(filepath.Dir(page), strings.TrimSpace(m[1]))
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
			}
		}
	}
}
