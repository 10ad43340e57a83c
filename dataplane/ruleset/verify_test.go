package ruleset

import (
	"encoding/json"
	"strings"
	"testing"
)

// Every way in which one token can fail at one rule, and the word for it.
func TestTokenWords(t *testing.T) {
	rs := ready(t, oneRoute("STRICT", rule(`"requiredClaims": ["tenant"], "types": ["at+jwt", ""], "maxLifetime": "600s"`), ""))
	n := now.Unix()
	claims := claimsOf("tenant", "x")
	good := sign(hsHeader, claims, secretA)
	seg := strings.Split(good, ".")
	set := func(changes ...any) string { return jwt(append([]any{"tenant", "x"}, changes...)...) }
	for name, tt := range map[string]struct{ token, want string }{
		"good": {good, "allowed"},
		// parse
		"empty":               {"", "token_missing"}, // an HTTP parser trims the blank of the prefix
		"garbage":             {"abc", "token_malformed"},
		"two segments":        {seg[0] + "." + seg[1], "token_malformed"},
		"four segments":       {good + ".", "token_malformed"},
		"leading dot":         {"." + good, "token_malformed"},
		"padding":             {good + "=", "token_malformed"},
		"blank before":        {" " + good, "token_malformed"},
		"junk after":          {good + ",x", "token_malformed"},
		"header no JSON":      {b64("{") + "." + seg[1] + "." + seg[2], "token_malformed"},
		"no alg":              {sign(`{}`, claims, secretA), "token_malformed"},
		"alg a number":        {sign(`{"alg":1}`, claims, secretA), "token_malformed"},
		"kid a number":        {sign(`{"alg":"HS256","kid":1}`, claims, secretA), "token_malformed"},
		"kid null":            {sign(`{"alg":"HS256","kid":null}`, claims, secretA), "token_malformed"},
		"typ a number":        {sign(`{"alg":"HS256","typ":1}`, claims, secretA), "token_malformed"},
		"none":                {b64(`{"alg":"none"}`) + "." + seg[1] + "." + seg[2], "algorithm_not_allowed"},
		"none, unsigned":      {b64(`{"alg":"none"}`) + "." + seg[1] + ".", "token_malformed"},
		"none, broken claims": {b64(`{"alg":"none","kid":1}`) + ".!.x", "algorithm_not_allowed"},
		"ES256K":              {sign(`{"alg":"ES256K"}`, claims, secretA), "algorithm_not_allowed"},
		"hs256":               {sign(`{"alg":"hs256"}`, claims, secretA), "algorithm_not_allowed"},
		"claims no object":    {sign(hsHeader, `[]`, secretA), "token_malformed"},
		"trailing comma":      {sign(hsHeader, `{"a":1,}`, secretA), "token_malformed"},
		"duplicate":           {sign(hsHeader, `{"iss":"a","iss":"https://sts.example"}`, secretA), "token_malformed"},
		"number too large":    {sign(hsHeader, `{"x":1e999}`, secretA), "token_malformed"},
		// types of claims
		"iss a number":   {set("iss", 1), "token_malformed"},
		"sub a number":   {set("sub", 1), "token_malformed"},
		"sub null":       {set("sub", json.RawMessage("null")), "token_malformed"},
		"jti a list":     {set("jti", []string{"a"}), "token_malformed"},
		"aud a number":   {set("aud", 1), "token_malformed"},
		"aud mixed":      {set("aud", []any{"orders", 1}), "token_malformed"},
		"aud null":       {set("aud", json.RawMessage("null")), "token_malformed"},
		"exp a string":   {set("exp", "1"), "token_malformed"},
		"exp negative":   {set("exp", -1), "token_malformed"},
		"exp null":       {set("exp", json.RawMessage("null")), "token_malformed"},
		"exp 2^64":       {set("exp", json.Number("18446744073709551616")), "token_malformed"},
		"iat a boolean":  {set("iat", true), "token_malformed"},
		"nbf negative":   {set("nbf", -0.5), "token_malformed"},
		"jti empty":      {set("jti", ""), "allowed"},
		"client_id wild": {set("client_id", []any{1, map[string]any{"a": nil}}), "allowed"},
		// whose, when, for whom
		"other iss":              {set("iss", "https://other.example"), "issuer_unknown"},
		"no iss":                 {set("iss", nil), "issuer_unknown"},
		"expired":                {set("exp", n-61), "token_expired"},
		"expired within skew":    {set("exp", n-60), "allowed"},
		"fraction within skew":   {set("exp", float64(n)-60.5), "token_expired"},
		"not yet":                {set("nbf", n+61), "token_not_yet_valid"},
		"not yet, within skew":   {set("nbf", n+60), "allowed"},
		"not yet, fraction":      {set("nbf", float64(n)+60.9), "allowed"},
		"nbf before exp":         {set("nbf", n+61, "exp", n-61), "token_not_yet_valid"},
		"other audience":         {set("aud", "payments"), "audience_mismatch"},
		"no audience":            {set("aud", nil), "audience_mismatch"},
		"empty audience":         {set("aud", ""), "audience_mismatch"},
		"audience of several":    {set("aud", []string{"payments", "orders"}), "allowed"},
		"audience with scheme":   {set("aud", "https://orders/"), "allowed"},
		"audience, two slashes":  {set("aud", "orders//"), "audience_mismatch"},
		"expired for another":    {set("aud", "payments", "exp", n-61), "token_expired"},
		"kid unknown":            {sign(`{"alg":"HS256","kid":"k2"}`, claims, secretA), "key_unknown"},
		"alg of no key":          {sign(`{"alg":"HS512","kid":"k1"}`, claims, secretA), "key_unknown"},
		"no kid":                 {sign(`{"alg":"HS256"}`, claims, secretA), "allowed"},
		"empty kid":              {sign(`{"alg":"HS256","kid":""}`, claims, secretA), "allowed"},
		"signed by another":      {sign(hsHeader, claims, secretB), "signature_invalid"},
		"no signature":           {seg[0] + "." + seg[1] + ".", "token_malformed"},
		"forged and other aud":   {sign(hsHeader, claimsOf("aud", "x"), secretB), "audience_mismatch"},
		"forged and crit":        {sign(`{"alg":"HS256","crit":["x"]}`, claims, secretB), "signature_invalid"},
		"expired and crit":       {sign(`{"alg":"HS256","crit":["x"]}`, claimsOf("exp", n-61), secretA), "token_expired"},
		"crit":                   {sign(`{"alg":"HS256","crit":["x"]}`, claims, secretA), "token_malformed"},
		"crit, tenant missing":   {sign(`{"alg":"HS256","crit":["x"]}`, claimsOf(), secretA), "claim_missing"},
		"b64":                    {sign(`{"alg":"HS256","b64":true}`, claims, secretA), "token_malformed"},
		"lifetime":               {set("exp", n+660), "allowed"},
		"lifetime exceeded":      {set("exp", n+661), "lifetime_exceeded"},
		"lifetime, fraction":     {set("exp", float64(n)+660.5), "lifetime_exceeded"},
		"exp 0":                  {set("exp", 0), "claim_missing"},
		"exp next to 0":          {set("exp", 1e-9), "claim_missing"},
		"exp minus 0":            {set("exp", json.Number("-0.0")), "claim_missing"},
		"no exp":                 {set("exp", nil), "claim_missing"},
		"exp beyond 2^53":        {set("exp", json.Number("9007199254740992")), "lifetime_exceeded"},
		"exp just below 2^64":    {set("exp", json.Number("18446744073709549568")), "lifetime_exceeded"},
		"required claim":         {jwt(), "claim_missing"},
		"required claim null":    {set("tenant", json.RawMessage("null")), "claim_missing"},
		"required claim false":   {set("tenant", false), "allowed"},
		"issued in the future":   {set("iat", n+61), "token_not_yet_valid"},
		"issued within the skew": {set("iat", n+60), "allowed"},
		"type":                   {sign(`{"alg":"HS256","typ":"application/AT+JWT"}`, claims, secretA), "allowed"},
		"type not allowed":       {sign(`{"alg":"HS256","typ":"JWT"}`, claims, secretA), "type_not_allowed"},
		"line feed in sub":       {set("sub", "a\nb"), "subject_malformed"},
		"NUL in sub":             {set("sub", "a\x00"), "subject_malformed"},
		"DEL in sub":             {set("sub", "\x7f"), "subject_malformed"},
		"line feed in iss":       {sign(hsHeader, `{"iss":"https://sts.example\n"}`, secretA), "issuer_unknown"},
	} {
		t.Run(name, func(t *testing.T) { check(t, rs, get("/", bearer(tt.token)), tt.want) })
	}
}

// A token is looked up by its key claim; the credential says whose it is and may
// sign only for that.
func TestCredentials(t *testing.T) {
	rs := ready(t, oneRoute("STRICT", kongRule, ""))
	pay := "spiffe://mesh.local/payments"
	for name, tt := range map[string]struct {
		header, claims, secret, want, consumer, service string
	}{
		"consumer":            {hsHeader, `{"iss":"key-bob"}`, secretB, "allowed", "bob", ""},
		"consumer, other kid": {`{"alg":"HS256","kid":"z"}`, `{"iss":"key-bob"}`, secretB, "allowed", "bob", ""},
		"service":             {hsHeader, `{"iss":"key-pay","sub":"` + pay + `"}`, secretA, "allowed", "", "payments"},
		"key of another":      {hsHeader, `{"iss":"key-bob"}`, secretA, "signature_invalid", "", ""},
		"no key claim":        {hsHeader, `{}`, secretB, "credential_unknown", "", ""},
		"empty key claim":     {hsHeader, `{"iss":""}`, secretB, "credential_unknown", "", ""},
		"unknown key":         {hsHeader, `{"iss":"key-eve"}`, secretB, "credential_unknown", "", ""},
		"expired":             {hsHeader, `{"iss":"key-bob","exp":1}`, secretB, "token_expired", "", ""},
		"service, other sub":  {hsHeader, `{"iss":"key-pay","sub":"` + pay + `x"}`, secretA, "subject_forged", "", ""},
		"service, no sub":     {hsHeader, `{"iss":"key-pay"}`, secretA, "subject_forged", "", ""},
		"consumer as service": {hsHeader, `{"iss":"key-bob","sub":"` + pay + `"}`, secretB, "subject_forged", "", ""},
		"control in iss":      {hsHeader, `{"iss":"key-bob\n"}`, secretB, "credential_unknown", "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := check(t, rs, get("/", bearer(sign(tt.header, tt.claims, tt.secret))), tt.want)
			if d.Allowed && (d.Caller.Consumer != tt.consumer || d.Caller.Service != tt.service) {
				t.Errorf("caller %+v, want consumer %q, service %q", d.Caller, tt.consumer, tt.service)
			}
		})
	}
}

// The key claim may be in the payload or in the header; the first that says
// something is asked.
func TestKeyClaimSources(t *testing.T) {
	for sources, tests := range map[string]map[string]string{
		`["HEADER"]`:            {"h": "allowed", "p": "credential_unknown", "hp": "allowed", "xp": "credential_unknown"},
		`["PAYLOAD"]`:           {"h": "credential_unknown", "p": "allowed", "hp": "allowed", "hx": "credential_unknown"},
		`["PAYLOAD", "HEADER"]`: {"h": "allowed", "p": "allowed", "hx": "credential_unknown", "xp": "allowed", "": "credential_unknown"},
	} {
		rs := ready(t, oneRoute("STRICT", strings.Replace(kongRule, `{"name": "iss", "sources": ["PAYLOAD"]}`, `{"name": "who", "sources": `+sources+`}`, 1), ""))
		for where, want := range tests {
			header, claims := `{"alg":"HS256"}`, `{}`
			switch {
			case strings.Contains(where, "h"):
				header = `{"alg":"HS256","who":"key-bob"}`
			case strings.HasPrefix(where, "x"):
				header = `{"alg":"HS256","who":"nobody"}`
			}
			switch {
			case strings.Contains(where, "p"):
				claims = `{"who":"key-bob"}`
			case strings.HasSuffix(where, "x"):
				claims = `{"who":"nobody"}`
			}
			check(t, rs, get("/", bearer(sign(header, claims, secretB))), want)
		}
	}
}

// Rules are tried in order, and of the failures the one that is most about the
// token is told.
func TestRuleOrder(t *testing.T) {
	ci := rule(`"issuer": "ci", "fromHeaders": [{"name": "x-ci"}, {"name": "authorization", "prefix": "Bearer "}]`)
	rs := ready(t, oneRoute("STRICT", rule("")+","+ci+","+kongRule, ""))
	ciToken := sign(`{"alg":"HS256","kid":"c1"}`, claimsOf("iss", "https://ci.example"), secretB)
	for name, tt := range map[string]struct {
		fields []string
		want   string
		caller Caller
	}{
		"first":              {[]string{bearer(jwt())}, "allowed", Caller{Issuer: "sts", Iss: "https://sts.example", Subject: "alice"}},
		"second":             {[]string{bearer(ciToken)}, "allowed", Caller{Issuer: "ci", Iss: "https://ci.example", Subject: "alice"}},
		"third":              {[]string{bearer(sign(hsHeader, `{"iss":"key-bob"}`, secretB))}, "allowed", Caller{Iss: "key-bob", Consumer: "bob", Credential: "key-bob"}},
		"none":               {nil, "token_missing", Caller{}},
		"nobody's":           {[]string{bearer(jwt("iss", "x"))}, "issuer_unknown", Caller{}},
		"second, expired":    {[]string{bearer(sign(`{"alg":"HS256"}`, claimsOf("iss", "https://ci.example", "exp", 1), secretB))}, "token_expired", Caller{}},
		"good beside a bad":  {[]string{bearer(jwt()), "x-ci: abc"}, "allowed", Caller{Issuer: "sts", Iss: "https://sts.example", Subject: "alice"}},
		"bad beside unknown": {[]string{bearer(jwt("iss", "x")), "x-ci: abc"}, "token_malformed", Caller{}},
	} {
		t.Run(name, func(t *testing.T) {
			if d := check(t, rs, get("/", tt.fields...), tt.want); d.Caller != tt.caller {
				t.Errorf("caller %+v, want %+v", d.Caller, tt.caller)
			}
		})
	}
}

// A rule with a token at several places wants all to verify, and takes the
// claims of the first.
func TestSeveralTokens(t *testing.T) {
	rs := ready(t, oneRoute("STRICT", rule(`"fromHeaders": [{"name": "x-b"}, {"name": "X-A"}], "fromParams": [{"name": "t"}], "fromCookies": [{"name": "c"}], "fromForm": [{"name": "f"}]`), ""))
	form := func(r Request, body string) Request {
		r.Method, r.Body = "POST", []byte(body)
		r.Header = append(r.Header, Field{"Content-Type", "application/X-www-form-urlencoded; charset=utf-8"})
		return r
	}
	sub := func(s string) string { return jwt("sub", s) }
	bad, expired := sign(hsHeader, claimsOf(), secretB), jwt("exp", 1)
	for name, tt := range map[string]struct {
		r            Request
		want, caller string
	}{
		"header":         {get("/", "X-a: "+sub("1")), "allowed", "1"},
		"header twice":   {get("/", "x-a: "+sub("1"), "x-a: "+sub("2")), "allowed", "1"},
		"by name":        {get("/", "x-b: "+sub("1"), "x-a: "+sub("2")), "allowed", "2"},
		"query":          {get("/?a&t=" + sub("3")), "allowed", "3"},
		"query, escaped": {get("/?%74=" + strings.ReplaceAll(sub("3"), ".", "%2e")), "allowed", "3"},
		"cookie":         {get("/", "cookie: a=b; c=\""+sub("4")+"\""), "allowed", "4"},
		"form":           {form(get("/"), "a=b&f="+sub("5")), "allowed", "5"},
		"all":            {form(get("/?t="+sub("3"), "x-b: "+sub("1"), "cookie: c="+sub("4")), "f="+sub("5")), "allowed", "1"},
		"first is bad":   {get("/?t="+sub("3"), "x-b: "+bad), "signature_invalid", ""},
		"last is bad":    {get("/?t="+bad, "x-b: "+sub("1")), "signature_invalid", ""},
		"last fails":     {get("/?t="+expired, "x-b: "+bad), "token_expired", ""},
		"not a form":     {Request{Path: "/", Body: []byte("f=" + sub("5")), Header: []Field{{"content-type", "text/plain"}}}, "token_missing", ""},
		"no content":     {get("/?t="), "token_malformed", ""},
		"no value":       {get("/?t"), "token_malformed", ""},
		"empty header":   {get("/", "x-a: "), "token_malformed", ""},
		"empty cookie":   {get("/", "cookie: c="), "token_malformed", ""},
	} {
		t.Run(name, func(t *testing.T) {
			if d := check(t, rs, tt.r, tt.want); d.Caller.Subject != tt.caller {
				t.Errorf("sub %q, want %q", d.Caller.Subject, tt.caller)
			}
		})
	}
}

// Where one token of a rule verifies and another one then does not, a service could
// read the one that we have refused: no later rule is asked, and but for PERMISSIVE,
// which then knows no caller, no mode lets that in. Tokens are taken from the back, so that a failure of the last one tells
// nothing about the others, to Envoy too.
func TestTornTokens(t *testing.T) {
	ci := rule(`"issuer": "ci", "fromHeaders": [{"name": "x-ci"}]`)
	rules := rule(`"fromHeaders": [{"name": "x-a"}], "fromParams": [{"name": "t"}]`) + "," + ci
	good, expired := "/?t="+jwt(), "x-a: "+jwt("exp", 1)
	byCI := "x-ci: " + sign(`{"alg":"HS256"}`, claimsOf("iss", "https://ci.example"), secretB)
	for _, mode := range []string{"STRICT", "OPTIONAL"} {
		enforced := ready(t, oneRoute(mode, rules, ""))
		observing := ready(t, strings.Replace(oneRoute(mode, rules, ""), `"mode":`, `"observe": true, "mode":`, 1))
		for _, rs := range []*Ruleset{enforced, observing} {
			check(t, rs, get(good, expired), "token_expired")
			check(t, rs, get(good, expired, byCI), "token_expired")
			check(t, rs, get(good, "x-a: "+jwt("iss", "x")), "issuer_unknown")
			check(t, rs, get("/?t="+jwt("exp", 1), "x-a: "+jwt(), byCI), "allowed")
		}
	}
	rs := ready(t, oneRoute("PERMISSIVE", rules, ""))
	for _, fields := range [][]string{{expired}, {expired, byCI}, {"x-a: " + jwt("iss", "x")}} {
		if d := check(t, rs, get(good, fields...), "allowed"); d.Caller != (Caller{}) {
			t.Errorf("%q: caller %+v of a torn token", fields, d.Caller)
		}
	}
}

// A token that PERMISSIVE does not believe counts as none, but was its rule's: no
// other rule is asked, as Envoy asks them all before it judges claims.
func TestPermissiveStopsAtClaims(t *testing.T) {
	ci := rule(`"issuer": "ci", "fromHeaders": [{"name": "x-ci"}]`)
	rs := ready(t, oneRoute("PERMISSIVE", rule("")+","+ci, ""))
	byCI := "x-ci: " + sign(`{"alg":"HS256"}`, claimsOf("iss", "https://ci.example", "sub", "carol"), secretB)
	if d := check(t, rs, get("/", bearer(jwt("exp", nil)), byCI), "allowed"); d.Caller != (Caller{}) {
		t.Errorf("caller %+v, want none", d.Caller)
	}
	if d := check(t, rs, get("/", bearer(jwt("exp", 1)), byCI), "allowed"); d.Caller.Subject != "carol" {
		t.Errorf("caller %+v, want carol", d.Caller)
	}
}

// Tokens that name several credentials are refused where a credential is looked
// up: Envoy looks once.
func TestSeveralCredentials(t *testing.T) {
	bob, pay := sign(hsHeader, `{"iss":"key-bob"}`, secretB), sign(hsHeader, `{"iss":"key-pay","sub":"spiffe://mesh.local/payments"}`, secretA)
	again := sign(`{"alg":"HS256"}`, `{"iss":"key-bob","jti":"2"}`, secretB)
	rs := ready(t, oneRoute("STRICT", kongRule, ""))
	check(t, rs, get("/?jwt="+again, bearer(bob)), "allowed")
	check(t, rs, get("/?jwt="+pay, bearer(bob)), "credential_unknown")
	check(t, rs, get("/?jwt="+bob, bearer(pay)), "credential_unknown")
	check(t, rs, get("/?jwt="+sign(hsHeader, `{}`, secretB), bearer(bob)), "credential_unknown")
}

// What a mode makes of a token that is missing or does not verify.
func TestModes(t *testing.T) {
	for mode, want := range map[string][4]string{ // missing, unknown, bad, good
		"STRICT":     {"token_missing", "issuer_unknown", "token_expired", "allowed"},
		"OPTIONAL":   {"allowed", "issuer_unknown", "token_expired", "allowed"},
		"PERMISSIVE": {"allowed", "allowed", "allowed", "allowed"},
		"OFF":        {"allowed", "allowed", "allowed", "allowed"},
	} {
		requests := [4]Request{get("/"), get("/", bearer(jwt("iss", "x"))), get("/", bearer(jwt("exp", 1))), get("/", bearer(jwt()))}
		rules := rule("")
		if mode == "OFF" {
			rules = ""
		}
		rs := ready(t, oneRoute(mode, rules, ""))
		observing := ready(t, strings.Replace(oneRoute(mode, rules, ""), `"mode": "`, `"observe": true, "mode": "`, 1))
		for i, r := range requests {
			known := mode != "OFF" && i == 3
			if d := check(t, rs, r, want[i]); (d.Caller.Subject == "alice") != known {
				t.Errorf("%s: caller %+v, want known %v", mode, d.Caller, known)
			}
			observed := "allowed"
			if want[i] != "allowed" {
				observed += ", observed " + want[i]
			}
			if d := check(t, observing, r, observed); (d.Caller.Subject == "alice") != known {
				t.Errorf("%s, observed: caller %+v, want known %v", mode, d.Caller, known)
			}
		}
	}
}

// Without clock skew a token ends at its exp, to the second. For one second more Envoy's
// jwt_authn takes it, and the chain refuses it later: what else is wrong comes first.
func TestNoClockSkew(t *testing.T) {
	none := ready(t, oneRoute("STRICT", rule(`"clockSkew": "0s"`), ""))
	unknown := func(changes ...any) string {
		return sign(`{"alg":"HS256","kid":"other"}`, claimsOf(changes...), secretA)
	}
	n := now.Unix()
	for _, tt := range []struct{ token, want string }{
		{jwt("exp", n), "allowed"},
		{jwt("exp", n-1), "token_expired"},
		{unknown("exp", n-1), "key_unknown"},
		{unknown("exp", n-2), "token_expired"},
		{jwt("nbf", n), "allowed"},
		{jwt("nbf", n+1), "token_not_yet_valid"},
		{unknown("nbf", n+1), "key_unknown"},
		{unknown("nbf", n+2), "token_not_yet_valid"},
	} {
		check(t, none, get("/", bearer(tt.token)), tt.want)
	}
}
