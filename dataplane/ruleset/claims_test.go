package ruleset

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/watchword-mesh/watchword/internal/jose"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// What the claims of a token that verified can be refused for. What would make a
// lie of what is forwarded refuses where the policy is only observed, too; to
// PERMISSIVE such a token counts as none.
func TestClaimWordsByMode(t *testing.T) {
	rules := rule(`"maxLifetime": "600s", "types": ["at+jwt"], "requiredClaims": ["tenant"], "notBefore": "REQUIRED",
	 "outputClaims": [{"claimPath": ["mail"], "header": "x-mail"}, {"claimPath": ["a", "b"], "cookie": "ab"}, {"claimPath": ["q"], "query": "q"}, {"claimPath": ["f"], "form": "f"}]`)
	n := now.Unix()
	good := []any{"tenant", "t", "nbf", n, "mail", "a@b", "a", map[string]any{"b": "c"}, "q", "; é", "f", "; é"}
	const none, plain = "allowed", "allowed, observed "
	for name, tt := range map[string]struct {
		changes         []any
		header          string
		strict, watched string
	}{
		"right":                   {nil, hsHeader, none, none},
		"line feed for a header":  {[]any{"mail", "a\nb"}, hsHeader, "claim_malformed", "claim_malformed"},
		"NUL for a header":        {[]any{"mail", "\x00"}, hsHeader, "claim_malformed", "claim_malformed"},
		"list for a header":       {[]any{"mail", []string{"a\nb"}}, hsHeader, none, none},
		"UTF-8 for a header":      {[]any{"mail", "é"}, hsHeader, none, none},
		"semicolon for a cookie":  {[]any{"a", map[string]any{"b": "c; d"}}, hsHeader, "claim_malformed", "claim_malformed"},
		"UTF-8 for a cookie":      {[]any{"a", map[string]any{"b": "é"}}, hsHeader, "claim_malformed", "claim_malformed"},
		"number for a cookie":     {[]any{"a", map[string]any{"b": -1.5}}, hsHeader, none, none},
		"path ends early":         {[]any{"a", "; ;"}, hsHeader, none, none},
		"no tenant":               {[]any{"tenant", nil}, hsHeader, "claim_missing", plain + "claim_missing"},
		"no nbf":                  {[]any{"nbf", nil}, hsHeader, "claim_missing", plain + "claim_missing"},
		"no exp":                  {[]any{"exp", nil}, hsHeader, "claim_missing", plain + "claim_missing"},
		"no exp, no tenant":       {[]any{"exp", nil, "tenant", nil}, hsHeader, "claim_missing", plain + "claim_missing"},
		"lives long":              {[]any{"exp", n + 700}, hsHeader, "lifetime_exceeded", plain + "lifetime_exceeded"},
		"lives long, bad mail":    {[]any{"exp", n + 700, "mail", "\n"}, hsHeader, "claim_malformed", "claim_malformed"},
		"own subject":             {[]any{"sub", "spiffe://mesh.local/x"}, hsHeader, none, none},
		"line feed in sub":        {[]any{"sub", "\n"}, hsHeader, "subject_malformed", "subject_malformed"},
		"issued in the future":    {[]any{"iat", n + 100}, hsHeader, "token_not_yet_valid", plain + "token_not_yet_valid"},
		"crit":                    {nil, `{"alg":"HS256","typ":"at+jwt","crit":["x"]}`, "token_malformed", "token_malformed"},
		"other type":              {nil, `{"alg":"HS256","typ":"JWT"}`, "type_not_allowed", plain + "type_not_allowed"},
		"no type":                 {nil, `{"alg":"HS256"}`, "type_not_allowed", plain + "type_not_allowed"},
		"soft before hard":        {[]any{"tenant", nil, "sub", "\n"}, hsHeader, "claim_missing", "subject_malformed"},
		"two soft ones":           {[]any{"tenant", nil, "iat", n + 100}, hsHeader, "claim_missing", plain + "claim_missing"},
		"blanks in a query":       {[]any{"q", " q ", "f", " f "}, hsHeader, none, none},
		"blank before, in header": {[]any{"mail", " a@b"}, hsHeader, "claim_malformed", "claim_malformed"},
		"tab after, in header":    {[]any{"mail", "a@b\t"}, hsHeader, "claim_malformed", "claim_malformed"},
		"blank after sub":         {[]any{"sub", "alice "}, hsHeader, "subject_malformed", "subject_malformed"},
		"no end":                  {[]any{"exp", json.Number("9007199254740992")}, hsHeader, "lifetime_exceeded", plain + "lifetime_exceeded"},
		"control for a query":     {[]any{"q", "\r\n\x00"}, hsHeader, "claim_malformed", "claim_malformed"},
		"control for a form":      {[]any{"f", "\x7f"}, hsHeader, "claim_malformed", "claim_malformed"},
		"everything in one claim": {[]any{"mail", "\r\nx-evil: 1"}, hsHeader, "claim_malformed", "claim_malformed"},
	} {
		t.Run(name, func(t *testing.T) {
			r := get("/", bearer(sign(tt.header, claimsOf(append(good, tt.changes...)...), secretA)))
			check(t, ready(t, oneRoute("STRICT", rules, "")), r, tt.strict)
			if d := check(t, ready(t, oneRoute("PERMISSIVE", rules, "")), r, none); (d.Caller.Subject != "") != (tt.strict == none) {
				t.Errorf("PERMISSIVE: the caller is %+v", d.Caller)
			}
			observing := ready(t, strings.Replace(oneRoute("STRICT", rules, ""), `"mode":`, `"observe": true, "mode":`, 1))
			if d := check(t, observing, r, tt.watched); d.Allowed && d.Caller.Subject == "" {
				t.Errorf("the caller is not known any more: %+v", d.Caller)
			}
		})
	}
}

// A subject of the mesh belongs to the one issuer.
func TestForgedSubject(t *testing.T) {
	ci := rule(`"issuer": "ci"`)
	rs := ready(t, oneRoute("STRICT", ci+","+rule(""), ""))
	by := func(iss, sub, secret string) Request {
		return get("/", bearer(sign(`{"alg":"HS256"}`, claimsOf("iss", "https://"+iss+".example", "sub", sub), secret)))
	}
	check(t, rs, by("sts", "spiffe://mesh.local/a", secretA), "allowed")
	check(t, rs, by("ci", "spiffe://mesh.local/a", secretB), "subject_forged")
	check(t, rs, by("ci", "spiffe://mesh.local/", secretB), "subject_forged")
	check(t, rs, by("ci", "spiffe://mesh.local", secretB), "allowed")
	// An issuer whose iss is not looked at is never ours, whatever it signs.
	open := strings.Replace(oneRoute("STRICT", ci, ""), `"issuer": "https://ci.example"`, `"issuer": ""`, 1)
	check(t, ready(t, open), by("sts", "spiffe://mesh.local/a", secretB), "subject_forged")
	check(t, ready(t, open), by("sts", "a", secretB), "allowed")
	check(t, ready(t, open), get("/", bearer(sign(`{"alg":"HS256"}`, claimsOf("iss", "a\r\nb: c"), secretB))), "claim_malformed")
	check(t, ready(t, open), get("/", bearer(sign(`{"alg":"HS256"}`, claimsOf("iss", " a"), secretB))), "claim_malformed")
}

// Which of the time checks are made, and where.
func TestTimeChecks(t *testing.T) {
	n := now.Unix()
	for _, tt := range []struct {
		expiration, notBefore string
		changes               []any
		want                  string
	}{
		{"IF_PRESENT", "IF_PRESENT", []any{"exp", nil}, "allowed"},
		{"IF_PRESENT", "IF_PRESENT", []any{"exp", n - 100}, "token_expired"},
		{"IF_PRESENT", "REQUIRED", []any{"nbf", n + 100}, "token_not_yet_valid"},
		{"IF_PRESENT", "REQUIRED", []any{"nbf", 0}, "allowed"},
		{"NOT_CHECKED", "IF_PRESENT", []any{"exp", n - 100}, "allowed"},
		{"NOT_CHECKED", "IF_PRESENT", []any{"exp", json.Number("1e18")}, "allowed"},
		{"NOT_CHECKED", "IF_PRESENT", []any{"exp", n - 100, "nbf", n + 100}, "token_not_yet_valid"},
		{"NOT_CHECKED", "IF_PRESENT", []any{"exp", -1}, "token_malformed"},
		{"REQUIRED", "NOT_CHECKED", []any{"nbf", n + 100, "exp", n - 100}, "token_expired"},
		{"REQUIRED", "NOT_CHECKED", []any{"nbf", n + 100, "iat", n + 100}, "allowed"},
		{"REQUIRED", "NOT_CHECKED", []any{"exp", n - 100, "aud", "x"}, "audience_mismatch"},
		{"NOT_CHECKED", "NOT_CHECKED", []any{"exp", n - 100, "nbf", n + 100, "iat", n + 100}, "allowed"},
		{"IF_PRESENT", "IF_PRESENT", []any{"iat", n + 100}, "token_not_yet_valid"},
		{"IF_PRESENT", "IF_PRESENT", []any{"exp", json.Number("1e18")}, "lifetime_exceeded"},
		{"IF_PRESENT", "IF_PRESENT", []any{"exp", 0}, "allowed"},
	} {
		rs := ready(t, oneRoute("STRICT", rule(fmt.Sprintf(`"expiration": %q, "notBefore": %q`, tt.expiration, tt.notBefore)), ""))
		check(t, rs, get("/", bearer(jwt(tt.changes...))), tt.want)
	}
}

// A token without an end lives longer than any limit, if its end is not required
// or not looked at.
func TestLifetimeWithoutEnd(t *testing.T) {
	for _, tt := range []struct {
		expiration string
		changes    []any
		want       string
	}{
		{"REQUIRED", []any{"exp", nil}, "claim_missing"},
		{"IF_PRESENT", []any{"exp", nil}, "lifetime_exceeded"},
		{"IF_PRESENT", []any{"exp", 0}, "lifetime_exceeded"},
		{"IF_PRESENT", []any{"exp", 0.5}, "lifetime_exceeded"},
		{"IF_PRESENT", nil, "allowed"},
		{"NOT_CHECKED", []any{"exp", nil}, "lifetime_exceeded"},
		{"NOT_CHECKED", []any{"exp", 1}, "allowed"},
	} {
		rs := ready(t, oneRoute("STRICT", rule(fmt.Sprintf(`"expiration": %q, "maxLifetime": "600s"`, tt.expiration)), ""))
		check(t, rs, get("/", bearer(jwt(tt.changes...))), tt.want)
	}
}

// One condition against one set of claims.
func TestConditions(t *testing.T) {
	const text = `{"s":"a","n":1.5,"i":7,"b":true,"l":["a",2,null,{"x":1}],"o":{"p":{"q":"deep"}},"d.t":"dot","z":null,"e":"",
	 "scope":" read  write ","f":"read write"}`
	c := readClaims(t, text)
	for _, tt := range []struct {
		match   string
		in      bool
		present bool
	}{
		{`"claimPath": ["s"], "values": ["a"]`, true, true},
		{`"claimPath": ["s"], "values": ["A"]`, false, true},
		{`"claimPath": ["n"], "values": [1, 1.5]`, true, true},
		{`"claimPath": ["i"], "values": ["7"]`, false, true},
		{`"claimPath": ["i"], "values": [7]`, true, true},
		{`"claimPath": ["b"], "values": [true]`, true, true},
		{`"claimPath": ["b"], "values": ["true", false]`, false, true},
		{`"claimPath": ["l"], "values": ["a"]`, true, true},
		{`"claimPath": ["l"], "values": [2]`, true, true},
		{`"claimPath": ["l"], "values": ["2", true]`, false, true},
		{`"claimPath": ["l", "x"], "values": [1]`, false, false},
		{`"claimPath": ["o", "p", "q"], "values": ["deep"]`, true, true},
		{`"claimPath": ["o", "p"], "values": ["deep"]`, false, true},
		{`"claimPath": ["o.p"], "values": ["deep"]`, false, false},
		{`"claimPath": ["d.t"], "values": ["dot"]`, true, true},
		{`"claimPath": ["d", "t"], "values": ["dot"]`, false, false},
		{`"claimPath": ["z"], "values": [""]`, false, false},
		{`"claimPath": ["e"], "values": [""]`, true, true},
		{`"claimPath": ["absent"], "values": [""]`, false, false},
		{`"claimPath": ["scope"], "values": ["write"]`, true, true},
		{`"claimPath": ["scope"], "values": ["", "read write", "rea"]`, false, true},
		{`"claimPath": ["f"], "values": ["read"]`, false, true},
	} {
		for op, want := range map[string]bool{"IN": tt.in, "NOT_IN": !tt.in, "EXISTS": tt.present, "NOT_EXISTS": !tt.present} {
			match := fmt.Sprintf(`{%s, "op": %q}`, tt.match, op)
			if strings.HasSuffix(op, "EXISTS") {
				match = fmt.Sprintf(`{%s, "op": %q}`, tt.match[:strings.Index(tt.match, `, "values"`)], op)
			}
			rs := parse(t, `{"routes": [{"authorization": {"allow": [{"when": [`+match+`]}]}}]}`)
			d := (&compiler{}).conditions(rs.Routes[0].Authorization.Allow[0].When)
			if got := d[0].holds(c); got != want {
				t.Errorf("%s holds = %v for %s, want %v", match, got, text, want)
			}
			if d[0].holds(nil) {
				t.Errorf("%s holds without a token", match)
			}
		}
	}
	// A scope of blanks is a text like another.
	blank := condition{path: []string{"scope"}, op: dataplanev1.ClaimMatch_IN, values: []any{"  "}}
	if !blank.holds(claims{{Name: "scope", Value: "  "}}) {
		t.Errorf(`scope "  " is not in ["  "]`)
	}
}

// How a claim is written where it is copied to.
func TestClaimText(t *testing.T) {
	for text, want := range map[string]string{
		`"a b"`: "a b", `""`: "", `null`: "", `true`: "true", `false`: "false",
		`0`: "0", `-0.0`: "0", `12345678901234`: "12345678901234", `1e3`: "1000", `18446744073709549568`: "18446744073709549568",
		`18446744073709551616`: "18446744073709551616.000000", `1.5`: "1.500000", `-1`: "-1.000000", `0.0000001`: "0.000000",
		`["x", "y"]`: "WyJ4IiwieSJd", `{"b": 1.0, "a": "<é>"}`: "eyJhIjoiPMOpPiIsImIiOjF9", `[]`: "W10=",
	} {
		if got := claimText(readClaims(t, `{"v":`+text+`}`).get("v")); got != want {
			t.Errorf("claimText(%s) = %q, want %q", text, got, want)
		}
	}
}

// readClaims reads claims as those of a token are.
func readClaims(t *testing.T, text string) claims {
	t.Helper()
	u, err := jose.ParseUnverified(sign(hsHeader, text, secretA))
	if err != nil {
		t.Fatalf("%v in claims %s", err, text)
	}
	return claims(u.Object())
}
