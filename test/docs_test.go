package test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/watchword-mesh/watchword/controlplane/compile"
	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/internal/jose"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

const builtin = `apiVersion: watchword.dev/v1
kind: Issuer
metadata: {name: watchword}
spec: {issuer: "http://127.0.0.1:7402", keySet: {builtin: {trustDomain: mesh.local}}}
`

// mesh compiles and translates manifests on top of the built-in issuer, as
// applies of one after the other on an empty mesh would, and returns the
// resources of all services that have Envoys.
func mesh(t testing.TB, source string, texts ...string) map[string][]envoy.Resource {
	t.Helper()
	state := policy.State{}
	for _, text := range append([]string{builtin}, texts...) {
		for _, o := range objects(t, source, text) {
			state[o.Key] = o.Resource
		}
	}
	all := strings.Join(texts, "---\n")
	for _, f := range policy.Check(state) {
		t.Errorf("%s: %s: %s: %s in\n%s", source, f.Key, f.Field, f.Message, all)
	}
	if t.Failed() {
		t.FailNow()
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
		rs := compile.Ruleset(in, name)
		if rs.GetWithoutEnvoy() {
			continue
		}
		if out[name], err = envoy.Resources(rs); err != nil {
			t.Fatalf("%s: translating %s: %v in\n%s", source, name, err, all)
		}
	}
	return out
}

// objects reads one text.
func objects(t testing.TB, source, text string) []*policy.Object {
	t.Helper()
	list, faults := policy.Parse([]policy.Document{{Source: source, Content: text}})
	for _, f := range faults {
		t.Errorf("%s:%d: %s: %s: %s in\n%s", f.Source, f.Line, f.Key, f.Field, f.Message, text)
	}
	if len(faults) > 0 {
		t.FailNow()
	}
	return list
}

const (
	reference = "../docs/policies.md"
	oneMesh   = "../docs/testing-policies.md"
)

var (
	fence    = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```")
	heredoc  = regexp.MustCompile(`(?ms)<<'(?:EOF|YAML)'\n(.*?)^(?:EOF|YAML)$`)
	manifest = regexp.MustCompile(`(?m)^apiVersion: watchword.dev/v1$`)
)

// manifests are the blocks of a page that can be applied.
func manifests(page string) []string {
	var out []string
	for _, block := range append(fence.FindAllStringSubmatch(page, -1), heredoc.FindAllStringSubmatch(page, -1)...) {
		if manifest.MatchString(block[1]) {
			out = append(out, block[1])
		}
	}
	return out
}

// pages are all documents for users, by file.
func pages(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	read := func(file string) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		out[file] = string(text)
	}
	err := filepath.WalkDir("../docs", func(file string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && strings.HasSuffix(file, ".md") {
			read(file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"../README.md", "../ARCHITECTURE.md", "../CHANGELOG.md", "../CONTRIBUTING.md", "../SECURITY.md", "../deployments/envoy/README.md", "../deployments/sidecar/README.md"} {
		read(file)
	}
	return out
}

// Every manifest in the documents can be applied as it stands there; in the
// reference, on top of the first one alone and of all before it; in a page that
// builds one mesh, on top of all before it.
func TestManifestsInDocuments(t *testing.T) {
	found := 0
	for file, text := range pages(t) {
		blocks := manifests(text)
		for i, block := range blocks {
			found++
			t.Run(fmt.Sprintf("%s/%d", filepath.Base(file), i), func(t *testing.T) {
				switch file {
				default:
					mesh(t, file, block)
				case reference:
					mesh(t, file, blocks[0], block)
					mesh(t, file, blocks[:i+1]...)
				case oneMesh:
					mesh(t, file, blocks[:i+1]...)
				}
			})
		}
	}
	if found < 20 {
		t.Errorf("only %d manifests were found; has their form changed?", found)
	}
}

// notWritten are fields that the control plane gives: a document can't have a
// value for them that would be right in a fresh mesh.
var notWritten = []string{"watchword.policy.v1.Metadata.uid", "watchword.policy.v1.Metadata.revision"}

// The reference names every field and every value that there is, and has an
// example of every field.
func TestReferenceIsComplete(t *testing.T) {
	text := pages(t)[reference]
	given := map[protoreflect.FullName]bool{}
	for _, block := range manifests(text) {
		for _, o := range objects(t, reference, block) {
			noteFields(given, o.Resource.ProtoReflect())
		}
	}
	named := map[string]bool{}
	for _, span := range regexp.MustCompile("`[^`\n]+`").FindAllString(text, -1) {
		for _, word := range regexp.MustCompile(`\w+`).FindAllString(span, -1) {
			named[word] = true
		}
	}
	fields, values := contract((&policyv1.Resource{}).ProtoReflect().Descriptor())
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if !given[name] && !slices.Contains(notWritten, string(name)) {
			t.Errorf("%s: no example gives a value to %s", reference, name)
		}
		if !named[fields[name]] {
			t.Errorf("%s does not name `%s`, which is %s", reference, fields[name], name)
		}
	}
	for _, value := range slices.Sorted(maps.Keys(values)) {
		if !named[value] {
			t.Errorf("%s does not name `%s`", reference, value)
		}
	}
	for _, name := range notWritten {
		if fields[protoreflect.FullName(name)] == "" {
			t.Errorf("%s is excepted from the examples and does not exist", name)
		}
	}
}

// noteFields notes each field that has a value, at any depth.
func noteFields(given map[protoreflect.FullName]bool, m protoreflect.Message) {
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		given[fd.FullName()] = true
		switch {
		case !ourMessage(fd):
		case fd.IsList():
			for i := range v.List().Len() {
				noteFields(given, v.List().Get(i).Message())
			}
		default:
			noteFields(given, v.Message())
		}
		return true
	})
}

// contract returns the fields that users write, with their names in JSON, and
// the values of enumerations.
func contract(resource protoreflect.MessageDescriptor) (fields map[protoreflect.FullName]string, values map[string]bool) {
	fields, values = map[protoreflect.FullName]string{}, map[string]bool{}
	seen := map[protoreflect.FullName]bool{}
	var walk func(protoreflect.MessageDescriptor)
	walk = func(md protoreflect.MessageDescriptor) {
		if seen[md.FullName()] {
			return
		}
		seen[md.FullName()] = true
		for i := range md.Fields().Len() {
			fd := md.Fields().Get(i)
			if md != resource { // whose fields are the kinds
				fields[fd.FullName()] = fd.JSONName()
			}
			if ourMessage(fd) {
				walk(fd.Message())
			}
			if fd.Enum() == nil {
				continue
			}
			for n := 1; n < fd.Enum().Values().Len(); n++ {
				values[string(fd.Enum().Values().Get(n).Name())] = true
			}
		}
	}
	walk(resource)
	return fields, values
}

// ourMessage is false for what YAML writes as a scalar, and for labels.
func ourMessage(fd protoreflect.FieldDescriptor) bool {
	return fd.Message() != nil && !fd.IsMap() && fd.Message().ParentFile() == policyv1.File_watchword_policy_v1_policy_proto
}

// The reference has a row for every reason word, with the status that is sent.
func TestReasonWordsInReference(t *testing.T) {
	text := pages(t)[reference]
	for _, w := range append(reason.All(), reason.NotReady, reason.LeaseExpired, reason.BodyUnreadable) {
		if row := fmt.Sprintf("\n| `%s` | %d | ", w, w.Status()); strings.Count(text, row) != 1 {
			t.Errorf("%s has %d rows that begin with %q, want one", reference, strings.Count(text, row), strings.TrimSpace(row))
		}
	}
}

// Every page, and every heading, that another page links to is there.
func TestLinksBetweenDocuments(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#:\s]*)(?:#([^)\s]*))?\)`)
	all := pages(t)
	for file, text := range all {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target := filepath.Join(filepath.Dir(file), m[1])
			if m[1] == "" {
				target = file
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which is not there", file, m[1])
				continue
			}
			if page, known := all[target]; known && m[2] != "" && !slices.Contains(anchors(page), m[2]) {
				t.Errorf("%s links to %s#%s, and there is no such heading", file, m[1], m[2])
			}
		}
	}
}

// anchors are those that GitHub makes of headings.
func anchors(page string) []string {
	var out []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(page, -1) {
		slug := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(m[1]), "")
		out = append(out, strings.ReplaceAll(slug, " ", "-"))
	}
	return out
}
