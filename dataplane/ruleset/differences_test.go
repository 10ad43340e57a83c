package ruleset

import (
	"strings"
	"testing"
)

// Each difference in which the decisions differ has a request here that Envoy lets
// in, and that is refused.
func TestKnownDifferences(t *testing.T) {
	good := jwt()
	seg := strings.Split(good, ".")
	signed := func(header, claims string) Request { return get("/", bearer(sign(header, claims, secretA))) }
	add := func(member string) string { return strings.TrimSuffix(claimsOf(), "}") + "," + member + "}" }
	forwardOnly := map[string]bool{"claim_json": true}
	cases := map[string][]struct {
		r    Request
		want string
	}{
		"prefix_anywhere":   {{get("/", "authorization: Foo Bearer "+good), "token_missing"}, {get("/", "authorization: Basic x", bearer(good)), "token_missing"}},
		"text_before_token": {{get("/", bearer(" "+good)), "token_malformed"}, {get("/", bearer(":"+good)), "token_malformed"}},
		"empty_segments":    {{get("/", bearer(good+".")), "token_malformed"}, {get("/", bearer("."+good)), "token_malformed"}, {get("/", bearer(seg[0]+".."+seg[1]+"."+seg[2])), "token_malformed"}},
		"base64":            {{get("/", bearer(good+"=")), "token_malformed"}, {get("/", bearer(seg[0]+"."+seg[1]+" ."+seg[2])), "token_malformed"}},
		"json_syntax":       {{signed(hsHeader, add(`}`)), "token_malformed"}, {signed(hsHeader, add(`'q':1`)), "token_malformed"}, {signed(hsHeader, add(`q:1`)), "token_malformed"}, {signed(hsHeader, add("\"q\":\"\n\"")), "token_malformed"}},
		"json_null":         {{signed(hsHeader, "null"), "token_malformed"}},
		"json_depth":        {{signed(hsHeader, add(`"q":`+strings.Repeat("[", 40)+strings.Repeat("]", 40))), "token_malformed"}},
		"token_size":        {{signed(hsHeader, add(`"q":"`+strings.Repeat("a", 20000)+`"`)), "token_malformed"}},
		"typ_not_text":      {{signed(`{"alg":"HS256","typ":1}`, claimsOf()), "token_malformed"}},
		"b64_header":        {{signed(`{"alg":"HS256","b64":true}`, claimsOf()), "token_malformed"}},
		"signature_size":    {}, // internal/jose has the test: it needs a signature of another curve
	}
	rs := ready(t, oneRoute("STRICT", rule(""), ""))
	seen := map[string]bool{}
	for _, d := range KnownDifferences {
		if _, ok := cases[d.Name]; !ok && !forwardOnly[d.Name] || seen[d.Name] {
			t.Errorf("difference %s has no test, or is there twice", d.Name)
		}
		seen[d.Name] = true
		for _, c := range cases[d.Name] {
			check(t, rs, c.r, c.want)
		}
	}
	for name := range cases {
		if !seen[name] {
			t.Errorf("there is no difference %s", name)
		}
	}
}
