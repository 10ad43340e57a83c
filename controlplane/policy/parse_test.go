package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

const service = "apiVersion: watchword.dev/v1\nkind: Service\nmetadata: {name: a}\nspec: {audiences: [x]}\n"

func read(content string) ([]*Object, []Fault) {
	return Parse([]Document{{Source: "in.yaml", Content: content}})
}

// The same resource in the ways that editors and tools write text.
func TestParseForms(t *testing.T) {
	want, faults := read(service)
	if len(want) != 1 || len(faults) > 0 {
		t.Fatalf("Parse(%q) = %d objects, %v", service, len(want), faults)
	}
	for name, content := range map[string]string{
		"CRLF":              strings.ReplaceAll(service, "\n", "\r\n"),
		"BOM":               "\ufeff" + service,
		"BOM and CRLF":      "\ufeff---\r\n" + strings.ReplaceAll(service, "\n", "\r\n"),
		"no end of line":    strings.TrimSuffix(service, "\n"),
		"empty documents":   "---\n---\n" + service + "...\n---\n# nothing\n",
		"JSON":              `{"apiVersion":"watchword.dev/v1","kind":"Service","metadata":{"name":"a"},"spec":{"audiences":["\u0078"]}}`,
		"JSON with tabs":    "{\n\t\"apiVersion\":\t\"watchword.dev/v1\",\n\t\"kind\": \"Service\",\n\t\"metadata\": {\n\t\t\"name\": \"a\"\n\t},\n\t\"spec\": {\"audiences\": [\n\t\t\"x\"\n\t]}\n}\n",
		"aliases":           "apiVersion: watchword.dev/v1\nkind: &k Service\nmetadata: {name: &n a}\nspec: &s {audiences: [&x x]}\n",
		"aliased envelope":  "apiVersion: watchword.dev/v1\nmetadata: {labels: {}, name: &n a}\nkind: Service\nspec: {audiences: [x]}\n",
		"comments":          "# a\n" + strings.ReplaceAll(service, "\n", " # b\n"),
		"block and escapes": "apiVersion: watchword.dev/v1\nkind: Service\nmetadata:\n  name: >-\n    a\nspec:\n  audiences:\n  - \"\\x78\"\n",
	} {
		got, faults := read(content)
		if len(got) != 1 || len(faults) > 0 {
			t.Errorf("%s: Parse(%q) = %d objects, %v; want one", name, content, len(got), faults)
			continue
		}
		if diff := cmp.Diff(want[0].Resource, got[0].Resource, protocmp.Transform()); diff != "" {
			t.Errorf("%s: Parse(%q) -want +got:\n%s", name, content, diff)
		}
	}
}

// Bytes that no text has are refused, with what follows them.
func TestParseRefusesBytes(t *testing.T) {
	for name, tt := range map[string]struct{ content, want string }{
		"NUL":         {"a: \x00", "in.yaml:1: /: : not YAML: control characters are not allowed"},
		"escape":      {service + "---\na: \x1b[31m", "in.yaml:6: /: : not YAML: control characters are not allowed"},
		"not UTF-8":   {"a: \xff", "in.yaml:0: /: : not YAML: invalid leading UTF-8 octet"},
		"half a rune": {"a: \xc3", "in.yaml:0: /: : not YAML: incomplete UTF-8 octet sequence"},
	} {
		_, faults := read(tt.content)
		got := shown(faults)
		// The YAML library finds the line of some of them only.
		if _, message, _ := strings.Cut(tt.want, "not YAML"); !strings.Contains(got, "not YAML"+message) || len(faults) != 1 {
			t.Errorf("%s: Parse(%q): faults %q, want %q", name, tt.content, got, tt.want)
		}
	}
}

// What YAML stumbles over may be a secret that stands there without quotes.
func TestSyntaxErrorsHoldNoSecrets(t *testing.T) {
	const secret = "hunter2-secret-value"
	for _, content := range []string{
		"secret: *" + secret,
		"secret: *" + secret + "'\n",
		"secret: \"" + secret,
		"secret: " + secret + ": " + secret,
		"secret: @" + secret,
		"secret: [" + secret,
		"secret: !<" + secret,
		"secret: %" + secret,
	} {
		_, faults := read(content)
		if len(faults) == 0 || strings.Contains(shown(faults), secret) {
			t.Errorf("Parse(%q): faults %q; want some, without the secret", content, shown(faults))
		}
	}
}

// Documents that are made to cost more than they weigh are refused in bounded
// time: the test would run for minutes otherwise.
func TestParseIsBounded(t *testing.T) {
	began := time.Now()
	for name, tt := range map[string]struct{ content, want string }{
		"alias bomb":       {bomb(), "is too large: over 100000 values"},
		"keys bomb":        {keysBomb(50_000), "unknown field"},
		"many keys":        {strings.Replace(service, "{name: a}", "{name: a, labels: {"+manyKeys(50_000)+"}}", 1), "is too large: over 100000 values"},
		"long keys":        {strings.Replace(service, "{audiences: [x]}", "&s {? "+strings.Repeat("y", maxDocumentBytes-100)+" : *s, inbound: *s, calls: *s}", 1), "is too large: over 256 KiB"},
		"labels bomb":      {labelsBomb(), "is too large: over 256 KiB of text"},
		"oversized":        {strings.Replace(service, "[x]", "["+strings.Repeat("y", maxDocumentBytes)+"]", 1), "is too large (256 KiB of text; at most 256 KiB): split it, or take out what is not needed"},
		"oversized aside":  {service + "extra: " + strings.Repeat("y", maxDocumentBytes+1024) + "\n", "is too large (257 KiB of text; at most 256 KiB): split it, or take out what is not needed"},
		"many values":      {strings.Replace(service, "[x]", "["+strings.Repeat("1,", maxNodes)+"]", 1), "has 100000 entries; at most 1024"},
		"nested lists":     {strings.Replace(service, "[x]", strings.Repeat("[", 9000)+strings.Repeat("]", 9000), 1), "wants a string, not a list"},
		"nested objects":   {strings.Replace(service, "[x]", strings.Repeat("{a: ", 9000)+strings.Repeat("}", 9000), 1), "wants a list, not an object"},
		"too deep":         {strings.Replace(service, "[x]", strings.Repeat("[", 100_000), 1), "exceeded max depth of 10000"},
		"too deep, indent": {strings.Repeat("- ", 100_000), "exceeded max depth of 10000"},
		"self in a list":   {strings.Replace(service, "[x]", "&a [*a, *a]", 1), "wants a string, not a list"},
		"self in a spec":   {strings.Replace(service, "{audiences: [x]}", "&a {routes: [*a], inbound: *a, calls: [*a, *a]}", 1), "unknown field"},
	} {
		_, faults := read(tt.content)
		if !slices.ContainsFunc(faults, func(f Fault) bool { return strings.Contains(f.Message, tt.want) }) {
			t.Errorf("%s: faults %.500q, want one with %q", name, shown(faults), tt.want)
		}
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("reading them took %s", took)
	}
}

// bomb is a list that stands for a billion values.
func bomb() string {
	var b strings.Builder
	b.WriteString("apiVersion: watchword.dev/v1\nkind: AuthorizationPolicy\nmetadata: {name: b}\nspec:\n  action: DENY\n  rules:\n")
	b.WriteString("  - when: &when [&c {claimPath: &p [")
	b.WriteString(strings.Repeat("a,", 100))
	b.WriteString("a]}" + strings.Repeat(",*c", 100) + "]\n")
	b.WriteString(strings.Repeat("  - when: *when\n", 100))
	return b.String()
}

// keysBomb is an object of many keys that stands in many places.
func keysBomb(keys int) string {
	return "apiVersion: watchword.dev/v1\nkind: AuthorizationPolicy\nmetadata: {name: b}\nspec:\n  action: DENY\n" +
		"  rules: [&r {from: {subjects: [&s {" + strings.Repeat("a,", keys) + "issuer: a}" + strings.Repeat(",*s", 1000) + "]}}" + strings.Repeat(",*r", 4) + "]\n"
}

func manyKeys(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strconv.FormatInt(int64(i), 36) + ": b,")
	}
	return b.String()
}

// Who reads on when the faults are full, or the budget is used up, does work for
// nobody.
func TestReaderStops(t *testing.T) {
	for name, content := range map[string]string{"keys": keysBomb(50_000), "few keys": keysBomb(10), "values": bomb()} {
		var doc yaml.Node
		if err := yaml.Unmarshal([]byte(content), &doc); err != nil {
			t.Fatal(err)
		}
		r := &reader{lines: map[string]int{}, budget: maxNodes}
		spec := doc.Content[0].Content[len(doc.Content[0].Content)-1]
		r.message(spec, "spec", specOf(newResource(KindAuthorizationPolicy)))
		// Each list and object around the last value asks for one more.
		if visits := maxNodes - r.budget; visits > maxNodes+100 || len(r.faults) == 0 {
			t.Errorf("%s: %d values visited, %d faults", name, visits, len(r.faults))
		}
	}
}

func labelsBomb() string {
	var b strings.Builder
	b.WriteString("apiVersion: watchword.dev/v1\nkind: Service\nmetadata:\n  name: b\n  labels:\n    x: &x \"1\"\n")
	for i := range maxNodes {
		fmt.Fprintf(&b, "    l%d: *x\n", i)
	}
	return b.String() + "spec: {}\n"
}

// A fault's line is that of the field, or of the nearest around it, wherever
// the field's name has dots.
func TestLine(t *testing.T) {
	objects, faults := read(`apiVersion: watchword.dev/v1
kind: Service
metadata:
  name: a
  labels:
    example.com/team: x
spec:
  routes:
  - name: r
    paths:
    - /a
    - /b
  inbound: {port: 1,
    localAddress: "127.0.0.1:1"}
`)
	if len(objects) != 1 || len(faults) > 0 {
		t.Fatalf("%d objects, faults %v", len(objects), faults)
	}
	for field, want := range map[string]int{
		"":                                 1,
		"kind":                             2,
		"metadata.labels.example.com/team": 6,
		"metadata.labels.other.com/x":      5,
		"spec":                             7,
		"spec.calls[3].service":            7,
		"spec.routes[0]":                   9,
		"spec.routes[0].paths[1]":          12,
		"spec.routes[0].paths[7]":          10,
		"spec.routes[1].name":              8,
		"spec.inbound.address":             13,
		"spec.inbound.localAddress":        14,
		"nowhere.at[1].all":                1,
	} {
		if got := objects[0].Line(field); got != want {
			t.Errorf("Line(%q) = %d, want %d", field, got, want)
		}
	}
}

// All operators are equal before the parser: what is written is what is stored.
func TestParseValues(t *testing.T) {
	objects, faults := read(`apiVersion: watchword.dev/v1
kind: AuthorizationPolicy
metadata: {name: v}
spec:
  action: DENY
  rules:
  - when:
    - claimPath: [a]
      op: NOT_IN
      values: [text, "1", 1, -1.5, 1e3, 0x10, true, FALSE, "true", yes, '', 9007199254740991, -9007199254740991, 9007199254740991.0, 1.5e3, !!bool True, !!bool FALSE, !!float 2]
`)
	if len(objects) != 1 || len(faults) > 0 {
		t.Fatalf("%d objects, faults %v", len(objects), faults)
	}
	var want []*structpb.Value
	for _, v := range []any{"text", "1", 1, -1.5, 1000, 16, true, false, "true", "yes", "", 9007199254740991, -9007199254740991, 9007199254740991, 1500, true, false, 2} {
		p, err := structpb.NewValue(v)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, p)
	}
	got := objects[0].Resource.GetAuthorizationPolicy().GetRules()[0].GetWhen()[0]
	if diff := cmp.Diff(&policyv1.Condition{ClaimPath: []string{"a"}, Op: policyv1.Condition_NOT_IN, Values: want}, got, protocmp.Transform()); diff != "" {
		t.Errorf("condition -want +got:\n%s", diff)
	}
}

// What would become another value is refused: a rule would hold for that.
func TestParseRefusesValues(t *testing.T) {
	for value, want := range map[string]string{
		"!!bool garbage":           "wants a string, a number or a boolean, not the boolean garbage",
		"!!bool yes":               "wants a string, a number or a boolean, not the boolean yes", // a string in YAML 1.2
		"!!bool ''":                "wants a string, a number or a boolean",
		"!!int garbage":            "wants a string, a number or a boolean, not the number garbage",
		"!!float garbage":          "wants a string, a number or a boolean, not the number garbage",
		".inf":                     "wants a string, a number or a boolean, not the number .inf",
		".nan":                     "wants a string, a number or a boolean, not the number .nan",
		"9007199254740992":         "9007199254740992 can't be compared exactly: numbers in JSON are exact below 2^53",
		"9007199254740993":         "can't be compared exactly",
		"-9007199254740993":        "can't be compared exactly",
		"0x20000000000001":         "can't be compared exactly",
		"9007199254740993.0":       "can't be compared exactly",
		"1e300":                    "can't be compared exactly",
		"!!float 9007199254740993": "can't be compared exactly",
		"99999999999999999999999":  "can't be compared exactly",
	} {
		content := "apiVersion: watchword.dev/v1\nkind: AuthorizationPolicy\nmetadata: {name: v}\nspec: {action: DENY, rules: [{when: [{claimPath: [a], values: [" + value + "]}]}]}\n"
		_, faults := read(content)
		if len(faults) != 1 || !strings.Contains(faults[0].Message, want) {
			t.Errorf("Parse of the value %s: faults %q, want one with %q", value, shown(faults), want)
		}
	}
}

// A name alone stands for a place of a token without a prefix; whatever YAML may
// take it for, a name is a string.
func TestParseTokenLocations(t *testing.T) {
	objects, faults := read(`apiVersion: watchword.dev/v1
kind: AuthenticationPolicy
metadata: {name: l}
spec:
  jwtRules:
  - fromHeaders: [&h authorization, {name: *h, prefix: "Bearer "}, *h]
    fromParams: ["1", yes, {name: jwt}]
    fromCookies:
    - jwt
    - name: token
      prefix: v1.
    fromForm: [{prefix: x}]
`)
	if len(objects) != 1 || len(faults) > 0 {
		t.Fatalf("%d objects, faults %v", len(objects), faults)
	}
	at := func(name, prefix string) *policyv1.TokenLocation {
		return &policyv1.TokenLocation{Name: name, Prefix: prefix}
	}
	want := &policyv1.JwtRule{
		FromHeaders: []*policyv1.TokenLocation{at("authorization", ""), at("authorization", "Bearer "), at("authorization", "")},
		FromParams:  []*policyv1.TokenLocation{at("1", ""), at("yes", ""), at("jwt", "")},
		FromCookies: []*policyv1.TokenLocation{at("jwt", ""), at("token", "v1.")},
		FromForm:    []*policyv1.TokenLocation{at("", "x")},
	}
	if diff := cmp.Diff(want, objects[0].Resource.GetAuthenticationPolicy().GetJwtRules()[0], protocmp.Transform()); diff != "" {
		t.Errorf("rule -want +got:\n%s", diff)
	}
}

// jsonOf is a manifest as an operator gets it.
func jsonOf(t interface{ Fatal(...any) }, r *policyv1.Resource) string {
	b, err := json.Marshal(Manifest(r).AsMap())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
