package ruleset

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// forwarded is what the service sees: the request line, the fields, the body.
func seen(r Request) string {
	s := r.Method + " " + r.Path + "\n" + fieldsOf(r)
	if len(r.Body) > 0 {
		s += "\n" + string(r.Body)
	}
	return s
}

func post(path, body string, fields ...string) Request {
	r := get(path, append(fields, "content-type: application/x-www-form-urlencoded", "content-length: 999")...)
	r.Method, r.Body = "POST", []byte(body)
	return r
}

const outputs = `"outputClaims": [
 {"claimPath": ["sub"], "header": "x-sub"}, {"claimPath": ["email"], "header": "x_mail", "keepExisting": true},
 {"claimPath": ["roles"], "header": "x-roles"}, {"claimPath": ["o", "n"], "query": "n m"},
 {"claimPath": ["tier"], "cookie": "tier"}, {"claimPath": ["note"], "form": "note"}]`

// The request as it goes on: what the caller may not say is gone, the token too,
// and what its claims say is there.
func TestForward(t *testing.T) {
	locations := `"fromHeaders": [{"name": "Authorization", "prefix": "Bearer "}, {"name": "x-tok"}], "fromParams": [{"name": "t"}], "fromCookies": [{"name": "c"}], "fromForm": [{"name": "f"}]`
	tok := jwt("email", "a@b", "roles", []string{"r"}, "o", map[string]any{"n": 7}, "tier", "gold", "note", "x&y z")
	base := rule(locations + ", " + outputs)
	for name, tt := range map[string]struct {
		rules, more string
		r           Request
		want        string
	}{
		"header": {
			rules: base,
			r:     get("/a?x=1&n+m=spoofed&y", "X-Watchword-Caller: eve", "x_watchword_any: eve", "X-Sub: eve", "x_sub: eve", "x-mail: kept", "x-other: kept", bearer(tok)),
			want: `GET /a?x=1&y&n%20m=7
x-mail: kept
x-other: kept
x-sub: alice
x_mail: a@b
x-roles: WyJyIl0=
cookie: tier=gold
x-watchword-caller: alice
x-watchword-issuer: https://sts.example
`,
		},
		"in a query and a cookie, the order of names": {
			rules: rule(locations + `, "outputClaims": [{"claimPath": ["tier"], "query": "z"}, {"claimPath": ["tier"], "cookie": "z"}, {"claimPath": ["sub"], "query": "a"}, {"claimPath": ["sub"], "cookie": "a"}]`),
			r:     get("/a", bearer(tok)),
			want:  "GET /a?a=alice&z=gold\ncookie: a=alice; z=gold\nx-watchword-caller: alice\nx-watchword-issuer: https://sts.example\n",
		},
		"query, twice": {
			rules: base,
			r:     get("/a?t=" + tok + "&t=other&%74=third&z=%41"),
			want: `GET /a?z=%41&n%20m=7
x-sub: alice
x_mail: a@b
x-roles: WyJyIl0=
cookie: tier=gold
x-watchword-caller: alice
x-watchword-issuer: https://sts.example
`,
		},
		"cookie stays without scripts": {
			rules: rule(locations), r: get("/a", "cookie: a=1; c="+tok+"; b=2"),
			want: "GET /a\ncookie: a=1; c=" + tok + "; b=2\nx-watchword-caller: alice\nx-watchword-issuer: https://sts.example\n",
		},
		"cookie goes with scripts": {
			rules: base, more: `"allowScripts": true,`, r: get("/a", "cookie: a=1;  c="+tok+"; tier=spoofed; c=x", "Cookie: c=y"),
			want: `GET /a?n%20m=7
cookie: a=1; tier=gold
x-sub: alice
x_mail: a@b
x-roles: WyJyIl0=
x-watchword-caller: alice
x-watchword-issuer: https://sts.example
`,
		},
		"form": {
			rules: rule(locations + `, "payloadHeader": "x-payload", "outputClaims": [{"claimPath": ["note"], "form": "note"}]`),
			r:     post("/a", "a=b&f="+tok+"&note=spoofed&&z", "x-payload: eve"),
			want: "POST /a\ncontent-type: application/x-www-form-urlencoded\ncontent-length: 21\nx-payload: " + strings.Split(tok, ".")[1] +
				"\nx-watchword-caller: alice\nx-watchword-issuer: https://sts.example\n\na=b&&z&note=x%26y%20z",
		},
		"token stays": {
			rules: rule(locations + `, "forwardOriginalToken": true`), more: `"allowScripts": true,`,
			r:    get("/a?t="+tok, bearer(tok), "x-tok: "+tok, "cookie: c="+tok),
			want: "GET /a?t=" + tok + "\n" + bearer(tok) + "\nx-tok: " + tok + "\ncookie: c=" + tok + "\nx-watchword-caller: alice\nx-watchword-issuer: https://sts.example\n",
		},
		"several places": {
			rules: rule(locations), more: `"allowScripts": true,`,
			r:    get("/a?t="+tok+"&b", bearer(tok), "x-tok: "+tok, "X-Tok: "+tok, "cookie: c="+tok+"; d"),
			want: "GET /a?b\ncookie: d\nx-watchword-caller: alice\nx-watchword-issuer: https://sts.example\n",
		},
		"only of the winning rule": {
			rules: rule(`"issuer": "ci", "fromHeaders": [{"name": "x-ci"}]`) + "," + rule(locations),
			r:     get("/a", bearer(tok), "x-ci: broken"),
			want:  "GET /a\nx-ci: broken\nx-watchword-caller: alice\nx-watchword-issuer: https://sts.example\n",
		},
		"absent claims": {
			rules: base, r: get("/a?n%20m=spoofed", bearer(jwt("sub", nil)), "cookie: tier=spoofed"),
			want: "GET /a\nx-watchword-issuer: https://sts.example\n",
		},
		"blanks around a claim": {
			rules: rule(`"outputClaims": [{"claimPath": ["note"], "query": "n"}]`), r: get("/a", bearer(jwt("note", " a b "))),
			want: "GET /a?n=%20a%20b%20\nx-watchword-caller: alice\nx-watchword-issuer: https://sts.example\n",
		},
		"credential": {
			rules: kongRule,
			more:  `"consumerHeaders": [{"attribute": "USERNAME", "header": "x-consumer-username"}, {"attribute": "ID", "header": "x-consumer-id"}, {"attribute": "CUSTOM_ID", "header": "x-consumer-custom-id"}, {"attribute": "NAME", "header": "x-name"}, {"attribute": "CREDENTIAL", "header": "x-credential-identifier"}, {"attribute": "ANONYMOUS", "header": "x-anonymous-consumer"}],`,
			r:     get("/a?jwt="+sign(hsHeader, `{"iss":"key-bob"}`, secretB), "x-anonymous-consumer: true", "X_Consumer_Id: eve"),
			want: `GET /a
x-consumer-username: bobby
x-consumer-id: b-1
x-consumer-custom-id: 7
x-name: bob
x-credential-identifier: key-bob
x-watchword-issuer: key-bob
x-watchword-consumer: bob
`,
		},
		"credential of a service": {
			rules: kongRule,
			more:  `"consumerHeaders": [{"attribute": "CREDENTIAL", "header": "x-credential-identifier"}, {"attribute": "NAME", "header": "x-name"}],`,
			r:     get("/a", bearer(sign(hsHeader, `{"iss":"key-pay","sub":"spiffe://mesh.local/payments"}`, secretA)), "x-name: eve"),
			want: `GET /a
x-credential-identifier: key-pay
x-watchword-caller: spiffe://mesh.local/payments
x-watchword-issuer: key-pay
`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			rs := ready(t, strings.Replace(oneRoute("STRICT", tt.rules, ""), `"mode":`, tt.more+`"mode":`, 1))
			before := seen(tt.r)
			d := check(t, rs, tt.r, "allowed")
			if diff := cmp.Diff(tt.want, seen(d.Forward)); diff != "" {
				t.Errorf("request\n%s\n(-want +got):\n%s", before, diff)
			}
			if diff := cmp.Diff(before, seen(tt.r)); diff != "" {
				t.Errorf("the caller's own request was changed (-before +after):\n%s", diff)
			}
		})
	}
}

// What is ours is stripped on all routes, also on one that asks for nothing, and
// a token that did not verify stays where it was.
func TestForwardWithoutToken(t *testing.T) {
	rs := ready(t, service(`{"match": {"paths": ["/off"]}, "authentication": {"mode": "OFF"}},
	 {"match": {"paths": ["/permissive"]}, "authentication": {"mode": "PERMISSIVE", "anonymousConsumer": "anybody", "rules": [`+rule(`"outputClaims": [{"claimPath": ["a"], "query": "a"}]`)+`],
	  "consumerHeaders": [{"attribute": "ANONYMOUS", "header": "x-anon"}, {"attribute": "CREDENTIAL", "header": "x-cred"}]}},
	 {"match": {}, "authentication": {"mode": "STRICT", "rules": [`+rule(outputs+`, "payloadHeader": "x-payload"`)+`]}}`))
	spoofed := []string{"x-sub: 1", "X_ROLES: 2", "x-payload: 3", "x-anon: 4", "x-watchword-consumer: 5", "x-mail: stays", "x-watchword-: stays", "x-cred: 6", bearer("broken")}
	const stays = "x-mail: stays\nx-watchword-: stays\nauthorization: Bearer broken\n"
	for path, want := range map[string]string{
		"/off?a=1&b":      "GET /off?b\n" + stays,
		"/off?n+m=1":      "GET /off\n" + stays, // that of the last route
		"/permissive?a=1": "GET /permissive\n" + stays + "x-anon: true\nx-watchword-consumer: anybody\n",
	} {
		d := check(t, rs, get(path, spoofed...), "allowed")
		if diff := cmp.Diff(want, seen(d.Forward)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

// What a caller says in the place of a claim goes away: in a query and a cookie on
// every route, as in a header, and in a form where a rule fills that field (other
// forms are never read). What is only observed takes nothing away.
func TestForwardOutputPlaces(t *testing.T) {
	out := func(name string) string {
		return `"outputClaims": [{"claimPath": ["n"], "query": "q` + name + `"}, {"claimPath": ["n"], "cookie": "c` + name + `"}, {"claimPath": ["n"], "form": "f` + name + `"}, {"claimPath": ["n"], "header": "h` + name + `"}]`
	}
	rs := ready(t, service(`{"match": {"paths": ["/off"]}, "authentication": {"mode": "OFF"},
	  "observedAuthentication": {"mode": "STRICT", "rules": [`+rule(out("3"))+`]}},
	 {"match": {"paths": ["/1"]}, "authentication": {"mode": "OPTIONAL", "rules": [`+rule(out("1"))+`]}},
	 {"match": {}, "authentication": {"mode": "OPTIONAL", "rules": [`+rule(out("2"))+`]}}`))
	for path, want := range map[string]string{
		"/off": "POST /off?q3=c\ncookie: c3=c\nh3: c\n" + formFields + "999\n\nf1=a&f2=b&f3=c",
		"/1":   "POST /1?q3=c\ncookie: c3=c\nh3: c\n" + formFields + "9\n\nf2=b&f3=c",
		"/2":   "POST /2?q3=c\ncookie: c3=c\nh3: c\n" + formFields + "9\n\nf1=a&f3=c",
	} {
		r := post(path+"?q1=a&q2=b&q3=c", "f1=a&f2=b&f3=c", "cookie: c1=a; c2=b; c3=c", "h1: a", "h2: b", "h3: c")
		d := check(t, rs, r, "allowed"+map[string]string{"/off": ", observed token_missing"}[path])
		if diff := cmp.Diff(want, seen(d.Forward)); diff != "" {
			t.Errorf("request\n%s\n(-want +got):\n%s", seen(r), diff)
		}
	}
}

const formFields = "content-type: application/x-www-form-urlencoded\ncontent-length: "

// Headers that the ruleset lists are stripped too: a service trusts what another
// policy of it once wrote.
func TestStrippedHeaders(t *testing.T) {
	rs := ready(t, strings.Replace(oneRoute("OFF", "", ""), `"routes"`, `"strippedHeaders": ["x-user-id"], "routes"`, 1))
	d := check(t, rs, get("/", "X_User_Id: eve", "x-user-id: eve", "x-user: stays"), "allowed")
	if want, got := "GET /\nx-user: stays\n", seen(d.Forward); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A token is looked for after the headers that only we may set are gone.
func TestTokenInStrippedHeader(t *testing.T) {
	rs := ready(t, oneRoute("STRICT", rule(`"fromHeaders": [{"name": "x-watchword-token"}, {"name": "x-sub"}], `+outputs), ""))
	check(t, rs, get("/", "x-watchword-token: "+jwt(), "x-sub: "+jwt()), "token_missing")
}

// Two Authorization fields are one value, as in Envoy.
func TestTwoAuthorizationFields(t *testing.T) {
	rs := ready(t, oneRoute("STRICT", rule(""), ""))
	for _, tt := range []struct{ first, second, want string }{
		{"Bearer " + jwt(), "Bearer " + jwt(), "token_malformed"},
		{"Bearer " + jwt(), "Basic x", "token_malformed"},
		{"Basic x", "Bearer " + jwt(), "token_missing"},
		{"bearer " + jwt(), "", "token_missing"},
	} {
		check(t, rs, get("/", "authorization: "+tt.first, "Authorization: "+tt.second), tt.want)
	}
}
