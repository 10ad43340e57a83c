package ruleset

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/watchword-mesh/watchword/dataplane/reason"
)

// drawRule makes token rules that look at the places that drawRequest fills.
func drawRule(t *rapid.T) string {
	pick := func(label string, choices ...string) string { return rapid.SampledFrom(choices).Draw(t, label) }
	if pick("kind", "issuer", "issuer", "set") == "set" {
		return kongRule
	}
	more := []string{
		fmt.Sprintf(`"issuer": %q`, pick("issuer", "sts", "ci")),
		fmt.Sprintf(`"expiration": %q`, pick("expiration", "REQUIRED", "IF_PRESENT", "NOT_CHECKED")),
		fmt.Sprintf(`"notBefore": %q`, pick("not before", "REQUIRED", "IF_PRESENT", "NOT_CHECKED")),
		pick("where", `"fromHeaders": [{"name": "authorization", "prefix": "Bearer "}]`, `"fromParams": [{"name": "jwt"}], "fromHeaders": [{"name": "x-tok"}]`, `"fromCookies": [{"name": "jwt"}], "fromForm": [{"name": "jwt"}]`),
		pick("more", `"types": ["at+jwt"]`, `"requiredClaims": ["jti"]`, `"maxLifetime": "60s"`, `"audienceUnchecked": true`, `"forwardOriginalToken": true`,
			`"outputClaims": [{"claimPath": ["sub"], "header": "x-sub"}, {"claimPath": ["sub"], "query": "sub"}, {"claimPath": ["sub"], "cookie": "sub"}]`,
			`"consumers": [{"consumer": "bob", "when": [{"claimPath": ["sub"], "op": "IN", "values": ["alice"]}]}]`),
	}
	return rule(strings.Join(more, ", "))
}

func drawAuthorization(t *rapid.T, label string) string {
	rule := rapid.SampledFrom([]string{
		`{"name": "p/0", "from": [{"issuer": "sts"}]}`, `{"name": "p/1", "from": [{"consumer": "bob"}, {"service": "payments"}]}`, `{"name": "p/2", "to": {"paths": ["/x/*"]}}`,
		`{"name": "p/3", "notFrom": [{"issuer": "sts", "subject": "alice"}]}`, `{"name": "p/4", "when": [{"claimPath": ["scope"], "op": "NOT_IN", "values": ["w"]}]}`, `{"name": "p/5"}`,
	})
	list := func(name string) string {
		return strings.Join(rapid.SliceOfN(rule, 0, 2).Draw(t, label+" "+name), ",")
	}
	return fmt.Sprintf(`{"restricted": %v, "deny": [%s], "allow": [%s]}`, rapid.Bool().Draw(t, label+" restricted"), list("deny"), list("allow"))
}

func drawRoute(t *rapid.T, name, match string) string {
	mode := rapid.SampledFrom([]string{"STRICT", "STRICT", "OPTIONAL", "PERMISSIVE", "OFF"}).Draw(t, "mode")
	var rules []string
	for range rapid.IntRange(1, 3).Draw(t, "rules") {
		rules = append(rules, drawRule(t))
	}
	more := ""
	if rapid.Bool().Draw(t, "anonymous") {
		more = `"anonymousConsumer": "anybody", "consumerHeaders": [{"attribute": "NAME", "header": "x-consumer"}],`
	}
	return fmt.Sprintf(`{"name": %q, "match": {%s}, "authentication": {"mode": %q, "observe": %v, "allowScripts": %v, %s "rules": [%s]}, "authorization": %s, "observedAuthorization": %s}`,
		name, match, mode, rapid.IntRange(0, 4).Draw(t, "observe") == 0, rapid.Bool().Draw(t, "scripts"), more, strings.Join(rules, ","), drawAuthorization(t, "authorization"), drawAuthorization(t, "observed"))
}

func drawRuleset(t *rapid.T) string {
	return service(drawRoute(t, "x", `"paths": ["/x/*"]`) + "," + drawRoute(t, "", ""))
}

// drawToken makes tokens that are right, and some that are not.
func drawToken(t *rapid.T) string {
	n := now.Unix()
	pick := func(label string, choices ...any) any { return rapid.SampledFrom(choices).Draw(t, label) }
	// Mostly right, so that most of the way is gone.
	claims := map[string]any{
		"iss":   pick("iss", "https://sts.example", "https://sts.example", "https://ci.example", "key-bob", "key-pay", "x"),
		"sub":   pick("sub", "alice", "alice", "eve", "spiffe://mesh.local/payments", "a\r\nb", json.Number("7")),
		"aud":   pick("aud", "orders", "orders", []any{"x", "orders"}, "x"),
		"exp":   pick("exp", n+30, n+30, n+300, n-61, 0, json.Number("1e300")),
		"nbf":   pick("nbf", n, n, n+61),
		"scope": pick("scope", "r w", "r", []any{"w"}),
		"jti":   "j",
	}
	delete(claims, pick("left out", "", "", "", "exp", "nbf", "sub", "jti", "aud").(string))
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	header := pick("header", hsHeader, hsHeader, `{"alg":"HS256"}`, `{"alg":"HS256","kid":"c1"}`, `{"alg":"HS256","kid":"z"}`, `{"alg":"none"}`, `{"alg":"HS256","crit":["x"]}`).(string)
	return sign(header, string(text), pick("secret", secretA, secretA, secretB, "wrong").(string))
}

// drawRequest puts tokens, or nothing, at the places that rules look at.
func drawRequest(t *rapid.T) Request { return drawRequestWith(t, drawToken) }

func drawRequestWith(t *rapid.T, drawToken func(*rapid.T) string) Request {
	r := get(rapid.SampledFrom([]string{"/", "/x/a", "/x/%2e", "/y?a=b"}).Draw(t, "path"))
	for _, place := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"authorization", "x-tok", "query", "cookie", "form", "spoof"}), 0, 4, rapid.ID).Draw(t, "places") {
		token := ""
		if place != "spoof" {
			token = drawToken(t)
		}
		switch place {
		case "authorization":
			r.Header = append(r.Header, Field{"Authorization", "Bearer " + token})
		case "x-tok":
			r.Header = append(r.Header, Field{"X-Tok", token})
		case "query":
			separator := "?"
			if strings.Contains(r.Path, "?") {
				separator = "&"
			}
			r.Path += separator + "jwt=" + token
		case "cookie":
			r.Header = append(r.Header, Field{"Cookie", "a=b; jwt=" + token})
		case "form":
			r.Method, r.Body = "POST", []byte("jwt="+token+"&a=b")
			r.Header = append(r.Header, Field{"Content-Type", "application/x-www-form-urlencoded"})
		case "spoof":
			r.Header = append(r.Header, spoofed...)
		}
	}
	return r
}

// spoofed are headers that only we may set, on whatever route.
var spoofed = []Field{{"X-Watchword-Caller", "spoofed"}, {"x_watchword_issuer", "spoofed"}, {"X-WATCHWORD-x", "spoofed"}, {"X-Watchword_Consumer", "spoofed"}}

func drawCase(t *rapid.T) (*Ruleset, Request) { return ready(t, drawRuleset(t)), drawRequest(t) }

// tokensIn are the texts in a request that look like tokens.
func tokensIn(r Request) []string {
	var out []string
	for part := range strings.FieldsFuncSeq(fieldsOf(r)+" "+r.Path+" "+string(r.Body), func(c rune) bool { return strings.ContainsRune(" \n=&;?", c) }) {
		if strings.Count(part, ".") == 2 && len(part) > 40 {
			out = append(out, part)
		}
	}
	return out
}

// withoutTokens takes all tokens out of a request.
func withoutTokens(r Request) Request {
	for _, token := range tokensIn(r) {
		r.Path = strings.ReplaceAll(r.Path, token, "")
		r.Body = []byte(strings.ReplaceAll(string(r.Body), token, ""))
		fields := make([]Field, len(r.Header))
		for i, f := range r.Header {
			fields[i] = Field{f.Name, strings.ReplaceAll(f.Value, token, "")}
		}
		r.Header = fields
	}
	return r
}

// What holds for every ruleset and every request.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := drawRuleset(t)
		rs, r := ready(t, text), drawRequest(t)
		before := seen(r)
		d := rs.Evaluate(r, now)
		fail := func(what string) {
			_, steps := rs.Explain(r, now)
			t.Fatalf("%s: %+v\nrequest\n%s\nruleset\n%s\nsteps:\n%s", what, d, before, text, showSteps(steps))
		}
		if seen(r) != before {
			fail("the request was changed")
		}
		if diff := cmp.Diff(d, rs.Evaluate(r, now)); diff != "" {
			fail("a second time it is decided otherwise: " + diff)
		}
		switch {
		case d.Allowed != (d.Reason == ""), !d.Allowed && !reason.Known(d.Reason), d.Observed != "" && !reason.Known(d.Observed):
			fail("a word without a refusal, or the reverse")
		case d.Allowed != (d.Status == 0), !d.Allowed && d.Forward.Path != "":
			fail("both an answer and a request to go on, or neither")
		case strings.Contains(seen(d.Forward), "spoofed"):
			fail("a header that only we may set went through")
		case strings.ContainsAny(fieldsValues(d.Forward), "\r\n\x00"):
			fail("a control character went into a header")
		}
		for _, secret := range tokensIn(r) {
			if strings.Contains(d.Body+d.WWWAuthenticate+d.GRPCMessage, secret) {
				fail("the answer shows the token")
			}
		}
		route := rs.routes[1]
		if d.Route != "" {
			route = rs.routes[0]
		}
		if d.Allowed && d.Caller.Iss == "" && d.Caller.Issuer == "" && route.enforced.mode.String() == "STRICT" && !route.enforced.observe && d.Caller.Credential == "" {
			fail("a STRICT route let in somebody unknown")
		}
		if d.Allowed && route.authorization.restricted && len(route.authorization.allow) == 0 {
			fail("a restricted route that allows nobody let in somebody")
		}
		bare := rs.Evaluate(withoutTokens(r), now)
		if bare.Allowed && route.enforced.mode.String() == "STRICT" && !route.enforced.observe {
			fail("a STRICT route let in the request without its tokens")
		}
		// Deny beats allow: an allow rule more never changes what a deny rule refuses.
		if d.Rule != "" {
			route.authorization.allow = append(route.authorization.allow, authorizationRule{name: "all"})
			if again := rs.Evaluate(r, now); again.Rule != d.Rule {
				fail("an allow rule beats a deny rule")
			}
		}
	})
}

func fieldsValues(r Request) string {
	var b strings.Builder
	for _, f := range r.Header {
		b.WriteString(f.Name + f.Value)
	}
	return b.String()
}

// A token that no key signed lets nobody in, wherever it is and whatever it says.
func TestNobodySigned(t *testing.T) {
	rs := ready(t, oneRoute("STRICT", rule(`"fromHeaders": [{"name": "authorization", "prefix": "Bearer "}, {"name": "x"}], "fromParams": [{"name": "t"}], "fromCookies": [{"name": "c"}]`)+","+kongRule, ""))
	rapid.Check(t, func(t *rapid.T) {
		good := jwt()
		pieces := texts("Bearer ", "bearer ", ".", "..", "=", ";", ",", " ", "\t", "\"", "%2e", good[:40], good[40:80], strings.Split(good, ".")[0], strings.Split(good, ".")[1], "e30", "eyJhbGciOiJub25lIn0", b64(`{"alg":"HS256"}`))
		s := pieces.Draw(t, "text")
		r := get("/?t="+s, "authorization: "+s, "x: "+s, "cookie: c="+s)
		if d := rs.Evaluate(r, now); d.Allowed {
			t.Fatalf("%q lets in %+v", s, d.Caller)
		}
	})
}
