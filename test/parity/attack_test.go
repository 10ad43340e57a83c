package parity

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

func field(name, value string) ruleset.Field { return ruleset.Field{Name: name, Value: value} }

func location(name, prefix string) *dataplanev1.TokenLocation {
	return &dataplanev1.TokenLocation{Name: name, Prefix: prefix}
}

// everywhere lets callers in without a token, reads tokens at all kinds of places,
// under names that are patterns to Lua, and puts claims into all kinds of places.
func everywhere(_ *bench, r *dataplanev1.Route, rule *dataplanev1.TokenRule) {
	r.Authentication.Mode, r.Authentication.AllowScripts = dataplanev1.Authentication_OPTIONAL, true
	rule.ForwardOriginalToken = false
	rule.FromParams = []*dataplanev1.TokenLocation{location("tok", ""), location("p%t[k-", "Bearer ")}
	rule.FromCookies = []*dataplanev1.TokenLocation{location("session", ""), location("p-c", "v1.")}
	rule.FromForm = []*dataplanev1.TokenLocation{location("ftok", ""), location("pf[%]", "JWT ")}
	rule.OutputClaims = []*dataplanev1.OutputClaim{
		{ClaimPath: []string{"o"}, Header: "x-o"},
		{ClaimPath: []string{"o"}, Header: "x-also", KeepExisting: true},
		{ClaimPath: []string{"o"}, Query: "q[0]-%a"},
		{ClaimPath: []string{"o"}, Query: "out"},
		{ClaimPath: []string{"o"}, Cookie: "cout"},
		{ClaimPath: []string{"o"}, Form: "fout"},
	}
}

func form(body string, fields ...ruleset.Field) ruleset.Request {
	r := get(append([]ruleset.Field{field("Content-Type", "application/x-www-form-urlencoded")}, fields...)...)
	r.Method, r.Body = "POST", []byte(body)
	return r
}

func path(path string) ruleset.Request {
	r := get()
	r.Path = path
	return r
}

// with fills the good token in for TOKEN.
func with(f func(token string) ruleset.Request) func(b *bench) ruleset.Request {
	return func(b *bench) ruleset.Request { return f(b.good()) }
}

// attack is a request that was, or could have been, more than it should be.
type attack struct {
	testCase
	path, body string // as the service has to see them; "" for whatever
}

var attacks = []attack{
	// Cookies.
	{testCase: testCase{name: "output in a second line of cookies", service: everywhere, request: func(*bench) ruleset.Request { return get(field("Cookie", "a=1"), field("Cookie", "cout=forged")) },
		saw: map[string]string{"Cookie": "a=1"}}},
	{testCase: testCase{name: "token in a second line of cookies", service: everywhere, request: with(func(token string) ruleset.Request {
		return get(field("Cookie", "a=1"), field("Cookie", "session="+token))
	}), saw: map[string]string{"Cookie": "a=1", "X-Watchword-Caller": "alice"}}},
	{testCase: testCase{name: "output cookie with a blank", service: everywhere, request: func(*bench) ruleset.Request { return get(field("Cookie", "cout =forged; \tcout=forged; cout; a=1")) },
		saw: map[string]string{"Cookie": "a=1"}}},
	{testCase: testCase{name: "token behind a cookie without value", service: everywhere, request: with(func(token string) ruleset.Request {
		return get(field("Cookie", "p-c; p-c=v1."+token))
	}), saw: map[string]string{"Cookie": "", "X-Watchword-Caller": "alice"}}},
	{testCase: testCase{name: "other cookies stay as they are", service: everywhere, request: func(*bench) ruleset.Request { return get(field("Cookie", `a="x y"; b= 2; c`)) },
		saw: map[string]string{"Cookie": `a="x y"; b= 2; c`}}},

	// Queries and forms.
	{testCase: testCase{name: "prefix with a plus", service: everywhere, request: with(func(token string) ruleset.Request { return path("/?p%25t%5Bk-=Bearer+" + token) }),
		saw: map[string]string{"X-Watchword-Caller": "alice"}}, path: "/"},
	{testCase: testCase{name: "outputs in any spelling", service: everywhere, request: func(*bench) ruleset.Request { return path("/?o%75t=1&out&q%5b0%5d-%25a=2&q[0]-%a=3&b=%zz") }}, path: "/?b=%zz"},
	{testCase: testCase{name: "form as it is", service: everywhere, request: func(*bench) ruleset.Request { return form("a=1&&b=2\n& c=3 ") }}, body: "a=1&&b=2\n& c=3 "},
	{testCase: testCase{name: "form but for an output", service: everywhere, request: func(*bench) ruleset.Request { return form("a= x &fo%75t=forged&&fout&b=\x00") }}, body: "a= x &&b=\x00"},
	{testCase: testCase{name: "form of two types", service: everywhere, request: func(*bench) ruleset.Request {
		return form("fout=forged&a=1", field("Content-Type", "text/plain"))
	}}, body: "a=1"},
	{testCase: testCase{name: "no form", service: everywhere, request: func(*bench) ruleset.Request {
		r := form("fout=1")
		r.Header[0].Value += "x"
		return r
	}}, body: "fout=1"},

	// Headers.
	{testCase: testCase{name: "two lines of a header that the script reads", service: everywhere, request: with(func(token string) ruleset.Request {
		return get(field("X-Token", token), field("X-Token", token))
	}), saw: map[string]string{"X-Token": "", "X-Watchword-Caller": "alice"}}},
	{testCase: testCase{name: "one of them bad", service: everywhere, request: with(func(token string) ruleset.Request {
		return get(field("X-Token", token), field("X-Token", "x.y.z"))
	}), want: reason.TokenMalformed}},

	// Claims that become something else on their way.
	{testCase: testCase{name: "scope with a line break", service: scoped, request: as(map[string]any{"scope": "a\r\nx-evil: 1"}), want: reason.ClaimMalformed}},
	{testCase: testCase{name: "scope that would be two cookies", service: scoped, request: as(map[string]any{"scope": "a;admin=1"}), want: reason.ClaimMalformed}},
	{testCase: testCase{name: "scope of two in a cookie", service: scoped, request: as(map[string]any{"scope": "a b"}), want: reason.ClaimMalformed}},
	{testCase: testCase{name: "scope of one", service: scoped, request: as(map[string]any{"scope": "a"}), saw: map[string]string{"X-Scope": "a", "Cookie": "scope=a"}}},
	{testCase: testCase{name: "scope of another", service: scoped, request: as(map[string]any{"scope": "ab"}), want: reason.ConsumerDenied}},
	{testCase: testCase{name: "key claim in a string of another kind", service: credentials, request: issued(`'x':'"iss":"k2"','iss':'k1'`), want: reason.TokenMalformed}},
	{testCase: testCase{name: "key claim in the header and in single quotes", service: named, request: func(b *bench) ruleset.Request {
		claims := bytes.Replace(b.claims(map[string]any{"iss": "k1"}), []byte(`"iss":"k1"`), []byte(`'iss':'k1'`), 1)
		return bearer(b.hs.token(header(map[string]any{"iss": "k2"}), claims))
	}, want: reason.TokenMalformed}},
	{testCase: testCase{name: "key claim in the header alone", service: named, request: func(b *bench) ruleset.Request {
		return bearer(b.hs.token(header(map[string]any{"iss": "k2"}), b.claims(map[string]any{"iss": absent})))
	}, saw: map[string]string{"X-Watchword-Consumer": "bob"}}},
	{testCase: testCase{name: "key claim twice", service: credentials, request: issued(`"iss":"k2","iss":"k1"`), want: reason.TokenMalformed}},
	{testCase: testCase{name: "key claim in escapes", service: named, request: issued(`"\u0069ss":"zo\u00eb\u0020\ud83d\ude00"`), saw: map[string]string{"X-Watchword-Consumer": "bob"}}},
	{testCase: testCase{name: "half an escape", service: named, request: issued(`"iss":"\ud83dk2"`), want: reason.TokenMalformed}},
	{testCase: testCase{name: "an escape that is escaped", service: named, request: issued(`"iss":"\\u006b2"`), want: reason.CredentialUnknown}},
	{testCase: testCase{name: "claims of a second token", service: forged, request: two(map[string]any{"o": "v"}, map[string]any{"o": "w;admin=1", "sub": "spiffe://mesh/web"}),
		saw: map[string]string{"X-O": "v", "X-Also": "v", "X-Sub": "alice", "Cookie": "cout=v"}}, path: "/?out=v&q%5B0%5D-%25a=v"},
	{testCase: testCase{name: "claims that only a second token has", service: forged, request: two(map[string]any{"sub": absent}, map[string]any{"o": "w\r\nx-evil: 1", "sub": "spiffe://mesh/web"}),
		saw: map[string]string{"X-O": "", "X-Also": "", "X-Sub": "", "Cookie": ""}}, path: "/"},
	{testCase: testCase{name: "claims of a second token, without scripts", service: func(b *bench, _ *dataplanev1.Route, rule *dataplanev1.TokenRule) {
		b.rs.OwnSubjects = &dataplanev1.OwnSubjects{Prefix: "spiffe://mesh/", Issuer: "https://sts.example"}
		rule.PayloadHeader = "x-payload"
	}, request: two(map[string]any{"o": "a,b"}, map[string]any{"o": "a\x00b", "sub": "spiffe://mesh/web"}), saw: map[string]string{"X-O": "a,b", "X-Sub": "alice"}}},
	{testCase: testCase{name: "claims of a second token, of no consequence", service: func(b *bench, r *dataplanev1.Route, rule *dataplanev1.TokenRule) {
		forged(b, r, rule)
		r.Authentication.Mode = dataplanev1.Authentication_PERMISSIVE
	}, request: two(map[string]any{"sub": "a\nb", "o": "v"}, map[string]any{"o": "w"}), saw: map[string]string{"X-O": "", "X-Also": "", "X-Sub": "", "Cookie": ""}}},
	{testCase: testCase{name: "list of scopes", service: scoped, request: as(map[string]any{"scope": []string{"b", "a"}})}},
}

// named finds the credential by iss, in the header where the claims have none.
func named(b *bench, r *dataplanev1.Route, rule *dataplanev1.TokenRule) {
	credentials(b, r, rule)
	rule.KeyClaim.Sources = append(rule.KeyClaim.Sources, dataplanev1.KeyClaim_HEADER)
	set := b.rs.CredentialSets[0]
	set.Credentials = append(set.Credentials, &dataplanev1.Credential{Key: "zo\u00eb \U0001f600", Keys: keysOf([]*signer{b.hs}), Consumer: "bob"})
}

// forged is everywhere, with the subject, which may not be one of the mesh.
func forged(b *bench, r *dataplanev1.Route, rule *dataplanev1.TokenRule) {
	everywhere(b, r, rule)
	rule.OutputClaims = append(rule.OutputClaims, &dataplanev1.OutputClaim{ClaimPath: []string{"sub"}, Header: "x-sub"})
	b.rs.OwnSubjects = &dataplanev1.OwnSubjects{Prefix: "spiffe://mesh/", Issuer: "https://sts.example"}
}

// two tokens; the first is who calls.
func two(first, second map[string]any) func(b *bench) ruleset.Request {
	return func(b *bench) ruleset.Request {
		return get(field("Authorization", "Bearer "+b.hs.token(header(nil), b.claims(first))), field("X-Token", b.hs.token(header(nil), b.claims(second))))
	}
}

// issued signs claims with what is written in front of the others.
func issued(text string) func(b *bench) ruleset.Request {
	return func(b *bench) ruleset.Request {
		return bearer(b.hs.token(header(nil), []byte("{"+text+`,"aud":"orders","exp":`+strconv.FormatInt(now(300), 10)+"}")))
	}
}

// scoped wants scope a, and hands it on.
func scoped(b *bench, r *dataplanev1.Route, rule *dataplanev1.TokenRule) {
	everywhere(b, r, rule)
	rule.OutputClaims = []*dataplanev1.OutputClaim{{ClaimPath: []string{"scope"}, Header: "x-scope"}, {ClaimPath: []string{"scope"}, Cookie: "scope"}, {ClaimPath: []string{"scope"}, Query: "scope"}}
	r.Authorization = &dataplanev1.Authorization{Restricted: true, Allow: []*dataplanev1.AuthorizationRule{{Name: "p/0", When: []*dataplanev1.ClaimMatch{
		{ClaimPath: []string{"scope"}, Op: dataplanev1.ClaimMatch_IN, Values: []*structpb.Value{structpb.NewStringValue("x.y"), structpb.NewStringValue("a")}},
	}}}}
}

// What was tried against the chain: all agree, and the service sees what it should.
func TestAttacks(t *testing.T) {
	b := newBench()
	plain := proto.CloneOf(b.rs)
	p := startPlanes(t)
	for _, tt := range attacks {
		t.Run(tt.name, func(t *testing.T) {
			b.rs = proto.CloneOf(plain)
			got, req := tt.play(t, b, p)
			if tt.path != "" && strings.TrimSuffix(got.Forward.Path, "?") != tt.path {
				t.Errorf("the service saw %s, want %s\n%s", got.Forward.Path, tt.path, show(req))
			}
			if tt.body != "" && got.Forward.Body != tt.body {
				t.Errorf("the service saw the body %q, want %q\n%s", got.Forward.Body, tt.body, show(req))
			}
		})
	}
}

// Whoever a request is from, it must not keep a worker busy: each of these took
// many seconds, in which the worker answered nobody.
func TestNoRequestIsSlow(t *testing.T) {
	b := newBench()
	everywhere(b, b.rs.Routes[0], b.rs.Routes[0].Authentication.Rules[0])
	p := startPlanes(t)
	b.load(t, p)
	const header, body = 50_000, 1_000_000
	for name, req := range map[string]ruleset.Request{
		"blanks in a cookie":   get(field("Cookie", "a=x"+strings.Repeat(" ", header)+"y")),
		"cookies without name": get(field("Cookie", strings.Repeat(" ;", header/2)+"\t")),
		"blanks in a form":     form("a=x" + strings.Repeat(" ", body) + "y"),
		"fields of a form":     form(strings.Repeat("%61&", body/4)),
		"parameters":           path("/?" + strings.Repeat("+&", header/2)),
	} {
		for _, c := range p.all {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				start := time.Now()
				got := c.send(t, req)
				if took := time.Since(start); took > 4*time.Second || got.Status >= 500 {
					t.Errorf("status %d after %v", got.Status, took)
				}
			})
		}
	}
}

// What is accepted reaches Envoy: one that refuses a ruleset goes on with the last
// one, and with its keys.
func TestEnvoyTakesManyRules(t *testing.T) {
	b := newBench()
	rule := b.rs.Routes[0].Authentication.Rules[0]
	rule.OutputClaims = nil
	for i := range 100 {
		r := proto.CloneOf(rule)
		r.FromHeaders = []*dataplanev1.TokenLocation{location(fmt.Sprint("x-t-", i), ""), location(fmt.Sprint("x-u-", i), "")}
		b.rs.Routes[0].Authentication.Rules = append(b.rs.Routes[0].Authentication.Rules, r)
	}
	p := startPlanes(t)
	reference := b.load(t, p)
	for _, name := range []string{"x-none", "x-t-0", "x-u-99"} {
		for _, token := range []string{"x.y", b.good(), b.hs.token(header(nil), b.claims(map[string]any{"iss": "other"}))} {
			req := get(field(name, token))
			if d := disagreements(p.ask(t, reference, req)); d != "" {
				t.Errorf("%s%s", d, show(req))
			}
		}
	}
}
