package ruleset

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

const authz = `"authorization": {"restricted": true,
  "deny": [
   {"name": "d/0", "from": [{"issuer": "sts", "subject": "mallory"}]},
   {"name": "d/1", "to": {"paths": ["/admin/*"]}, "notFrom": [{"issuer": "sts", "subject": "root"}, {"service": "payments"}]},
   {"name": "d/2", "when": [{"claimPath": ["scope"], "op": "IN", "values": ["banned"]}]}],
  "allow": [
   {"name": "a/0", "from": [{"issuer": "sts"}], "when": [{"claimPath": ["scope"], "op": "NOT_IN", "values": ["guest"]}]},
   {"name": "a/1", "from": [{"consumer": "bob"}, {"service": "payments"}]},
   {"name": "a/2", "from": [{"consumer": "anybody"}], "to": {"paths": ["/open"], "methods": ["GET"]}},
   {"name": "a/3", "when": [{"claimPath": ["vip"], "op": "NOT_EXISTS"}, {"claimPath": ["old"], "op": "EXISTS"}]}]}`

// Deny comes before allow; on a restricted route what no rule allows is denied.
func TestAuthorize(t *testing.T) {
	rules := rule("") + "," + rule(`"issuer": "ci", "consumers": [
	  {"consumer": "bob", "when": [{"claimPath": ["org"], "op": "IN", "values": ["b"]}, {"claimPath": ["x"], "op": "NOT_EXISTS"}]},
	  {"consumer": "anybody", "when": []}]`) + "," + kongRule
	rs := ready(t, service(`{"match": {}, "authentication": {"mode": "OPTIONAL", "anonymousConsumer": "anybody", "rules": [`+rules+`]}, `+authz+`}`))
	ci := func(changes ...any) string {
		return bearer(sign(`{"alg":"HS256","kid":"c1"}`, claimsOf(append([]any{"iss", "https://ci.example"}, changes...)...), secretB))
	}
	pay := bearer(sign(hsHeader, `{"iss":"key-pay","sub":"spiffe://mesh.local/payments"}`, secretA))
	bob := bearer(sign(hsHeader, `{"iss":"key-bob"}`, secretB))
	for name, tt := range map[string]struct {
		path, field, want string
		caller            Caller
	}{
		"issuer":             {"/", bearer(jwt()), "allowed", Caller{Issuer: "sts", Iss: "https://sts.example", Subject: "alice"}},
		"denied subject":     {"/", bearer(jwt("sub", "mallory")), "consumer_denied[d/0]", Caller{Issuer: "sts", Iss: "https://sts.example", Subject: "mallory"}},
		"denied, two rules":  {"/admin/", bearer(jwt("sub", "mallory")), "consumer_denied[d/0]", Caller{Issuer: "sts", Iss: "https://sts.example", Subject: "mallory"}},
		"same sub, other":    {"/", ci("sub", "mallory", "org", "b"), "allowed", Caller{Issuer: "ci", Iss: "https://ci.example", Subject: "mallory", Consumer: "bob"}},
		"denied path":        {"/admin/x", bearer(jwt()), "consumer_denied[d/1]", Caller{Issuer: "sts", Iss: "https://sts.example", Subject: "alice"}},
		"but for one":        {"/admin/x", bearer(jwt("sub", "root")), "allowed", Caller{Issuer: "sts", Iss: "https://sts.example", Subject: "root"}},
		"but for a service":  {"/admin/x", pay, "allowed", Caller{Service: "payments", Iss: "key-pay", Subject: "spiffe://mesh.local/payments", Credential: "key-pay"}},
		"denied scope":       {"/", bearer(jwt("scope", "a banned b")), "consumer_denied[d/2]", Caller{Issuer: "sts", Iss: "https://sts.example", Subject: "alice"}},
		"not allowed":        {"/", bearer(jwt("scope", "guest")), "consumer_denied", Caller{Issuer: "sts", Iss: "https://sts.example", Subject: "alice"}},
		"consumer of claims": {"/", ci("org", []string{"a", "b"}), "allowed", Caller{Issuer: "ci", Iss: "https://ci.example", Subject: "alice", Consumer: "bob"}},
		"other consumer":     {"/", ci("org", "b", "x", 1), "consumer_denied", Caller{Issuer: "ci", Iss: "https://ci.example", Subject: "alice", Consumer: "anybody"}},
		"its path":           {"/open", ci("x", 1), "allowed", Caller{Issuer: "ci", Iss: "https://ci.example", Subject: "alice", Consumer: "anybody"}},
		"credential":         {"/", bob, "allowed", Caller{Iss: "key-bob", Consumer: "bob", Credential: "key-bob"}},
		"claims alone":       {"/", ci("x", 1, "old", 1), "allowed", Caller{Issuer: "ci", Iss: "https://ci.example", Subject: "alice", Consumer: "anybody"}},
		"anonymous":          {"/open", "x: y", "allowed", Caller{Consumer: "anybody", Anonymous: true}},
		"anonymous, no":      {"/", "x: y", "consumer_denied", Caller{Consumer: "anybody", Anonymous: true}},
		"anonymous, admin":   {"/admin/", "x: y", "consumer_denied[d/1]", Caller{Consumer: "anybody", Anonymous: true}},
	} {
		t.Run(name, func(t *testing.T) {
			d := check(t, rs, get(tt.path, tt.field), tt.want)
			if diff := cmp.Diff(tt.caller, d.Caller); diff != "" {
				t.Errorf("caller (-want +got):\n%s", diff)
			}
		})
	}
	post := get("/open")
	post.Method = "POST"
	check(t, rs, post, "consumer_denied")
}

// Without rules a restricted route refuses everybody.
func TestRestrictedWithoutRules(t *testing.T) {
	rs := ready(t, oneRoute("STRICT", rule(""), `, "authorization": {"restricted": true}`))
	check(t, rs, get("/", bearer(jwt())), "consumer_denied")
	check(t, rs, get("/"), "token_missing")
}

// What is observed never refuses and never changes the caller.
func TestObserved(t *testing.T) {
	deny := `{"deny": [{"name": "o/0", "from": [{"issuer": "sts"}]}]}`
	strictCI := `{"mode": "STRICT", "rules": [` + rule(`"issuer": "ci"`) + `]}`
	for name, tt := range map[string]struct{ route, field, want string }{
		"authorization":        {`"authentication": {"mode": "STRICT", "rules": [` + rule("") + `]}, "observedAuthorization": ` + deny, bearer(jwt()), "allowed, observed consumer_denied[o/0]"},
		"not refused":          {`"authentication": {"mode": "OPTIONAL", "rules": [` + rule("") + `]}, "observedAuthorization": ` + deny, "x: y", "allowed"},
		"restricted":           {`"authentication": {"mode": "OPTIONAL", "rules": [` + rule("") + `]}, "observedAuthorization": {"restricted": true}`, "x: y", "allowed, observed consumer_denied"},
		"refused before":       {`"authentication": {"mode": "STRICT", "rules": [` + rule("") + `]}, "observedAuthorization": ` + deny, "x: y", "token_missing"},
		"denied before":        {`"authentication": {"mode": "STRICT", "rules": [` + rule("") + `]}, "authorization": {"restricted": true}, "observedAuthorization": ` + deny, bearer(jwt()), "consumer_denied"},
		"authentication":       {`"authentication": {"mode": "STRICT", "rules": [` + rule("") + `]}, "observedAuthentication": ` + strictCI, bearer(jwt()), "allowed, observed issuer_unknown"},
		"claims":               {`"authentication": {"mode": "OFF"}, "observedAuthentication": {"mode": "OPTIONAL", "rules": [` + rule(`"requiredClaims": ["x"]`) + `]}`, bearer(jwt()), "allowed, observed claim_missing"},
		"hard claims":          {`"authentication": {"mode": "OFF"}, "observedAuthentication": {"mode": "OPTIONAL", "rules": [` + rule("") + `]}`, bearer(jwt("sub", "\n")), "allowed, observed subject_malformed"},
		"permissive":           {`"authentication": {"mode": "OFF"}, "observedAuthentication": {"mode": "PERMISSIVE", "rules": [` + rule(`"requiredClaims": ["x"]`) + `]}`, bearer(jwt("sub", "\n")), "allowed"},
		"both":                 {`"authentication": {"mode": "STRICT", "rules": [` + rule("") + `]}, "observedAuthentication": ` + strictCI + `, "observedAuthorization": ` + deny, bearer(jwt()), "allowed, observed issuer_unknown"},
		"observe, then denied": {`"authentication": {"mode": "STRICT", "observe": true, "rules": [` + rule("") + `]}, "authorization": {"restricted": true}`, "x: y", "consumer_denied, observed token_missing"},
		"observe and observed": {`"authentication": {"mode": "STRICT", "observe": true, "rules": [` + rule("") + `]}, "observedAuthorization": {"restricted": true}`, "x: y", "allowed, observed token_missing"},
	} {
		t.Run(name, func(t *testing.T) {
			check(t, ready(t, service(`{"match": {}, `+tt.route+`}`)), get("/", tt.field), tt.want)
		})
	}
}
