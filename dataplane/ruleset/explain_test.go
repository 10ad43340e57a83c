package ruleset

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// The whole of an explanation, as `watchword explain` shows it.
func TestExplainGolden(t *testing.T) {
	rs := ready(t, service(`
	 {"name": "admin", "match": {"paths": ["/admin/*"], "methods": ["GET", "POST"]}, "authentication": {"mode": "STRICT", "rules": [
	   `+rule(`"issuer": "ci", "types": ["at+jwt"]`)+`, `+rule(`"maxLifetime": "600s", "outputClaims": [{"claimPath": ["a.b", "c"], "header": "x-c"}, {"claimPath": ["n"], "query": "n"}], "payloadHeader": "x-payload"`)+`, `+kongRule+`]},
	  "authorization": {"restricted": true,
	    "deny": [{"name": "d/0", "from": [{"issuer": "sts", "subject": "mallory"}, {"service": "payments"}]}],
	    "allow": [{"name": "a/0", "from": [{"issuer": "sts"}], "when": [{"claimPath": ["scope"], "op": "IN", "values": ["admin", 7]}]}, {"name": "a/1", "to": {"notMethods": ["POST"]}, "notFrom": [{"consumer": "bob"}]}]}},
	 {"name": "host", "match": {"hosts": ["*.int.example"]}, "authentication": {"mode": "PERMISSIVE", "anonymousConsumer": "anybody", "rules": [`+rule(`"fromHeaders": [{"name": "x-tok"}], "fromParams": [{"name": "t"}]`)+`]},
	  "observedAuthentication": {"mode": "STRICT", "rules": [`+rule(`"fromParams": [{"name": "t"}]`)+`]}, "observedAuthorization": {"restricted": true}},
	 {"match": {}, "authentication": {"mode": "OFF"}}`))
	internal := func(r Request) Request { r.Authority = "a.int.example:80"; return r }
	grpc := get("/admin/", "content-type: application/grpc")
	for name, r := range map[string]Request{
		"allowed":          get("/admin/x?y", bearer(jwt("scope", "read admin", "a.b", map[string]any{"c": "v\u00e9"}, "n", 2)), "x-c: spoofed", "X-Watchword-Caller: spoofed"),
		"denied":           get("/admin/x", bearer(jwt("sub", "mallory"))),
		"not_allowed":      get("/admin/x", bearer(sign(`{"alg":"HS256"}`, `{"iss":"key-bob"}`, secretB))),
		"expired":          get("/admin/x", bearer(jwt("exp", 1))),
		"other_audience":   get("/admin/x", bearer(jwt("aud", []any{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"}))),
		"lifetime":         get("/admin/x", bearer(jwt("exp", now.Unix()+900))),
		"malformed":        get("/admin/x", bearer("secret.token.text")),
		"wrong_claim_type": get("/admin/x", bearer(jwt("sub", 7))),
		"algorithm":        get("/admin/x", bearer(b64(`{"alg":"none"}`)+".e30.x")),
		"unsigned":         get("/admin/x", bearer(b64(`{"alg":"none"}`)+".e30.")),
		"critical":         get("/admin/x", bearer(sign(`{"alg":"HS256","crit":["x"]}`, claimsOf(), secretA))),
		"key_unknown":      get("/admin/x", bearer(sign(`{"alg":"HS256","kid":"k\n9"}`, claimsOf(), secretA))),
		"forged":           get("/admin/x", bearer(sign(hsHeader, claimsOf("sub", "root"), secretB))),
		"ambiguous_path":   get("/admin/%2e%2e/x"),
		"ambiguous_host":   {Method: "GET", Authority: "a,b", Path: "/admin/"},
		"grpc":             grpc,
		"permissive":       internal(get("/x?t=" + jwt("exp", 1))),
		"permissive_none":  internal(get("/x", "x-tok: "+jwt("exp", nil))),
		"off":              get("/"),
	} {
		t.Run(name, func(t *testing.T) {
			_, steps := rs.Explain(r, now)
			golden(t, name, showSteps(steps))
		})
	}
	t.Run("claims", func(t *testing.T) {
		_, steps := rs.ExplainClaims(get("/admin/x"), []byte(claimsOf("iss", "https://ci.example")), map[string]any{"typ": "JWT"}, now)
		golden(t, "claims", showSteps(steps))
	})
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", "explain", name+".txt")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got); if it is right, run with -update:\n%s", file, diff)
	}
}

// Explaining changes no decision, and shows neither a token nor a key.
func TestExplainIsEvaluate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rs, r := drawCase(t)
		d, steps := rs.Explain(r, now)
		if diff := cmp.Diff(rs.Evaluate(r, now), d); diff != "" {
			t.Fatalf("%s, fields\n%s\n(-Evaluate +Explain):\n%s", r.Path, fieldsOf(r), diff)
		}
		text := showSteps(steps)
		for _, secret := range append(tokensIn(r), secretA, secretB, b64(secretA), b64(secretB)) {
			if strings.Contains(text, secret) {
				t.Fatalf("steps show %q:\n%s", secret, text)
			}
		}
		if last := steps[len(steps)-1]; last.Name != "decision" {
			t.Fatalf("the last step is %+v", last)
		}
	})
}

// EvaluateClaims is Evaluate of a token that is right, for policies to be tested
// without keys.
func TestEvaluateClaims(t *testing.T) {
	rs := ready(t, oneRoute("STRICT", rule(`"types": ["at+jwt"], `+outputs)+","+kongRule, ""))
	typ := map[string]any{"typ": "at+jwt"}
	for name, tt := range map[string]struct {
		claims string
		header map[string]any
		want   string
	}{
		"right":            {claimsOf(), typ, "allowed"},
		"expired":          {claimsOf("exp", 1), typ, "token_expired"},
		"other audience":   {claimsOf("aud", "x"), typ, "audience_mismatch"},
		"other issuer":     {claimsOf("iss", "x"), typ, "issuer_unknown"},
		"other type":       {claimsOf(), nil, "type_not_allowed"},
		"critical":         {claimsOf(), map[string]any{"typ": "at+jwt", "crit": []string{"x"}}, "token_malformed"},
		"algorithm":        {claimsOf(), map[string]any{"typ": "at+jwt", "alg": "none"}, "algorithm_not_allowed"},
		"wrong type":       {claimsOf("sub", 1), typ, "token_malformed"},
		"no JSON":          {`{`, typ, "token_malformed"},
		"no object":        {`null`, typ, "token_malformed"},
		"duplicate":        {`{"iss":"a","iss":"b"}`, typ, "token_malformed"},
		"empty":            {``, typ, "token_malformed"},
		"no such kid":      {claimsOf(), map[string]any{"typ": "at+jwt", "kid": "whatever"}, "allowed"},
		"by credential":    {`{"iss":"key-bob"}`, nil, "allowed"},
		"header no string": {claimsOf(), map[string]any{"typ": 1}, "token_malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			r := get("/", "authorization: Bearer of no interest")
			d := rs.EvaluateClaims(r, []byte(tt.claims), tt.header, now)
			if got := verdict(d); got != tt.want {
				_, steps := rs.ExplainClaims(r, []byte(tt.claims), tt.header, now)
				t.Errorf("EvaluateClaims(%s, %v) = %s, want %s\n%s", tt.claims, tt.header, got, tt.want, showSteps(steps))
			}
		})
	}
}

// A token that is not in the request yet is verified as one that is, wherever the
// rule looks first, and is nowhere in the steps or in what goes on.
func TestExplainToken(t *testing.T) {
	rs := ready(t, oneRoute("STRICT", rule(`"fromCookies": [{"name": "c"}], "fromParams": [{"name": "t"}], "forwardOriginalToken": true`), ""))
	for name, tt := range map[string]struct{ token, want string }{
		"right":    {jwt(), "allowed"},
		"expired":  {jwt("exp", 1), "token_expired"},
		"forged":   {sign(hsHeader, claimsOf(), secretB), "signature_invalid"},
		"garbage":  {"garbage-of-a-token", "token_malformed"},
		"unsigned": {strings.TrimRight(jwt(), "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"), "token_malformed"},
		"empty":    {"", "token_malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			d, steps := rs.ExplainToken(get("/?t=of+no+interest"), tt.token, now)
			text := showSteps(steps)
			if got := verdict(d); got != tt.want {
				t.Errorf("ExplainToken(%s) = %s, want %s\n%s", tt.token, got, tt.want, text)
			}
			if where := "given                taken to be in query parameter t:"; !strings.Contains(text, where) {
				t.Errorf("no step says %q:\n%s", where, text)
			}
			if tt.token != "" && strings.Contains(text+seen(d.Forward), tt.token) {
				t.Errorf("the token is shown:\n%s\n%s", text, seen(d.Forward))
			}
		})
	}
}
