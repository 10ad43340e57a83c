package dataplane

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// reached is what a handler behind the middleware saw.
type reached struct {
	Method, URI, Path, Query, Body string
	Header, Trailer                http.Header
	Caller                         Caller
	Known                          bool
	Scope                          string
}

// serve starts a server with the middleware, whose handler tells what it saw.
func serve(t *testing.T, d *DataPlane) string {
	t.Helper()
	s := httptest.NewServer(d.Middleware(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		out := reached{Method: r.Method, URI: r.RequestURI, Path: r.URL.Path, Query: r.URL.RawQuery, Body: string(body), Header: r.Header, Trailer: r.Trailer}
		out.Caller, _ = FromContext(r.Context())
		var claims struct{ Scope string }
		out.Known = out.Caller.Known()
		_ = out.Caller.Claims(&claims)
		out.Scope = claims.Scope
		_ = json.NewEncoder(w).Encode(out)
	})))
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

// send sends a request as it is written.
func send(t *testing.T, address, request string) (*http.Response, string, *reached) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%v to\n%s", err, request)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%v to\n%s", err, request)
	}
	saw := new(reached)
	if res.StatusCode != http.StatusOK || json.Unmarshal(body, saw) != nil {
		saw = nil
	}
	return res, string(body), saw
}

func get(target string, fields ...string) string {
	return fmt.Sprintf("GET %s HTTP/1.1\r\nHost: orders\r\nConnection: close\r\n%s\r\n", target, joinLines(fields))
}

func joinLines(fields []string) string {
	var b strings.Builder
	for _, f := range fields {
		b.WriteString(f + "\r\n")
	}
	return b.String()
}

// Refusals look as Envoy's do.
func TestRefusals(t *testing.T) {
	d := plane(t, nil)
	address := serve(t, d)
	bearer := "Authorization: Bearer " + jwt()
	expect := func(request string, status int, word, challenge string) {
		t.Helper()
		res, body, saw := send(t, address, request)
		want := fmt.Sprintf(`{"reason":%q}`, word)
		if strings.HasPrefix(request, "HEAD") {
			want = ""
		}
		if res.StatusCode != status || res.Header.Get("X-Watchword-Reason") != word || res.Header.Get("WWW-Authenticate") != challenge || body != want || saw != nil {
			t.Errorf("%s got %d %v %s\nwant %d %s %s %s", request, res.StatusCode, res.Header, body, status, word, challenge, want)
		}
	}
	expect(get("/", bearer), 503, "not_ready", "")
	if d.Serving() {
		t.Error("Serving without a ruleset")
	}
	enforce(t, d, rulesetWith(strict("")))
	expect(get("/"), 401, "token_missing", `Bearer realm="orders"`)
	expect(strings.Replace(get("/"), "GET", "HEAD", 1), 401, "token_missing", `Bearer realm="orders"`)
	expect(get("/", "Authorization: Bearer "+jwt("exp", 1)), 401, "token_expired", `Bearer realm="orders", error="invalid_token", error_description="token_expired"`)
	expect(get("/", "Authorization: Bearer "+jwt("aud", "x")), 403, "audience_mismatch", "")
	if res, _, saw := send(t, address, get("/a%2fb", bearer)); res.StatusCode != 400 || saw != nil {
		t.Errorf("an escaped slash: %d, want 400", res.StatusCode)
	}
	// A service that was deleted.
	if err := d.resources.Remove(rulesetType, "orders"); err != nil {
		t.Fatal(err)
	}
	expect(get("/", bearer), 503, "not_ready", "")
}

// A lease is content: what it says holds whatever has happened in between, and a
// ruleset that needs one is nothing without.
func TestLease(t *testing.T) {
	now := time.Now()
	d := plane(t, func(c *Config) { c.Now = func() time.Time { return now } })
	address := serve(t, d)
	enforce(t, d, strings.Replace(rulesetWith(strict("")), "{", `{"leased":true,`, 1))
	ask := func(want int) {
		t.Helper()
		if res, body, _ := send(t, address, get("/", "Authorization: Bearer "+jwt())); res.StatusCode != want {
			t.Errorf("status %d %s, want %d", res.StatusCode, body, want)
		}
	}
	ask(503)
	lease(t, d, now.Add(time.Minute).Truncate(time.Second))
	ask(200)
	now = now.Add(time.Minute)
	ask(503)
	lease(t, d, now.Add(time.Minute))
	ask(200)
	if err := d.resources.Remove(leaseType, leaseName); err != nil {
		t.Fatal(err)
	}
	ask(503)
}

// spoofed are headers that only the data plane may set, in the spellings that servers
// take for them.
var spoofed = []string{
	"X-Watchword-Caller: evil", "x-watchword-caller: evil", "X_Watchword_Caller: evil", "x-watchword_issuer: evil",
	"X-WATCHWORD-CONSUMER: evil", "X-Watchword-Anything: evil", "X-Scope: evil", "x_scope: evil",
}

// What the handler gets: the caller, no token, and no header that only the data plane
// may set, on routes without authentication and for preflights, too.
func TestHandlerGets(t *testing.T) {
	d := plane(t, nil)
	address := serve(t, d)
	enforce(t, d, rulesetWith(`{"name":"open","match":{"paths":["/open"]},"authentication":{"mode":"OFF"}},
{"name":"preflight","match":{"methods":["OPTIONS"]},"authentication":{"mode":"OFF"}},
{"match":{},"authentication":{"mode":"STRICT","rules":[`+rule(`,"outputClaims":[{"claimPath":["scope"],"header":"x-scope"},{"claimPath":["sub"],"query":"who"}]`)+`]}}`))
	for _, tt := range []struct {
		request, uri, caller, scope string
	}{
		{get("/a/../b//c?who=evil&x=1", append(spoofed, "Authorization: Bearer "+jwt())...), "/b/c?x=1&who=spiffe%3A%2F%2Fmesh.local%2Ffrontend", "frontend", "read"},
		{get("http://orders/abs", "Authorization: Bearer "+jwt()), "/abs?who=spiffe%3A%2F%2Fmesh.local%2Ffrontend", "frontend", "read"},
		{get("/open", append(spoofed, "Authorization: Bearer x")...), "/open", "", ""},
		{strings.Replace(get("/x", append(spoofed, "Origin: https://x", "Access-Control-Request-Method: GET")...), "GET", "OPTIONS", 1), "/x", "", ""},
	} {
		res, body, saw := send(t, address, tt.request)
		if saw == nil {
			t.Errorf("%s got %d %s", tt.request, res.StatusCode, body)
			continue
		}
		if strings.Contains(body, "evil") || saw.URI != tt.uri || saw.Caller.Service != tt.caller || saw.Scope != tt.scope || saw.Known != (tt.caller != "") {
			t.Errorf("%s\n got %s\nwant uri %s, caller %q, scope %q, nothing evil", tt.request, body, tt.uri, tt.caller, tt.scope)
		}
		if tt.caller != "" && (saw.Header.Get("X-Watchword-Caller") != "spiffe://mesh.local/frontend" || saw.Header.Get("X-Scope") != "read" || saw.Header["Authorization"] != nil) {
			t.Errorf("%s\n got fields %v", tt.request, saw.Header)
		}
	}
}

// Trailers are stripped like headers.
func TestTrailers(t *testing.T) {
	d := plane(t, nil)
	address := serve(t, d)
	enforce(t, d, rulesetWith(strict("")))
	_, body, saw := send(t, address, "POST / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, X-Watchword-Caller, X_watchword_issuer\r\nAuthorization: Bearer "+jwt()+
		"\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nX-Watchword-Caller: evil\r\nX_watchword_issuer: evil\r\nX-Watchword-Consumer: evil\r\n\r\n")
	if saw == nil || saw.Body != "a" || saw.Trailer.Get("X-Sum") != "1" || strings.Contains(body, "evil") || len(saw.Trailer) != 1 {
		t.Errorf("got %s, want X-Sum alone in the trailer", body)
	}
}

// Tokens in forms, and forms that can't be read.
func TestForms(t *testing.T) {
	d := plane(t, func(c *Config) { c.MaxFormBytes = 2000 })
	address := serve(t, d)
	enforce(t, d, rulesetWith(`{"match":{},"authentication":{"mode":"STRICT","rules":[`+rule(`,"fromForm":[{"name":"jwt"}],"outputClaims":[{"claimPath":["scope"],"form":"scope"}]`)+`]}}`))
	post := func(kind, body string, more ...string) string {
		return fmt.Sprintf("POST / HTTP/1.1\r\nHost: orders\r\nConnection: close\r\nContent-Type: %s\r\nContent-Length: %d\r\n%s\r\n%s", kind, len(body), joinLines(more), body)
	}
	const form = "application/x-www-form-urlencoded"
	if _, body, saw := send(t, address, post(form, "a=1&jwt="+jwt()+"&scope=evil")); saw == nil || saw.Body != "a=1&scope=read" || saw.Header.Get("Content-Length") != "14" {
		t.Errorf("a token in a form: %s", body)
	}
	if res, _, _ := send(t, address, post(form, "jwt="+jwt()+"&x="+strings.Repeat("x", 2000))); res.StatusCode != 413 {
		t.Errorf("a form that is too large: %d, want 413", res.StatusCode)
	}
	// Another body is not read at all.
	if _, body, saw := send(t, address, post("text/plain", strings.Repeat("x", 5000), "Authorization: Bearer "+jwt())); saw == nil || len(saw.Body) != 5000 {
		t.Errorf("a body that is no form: %s", body)
	}
}

// A target that is none by RFC 9112 is refused as by Envoy, also where paths are left
// as they are: net/http takes it.
func TestTargets(t *testing.T) {
	for _, keep := range []bool{false, true} {
		d := plane(t, func(c *Config) { c.KeepPaths = keep })
		address := serve(t, d)
		enforce(t, d, rulesetWith(strict("")))
		for _, target := range []string{"/a#b", "/?a#b", "/\xc3\xa9", "/?\xff"} {
			request := strings.Replace(get("/", "Authorization: Bearer "+jwt()), "GET / ", "GET "+target+" ", 1)
			if res, _, saw := send(t, address, request); saw != nil || res.StatusCode != 400 {
				t.Errorf("KeepPaths %v, %q: status %d, and the handler saw %v; want 400", keep, target, res.StatusCode, saw)
			}
		}
	}
}

// What is only observed goes on, and both ends can see it. A refusal says nothing of it.
func TestObserved(t *testing.T) {
	d := plane(t, nil)
	address := serve(t, d)
	enforce(t, d, rulesetWith(strict(`,"observe":true`)))
	res, body, saw := send(t, address, get("/"))
	if saw == nil || res.Header.Get("X-Watchword-Observed") != "token_missing" {
		t.Errorf("got %d %v %s, want 200 and the observed reason", res.StatusCode, res.Header, body)
	}
	enforce(t, d, rulesetWith(strings.TrimSuffix(strict(`,"observe":true`), "}")+`,"authorization":{"restricted":true}}`))
	if res, _, saw := send(t, address, get("/")); saw != nil || res.StatusCode != 403 || res.Header.Get("X-Watchword-Observed") != "" {
		t.Errorf("got %d %v, want 403 without an observed reason", res.StatusCode, res.Header)
	}
}

// A connection that stays open is under the next ruleset with its next request.
func TestChangesReachOpenConnections(t *testing.T) {
	d := plane(t, nil)
	address := serve(t, d)
	enforce(t, d, rulesetWith(strict("")))
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	ask := func() int {
		_, _ = io.WriteString(c, strings.Replace(get("/", "Authorization: Bearer "+jwt()), "Connection: close\r\n", "", 1))
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		return res.StatusCode
	}
	if got := ask(); got != 200 {
		t.Fatalf("status %d", got)
	}
	// The token is remembered; its key goes.
	enforce(t, d, strings.ReplaceAll(rulesetWith(strict("")), b64([]byte(secret)), b64([]byte("another secret of that length 32"))))
	if got := ask(); got != 401 {
		t.Errorf("after its key was replaced a token gets %d, want 401", got)
	}
}
