package envoy

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// behaviour is the service whose requests TestBehaviour sends.
const behaviour = `{
  "service": "orders",
  "issuers": [
    {"name": "a", "issuer": "https://a.example"},
    {"name": "b", "issuer": "https://b.example"}
  ],
  "routes": [
    {"name": "admin", "match": {"paths": ["/admin", "/admin/*"]},
     "authentication": {"mode": "STRICT", "rules": [RULE_A]},
     "authorization": {"restricted": true, "allow": [
       {"name": "admins/0", "from": [{"issuer": "a", "subject": "root"}]},
       {"name": "admins/1", "when": [{"claimPath": ["role"], "op": "IN", "values": ["admin", 7, true]}]}]}},
    {"name": "reports", "match": {"hosts": ["reports.example.com", "*.reports.example.com"], "methods": ["GET"]},
     "authentication": {"mode": "OFF"}},
    {"name": "open", "match": {"paths": ["/open/*"]}, "authentication": {"mode": "OFF"}},
    {"name": "optional", "match": {"paths": ["/optional"]}, "authentication": {"mode": "OPTIONAL", "rules": [RULE_A]}},
    {"name": "other-audience", "match": {"paths": ["/other"]}, "authentication": {"mode": "STRICT", "rules": [
       {"issuer": "a", "audiences": ["other"], "fromHeaders": [{"name": "authorization", "prefix": "Bearer "}], "clockSkew": "60s", "maxLifetime": "3600s"}]}},
    {"name": "optional-other", "match": {"paths": ["/optional-other"]}, "authentication": {"mode": "OPTIONAL", "rules": [
       {"issuer": "a", "audiences": ["other"], "fromHeaders": [{"name": "authorization", "prefix": "Bearer "}], "clockSkew": "60s", "maxLifetime": "3600s"}]}},
    {"name": "two", "match": {"paths": ["/two"]}, "authentication": {"mode": "STRICT", "rules": [RULE_A, RULE_B]}},
    {"name": "b-only", "match": {"paths": ["/b"]}, "authentication": {"mode": "OPTIONAL", "rules": [RULE_B]}},
    {"name": "places", "match": {"paths": ["/places"]}, "authentication": {"mode": "STRICT", "rules": [
       {"issuer": "a", "audiences": ["orders"], "fromHeaders": [{"name": "x-token"}], "fromParams": [{"name": "token"}], "fromCookies": [{"name": "session"}], "clockSkew": "60s",
        "forwardOriginalToken": true}]}},
    {"name": "in", "match": {"paths": ["/in"]}, "authentication": {"mode": "OPTIONAL", "rules": [RULE_A]},
     "authorization": {"restricted": true, "allow": [
       {"name": "in/0", "when": [{"claimPath": ["v"], "op": "IN", "values": ["x", 7, false]}]}]}},
    {"name": "not-in", "match": {"paths": ["/not-in"]}, "authentication": {"mode": "OPTIONAL", "rules": [RULE_A]},
     "authorization": {"restricted": true, "allow": [
       {"name": "not-in/0", "when": [{"claimPath": ["v"], "op": "NOT_IN", "values": ["x", 7, false]}]}]}},
    {"name": "exists", "match": {"paths": ["/exists"]}, "authentication": {"mode": "OPTIONAL", "rules": [RULE_A]},
     "authorization": {"restricted": true, "allow": [{"name": "exists/0", "when": [{"claimPath": ["v"], "op": "EXISTS"}]}]}},
    {"name": "nested", "match": {"paths": ["/nested"]}, "authentication": {"mode": "STRICT", "rules": [RULE_A]},
     "authorization": {"restricted": true, "allow": [
       {"name": "nested/0", "when": [{"claimPath": ["a", "b"], "op": "IN", "values": ["x"]}]},
       {"name": "nested/1", "when": [{"claimPath": ["https://a.example/roles"], "op": "IN", "values": ["x"]}]},
       {"name": "nested/2", "when": [{"claimPath": ["scope"], "op": "IN", "values": ["orders:write"]}]}]}},
    {"match": {}, "authentication": {"mode": "STRICT", "rules": [RULE_A]},
     "authorization": {"deny": [
       {"name": "no-delete/0", "to": {"methods": ["DELETE"]}, "from": [{"issuer": "a", "subject": "alice"}]},
       {"name": "no-delete/1", "to": {"paths": ["/frozen/*"]}}]}}
  ]}`

const (
	ruleA = `{"issuer": "a", "audiences": ["orders"], "fromHeaders": [{"name": "authorization", "prefix": "Bearer "}], "clockSkew": "60s", "maxLifetime": "3600s",
      "outputClaims": [{"claimPath": ["sub"], "header": "x-user-id"}, {"claimPath": ["a", "b"], "header": "x-ab"}, {"claimPath": ["c.d"], "header": "x-cd"}]}`
	ruleB = `{"issuer": "b", "audiences": ["orders"], "fromHeaders": [{"name": "authorization", "prefix": "Bearer "}], "clockSkew": "60s", "maxLifetime": "3600s"}`
)

type world struct {
	port  uint32
	a, b  *key
	envoy *proxy
}

// newWorld runs a managed Envoy as its bootstrap says, on what Resources says.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{a: newKey(t, "a1"), b: newKey(t, "b1"), port: freePort(t)}
	rs := ruleset(t, strings.NewReplacer("RULE_A", ruleA, "RULE_B", ruleB).Replace(behaviour))
	rs.Issuers[0].Keys = []*dataplanev1.Key{w.a.proto()}
	rs.Issuers[1].Keys = []*dataplanev1.Key{w.b.proto()}
	rs.Inbound = &dataplanev1.Inbound{Address: "127.0.0.1", Port: w.port, LocalIp: "127.0.0.1", LocalPort: serveUpstream(t)}
	resources, err := Resources(rs)
	if err != nil {
		t.Fatal(err)
	}
	admin := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	config, err := Bootstrap(BootstrapOptions{Node: "orders-1", Service: "orders", ADSAddress: serveADS(t, resources), AdminAddress: admin, Unprotected: true})
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	w.envoy = runEnvoy(t, config, admin)
	// Ready means that the listener has its filters: nothing waits for the
	// time after which it would open without them.
	if took := time.Since(start); took > firstConfigTimeout {
		t.Errorf("Envoy was ready after %v, want less than the %v that a missing config takes", took, firstConfigTimeout)
	}
	return w
}

func claims(extra map[string]any) map[string]any {
	c := map[string]any{"iss": "https://a.example", "sub": "alice", "aud": "orders", "exp": time.Now().Add(5 * time.Minute).Unix()}
	maps.Copy(c, extra)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

type j = map[string]any

// TestBehaviour sends requests through a real Envoy and looks at the answer and
// at what the service got.
func TestBehaviour(t *testing.T) {
	w := newWorld(t)
	now := time.Now().Unix()
	tok := func(extra j) string { return w.a.sign(claims(extra)) }
	tokB := func(extra j) string {
		return w.b.sign(claims(merge(j{"iss": "https://b.example"}, extra)))
	}
	bearer := func(token string) string { return "Authorization: Bearer " + token }
	alice := bearer(tok(nil))

	tests := []struct {
		name    string
		line    string // method and target
		headers []string
		want    int
		body    string            // part of the refusal
		saw     map[string]string // headers that the service got; "" means none
		uri     string
	}{
		// Tokens.
		{name: "good", line: "GET /x", headers: []string{alice}, want: 200,
			saw: map[string]string{"X-Watchword-Caller": "alice", "X-Watchword-Issuer": "https://a.example", "X-User-Id": "alice", "Authorization": "", "X-Envoy-Internal": ""}},
		{name: "missing", line: "GET /x", want: 401, body: "token_missing"},
		{name: "expired", line: "GET /x", headers: []string{bearer(tok(j{"exp": now - 120}))}, want: 401, body: "token_expired"},
		{name: "expired within skew", line: "GET /x", headers: []string{bearer(tok(j{"exp": now - 30}))}, want: 200},
		{name: "never expires", line: "GET /x", headers: []string{bearer(tok(j{"exp": nil}))}, want: 401},
		{name: "lives too long", line: "GET /x", headers: []string{bearer(tok(j{"exp": now + 7200}))}, want: 401},
		{name: "lives longer by more than the skew", line: "GET /x", headers: []string{bearer(tok(j{"exp": now + 3670}))}, want: 401},
		{name: "lives longer by the skew", line: "GET /x", headers: []string{bearer(tok(j{"exp": now + 3630}))}, want: 200},
		{name: "not yet valid", line: "GET /x", headers: []string{bearer(tok(j{"nbf": now + 300}))}, want: 401},
		{name: "wrong audience", line: "GET /x", headers: []string{bearer(tok(j{"aud": "other"}))}, want: 403, body: "audience_mismatch"},
		{name: "no audience", line: "GET /x", headers: []string{bearer(tok(j{"aud": nil}))}, want: 403},
		{name: "wrong key", line: "GET /x", headers: []string{bearer(w.b.sign(claims(nil)))}, want: 401},
		{name: "no issuer", line: "GET /x", headers: []string{bearer(tok(j{"iss": nil}))}, want: 401},
		{name: "other issuer", line: "GET /x", headers: []string{bearer(tokB(nil))}, want: 401},
		{name: "no subject", line: "GET /x", headers: []string{bearer(tok(j{"sub": nil}))}, want: 200,
			saw: map[string]string{"X-Watchword-Caller": "", "X-Watchword-Issuer": "https://a.example", "X-User-Id": ""}},
		{name: "subject with a line break", line: "GET /two", headers: []string{bearer(tokB(j{"sub": "a\r\nx-evil: 1"}))}, want: 401},
		{name: "subject with a control character", line: "GET /two", headers: []string{bearer(tokB(j{"sub": "a\x01b"}))}, want: 401},
		{name: "subject in UTF-8", line: "GET /two", headers: []string{bearer(tokB(j{"sub": "zoë"}))}, want: 200, saw: map[string]string{"X-Watchword-Caller": "zoë"}},
		{name: "empty subject", line: "GET /two", headers: []string{bearer(tokB(j{"sub": ""}))}, want: 200, saw: map[string]string{"X-Watchword-Caller": ""}},
		{name: "claims to headers", line: "GET /x", headers: []string{bearer(tok(j{"a": j{"b": "nested"}, "c.d": 7}))}, want: 200,
			saw: map[string]string{"X-Ab": "nested", "X-Cd": "7"}},

		// Several rules.
		{name: "first of two", line: "GET /two", headers: []string{alice}, want: 200, saw: map[string]string{"X-Watchword-Caller": "alice"}},
		{name: "second of two", line: "GET /two", headers: []string{bearer(tokB(nil))}, want: 200, saw: map[string]string{"X-Watchword-Issuer": "https://b.example"}},
		{name: "neither of two", line: "GET /two", headers: []string{bearer(tok(j{"iss": "https://c.example"}))}, want: 401},

		// Places.
		{name: "header without prefix", line: "GET /places", headers: []string{"X-Token: " + tok(nil)}, want: 200},
		{name: "query", line: "GET /places?a=1&token=" + tok(nil), want: 200},
		{name: "cookie", line: "GET /places", headers: []string{"Cookie: z=1; session=" + tok(nil)}, want: 200},
		{name: "wrong place", line: "GET /places", headers: []string{alice}, want: 401},

		// Modes.
		{name: "optional without", line: "GET /optional", want: 200, saw: map[string]string{"X-Watchword-Caller": "", "X-Watchword-Issuer": "", "X-User-Id": ""}},
		{name: "optional with", line: "GET /optional", headers: []string{alice}, want: 200, saw: map[string]string{"X-Watchword-Caller": "alice"}},
		{name: "optional with a bad one", line: "GET /optional", headers: []string{bearer(tok(j{"exp": now - 120}))}, want: 401},
		{name: "optional with garbage", line: "GET /optional", headers: []string{bearer("garbage")}, want: 401},
		// allow_missing would take these two with the provider of another route.
		{name: "optional with the audience of another route", line: "GET /optional", headers: []string{bearer(tok(j{"aud": "other"}))}, want: 403},
		{name: "optional with the audience of another route, too", line: "GET /optional-other", headers: []string{alice}, want: 403},
		{name: "optional with its own audience", line: "GET /optional-other", headers: []string{bearer(tok(j{"aud": "other"}))}, want: 200},
		{name: "optional with the issuer of another route", line: "GET /optional", headers: []string{bearer(tokB(nil))}, want: -1},
		{name: "optional b with the issuer of another route", line: "GET /b", headers: []string{alice}, want: -1},
		{name: "off", line: "GET /open/x", want: 200},
		{name: "off with a bad token", line: "GET /open/x", headers: []string{bearer("garbage")}, want: 200,
			saw: map[string]string{"X-Watchword-Caller": "", "Authorization": "Bearer garbage"}},
		{name: "preflight", line: "OPTIONS /x", headers: []string{"Origin: https://e", "Access-Control-Request-Method: GET"}, want: 401},

		// Headers that only we may set.
		{name: "spoofed, strict", line: "GET /x", headers: []string{alice, "x-watchword-caller: root", "X-WATCHWORD-ISSUER: r", "X-Watchword-Scope: r", "x-user-id: root", "x-ab: root"}, want: 200,
			saw: map[string]string{"X-Watchword-Caller": "alice", "X-Watchword-Issuer": "https://a.example", "X-Watchword-Scope": "", "X-User-Id": "alice", "X-Ab": ""}},
		{name: "spoofed, off", line: "GET /open/x", headers: []string{"X-Watchword-Caller: root", "x-watchword-caller: root2", "x-watchword-x: r", "X-User-ID: root", "x-cd: r"}, want: 200,
			saw: map[string]string{"X-Watchword-Caller": "", "X-Watchword-X": "", "X-User-Id": "", "X-Cd": ""}},
		{name: "spoofed with underscores", line: "GET /open/x", headers: []string{"x_watchword_caller: root"}, want: 400},

		// Routes.
		{name: "host", line: "GET /x", headers: []string{"Host: reports.example.com"}, want: 200},
		{name: "host with port and case", line: "GET /x", headers: []string{"Host: Reports.EXAMPLE.com:8080"}, want: 200},
		{name: "host with a last dot", line: "GET /x", headers: []string{"Host: reports.example.com."}, want: 200},
		{name: "subdomain", line: "GET /x", headers: []string{"Host: a.b.reports.example.com"}, want: 200},
		{name: "longer host", line: "GET /x", headers: []string{"Host: reports.example.com.evil.org"}, want: 401},
		{name: "suffix without dot", line: "GET /x", headers: []string{"Host: evilreports.example.com"}, want: 401},
		{name: "dot is not a wildcard", line: "GET /x", headers: []string{"Host: reportsxexample.com"}, want: 401},
		{name: "method of a route", line: "POST /x", headers: []string{"Host: reports.example.com", "Content-Length: 0"}, want: 401},
		{name: "earlier route wins", line: "GET /admin", headers: []string{"Host: reports.example.com"}, want: 401},
		{name: "query is not path", line: "GET /x?/open/", want: 401},
		{name: "prefix is not the path itself", line: "GET /open", want: 401},
		{name: "absolute target", line: "GET http://reports.example.com/x", want: 200},
		{name: "no path at all", line: "OPTIONS *", want: -1},
		{name: "connect", line: "CONNECT reports.example.com:443", want: -1},

		// Paths that a managed listener normalises or refuses.
		{name: "dot segment", line: "GET /open/../admin", want: 401, body: "token_missing"},
		{name: "escaped dot segment", line: "GET /open/%2e%2E/admin", want: 401, body: "token_missing"},
		{name: "double slash", line: "GET //admin", headers: []string{alice}, want: 403},
		{name: "backslash", line: `GET /open/..\admin`, want: -1},
		{name: "escaped slash", line: "GET /open%2Fx", want: 400},
		{name: "escaped letter", line: "GET /%61dmin", headers: []string{alice}, want: 403},
		{name: "fragment", line: "GET /open/#/../admin", want: -1},
		{name: "path parameter", line: "GET /open/..;/x", headers: []string{alice}, want: 200, uri: "/x"},
		{name: "normalised for the service, too", line: "GET /open/../a//b/./c?q=//", headers: []string{alice}, want: 200, uri: "/a/b/c?q=//"},

		// Authorization.
		{name: "allowed subject", line: "GET /admin/x", headers: []string{bearer(tok(j{"sub": "root"}))}, want: 200},
		{name: "subject of another issuer", line: "GET /admin/x", headers: []string{bearer(tokB(j{"sub": "root"}))}, want: 401},
		{name: "not allowed", line: "GET /admin/x", headers: []string{alice}, want: 403, body: "consumer_denied"},
		{name: "denied", line: "DELETE /x", headers: []string{alice}, want: 403},
		{name: "other subject is not denied", line: "DELETE /x", headers: []string{bearer(tok(j{"sub": "bob"}))}, want: 200},
		{name: "deny for everybody", line: "GET /frozen/x", headers: []string{alice}, want: 403},
		{name: "rule of another route", line: "DELETE /open/x", headers: []string{alice}, want: 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			req := tt.line + " HTTP/1.1\r\n"
			if !strings.Contains(strings.Join(tt.headers, "\n"), "Host:") {
				req += "Host: orders\r\n"
			}
			for _, h := range tt.headers {
				req += h + "\r\n"
			}
			status, body, got := raw(t, w.port, req+"\r\n")
			switch {
			case tt.want == -1 && status < 400, tt.want != -1 && status != tt.want:
				t.Fatalf("got %d %s, want %d (-1: any refusal)\n%s", status, body, tt.want, req)
			case !strings.Contains(body, tt.body):
				t.Errorf("got body %q, want %q in it\n%s", body, tt.body, req)
			}
			for name, want := range tt.saw {
				if v := got.Header.Values(name); strings.Join(v, "|") != want || want == "" && v != nil {
					t.Errorf("the service got %s: %q, want %q\n%s", name, v, want, req)
				}
			}
			if tt.uri != "" && got.URI != tt.uri {
				t.Errorf("the service got %s, want %s\n%s", got.URI, tt.uri, req)
			}
			if got != nil && got.Header.Get("X-Evil") != "" {
				t.Errorf("a claim became a header: %v", got.Header)
			}
		})
	}

	t.Run("claims", func(t *testing.T) { testClaims(t, w) })
	t.Run("grpc", func(t *testing.T) { testHTTP2(t, w, tok(nil)) })
	t.Run("http/1.0", func(t *testing.T) {
		if status, body, _ := raw(t, w.port, "GET /open/x HTTP/1.0\r\n\r\n"); status < 400 {
			t.Errorf("got %d %s, want a refusal", status, body)
		}
	})
	t.Run("log", func(t *testing.T) { testAccessLog(t, w) })
}

func merge(ms ...j) j {
	out := j{}
	for _, m := range ms {
		maps.Copy(out, m)
	}
	return out
}

// testClaims proves what the operators say of each kind of value.
func testClaims(t *testing.T, w *world) {
	values := []struct {
		v             any
		in, notIn, ex int
	}{
		{"x", 200, 403, 200},
		{"y", 403, 200, 200},
		{"", 403, 200, 200},
		{7, 200, 403, 200},
		{7.5, 403, 200, 200},
		{"7", 403, 200, 200},
		{false, 200, 403, 200},
		{true, 403, 200, 200},
		{"false", 403, 200, 200},
		{[]any{"a", "x"}, 200, 403, 200},
		{[]any{"a", 7}, 200, 403, 200},
		{[]any{true, false}, 200, 403, 200},
		{[]any{"a", true, 8}, 403, 200, 200},
		{[]any{[]any{"x"}}, 403, 200, 200},
		{[]any{}, 403, 200, 200},
		{j{"x": "x"}, 403, 200, 200},
		{j{}, 403, 200, 200},
	}
	get := func(path string, claim j) int {
		status, _, _ := raw(t, w.port, "GET "+path+" HTTP/1.1\r\nHost: orders\r\nAuthorization: Bearer "+w.a.sign(claims(claim))+"\r\n\r\n")
		return status
	}
	for _, tt := range values {
		for path, want := range map[string]int{"/in": tt.in, "/not-in": tt.notIn, "/exists": tt.ex} {
			if got := get(path, j{"v": tt.v}); got != want {
				t.Errorf("%s with v = %#v: got %d, want %d", path, tt.v, got, want)
			}
		}
	}
	for path, want := range map[string]int{"/in": 403, "/not-in": 200, "/exists": 403} {
		if got := get(path, nil); got != want {
			t.Errorf("%s without v: got %d, want %d", path, got, want)
		}
		if got, body, _ := raw(t, w.port, "GET "+path+" HTTP/1.1\r\nHost: orders\r\n\r\n"); got != 403 {
			t.Errorf("%s without token: got %d %s, want 403", path, got, body)
		}
	}
	for want, list := range map[int][]j{
		200: {{"a": j{"b": "x"}}, {"https://a.example/roles": []any{"x"}}, {"scope": "orders:read orders:write"}, {"scope": "orders:write"}},
		403: {{"a.b": "x"}, {"a": "x"}, {"https://a": j{"example/roles": "x"}}, {"scope": "orders:writer"}},
	} {
		for _, c := range list {
			if got := get("/nested", c); got != want {
				t.Errorf("/nested with %v: got %d, want %d", c, got, want)
			}
		}
	}
	for _, role := range []any{"admin", 7, true, []any{"admin"}} {
		if got := get("/admin", j{"role": role}); got != 200 {
			t.Errorf("/admin with role %#v: got %d, want 200", role, got)
		}
	}
}

// testHTTP2 proves that HTTP/2 reaches the service as HTTP/2, and that a
// refusal of a gRPC call is one that gRPC understands.
func testHTTP2(t *testing.T, w *world, token string) {
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	call := func(token string) (*http.Response, string) {
		req := &http.Request{Method: "POST", Host: "orders",
			URL:    &url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", w.port), Path: "/orders.v1.Orders/Get"},
			Header: http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}},
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		res, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(body)
	}
	if res, body := call(token); res.StatusCode != 200 || !strings.Contains(body, "HTTP/2.0") {
		t.Errorf("got %s %s, want HTTP/2.0 at the service", res.Status, body)
	}
	if res, body := call(""); res.Header.Get("Grpc-Status") != "16" {
		t.Errorf("got %s %v %s, want grpc-status 16", res.Status, res.Header, body)
	}
}

// testAccessLog proves that the log tells why, and never a token.
func testAccessLog(t *testing.T, w *world) {
	token := w.a.sign(claims(nil))
	raw(t, w.port, "DELETE /x?token=query-secret HTTP/1.1\r\nHost: orders\r\nAuthorization: Bearer "+token+"\r\n\r\n")
	raw(t, w.port, "GET /places?token="+token+"x HTTP/1.1\r\nHost: orders\r\n\r\n")
	eventually(t, 5*time.Second, func() error {
		for _, want := range []string{
			"rbac_access_denied_matched_policy[consumer_denied[no-delete/0]]",
			"rbac_access_denied_matched_policy[consumer_denied]",
			"rbac_access_denied_matched_policy[key_unknown]",
		} {
			if !strings.Contains(w.envoy.log.String(), want) {
				return fmt.Errorf("no %s in\n%s", want, w.envoy.log)
			}
		}
		return nil
	})
	if strings.Contains(w.envoy.log.String(), "eprecated") {
		t.Errorf("Envoy will soon refuse something:\n%s", w.envoy.log)
	}
	for _, never := range []string{"query-secret", token, "eyJ"} {
		for _, line := range strings.Split(w.envoy.log.String(), "\n") {
			if strings.Contains(line, never) {
				t.Errorf("the log tells %q: %s", never, line)
				break
			}
		}
	}
}
