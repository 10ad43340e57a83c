package envoy

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// A rule on a path holds however a caller escapes it: servers decode before
// they look, so that an escape must lead past neither a route that wants a
// token nor a rule that denies. All else of this service is open.
func TestEscapesDoNotPassRules(t *testing.T) {
	k := newKey(t, "a1")
	rs := ruleset(t, `{"service": "orders",
 "issuers": [{"name": "sts", "issuer": "https://sts.example"}],
 "routes": [
  {"name": "strict", "match": {"paths": ["/v1/users:purge", "/users/@me/*", "/caf%C3%A9"]}, "authentication": {"mode": "STRICT", "rules": [
    {"issuer": "sts", "audiences": ["orders"], "fromHeaders": [{"name": "authorization", "prefix": "Bearer "}], "clockSkew": "60s"}]}},
  {"match": {}, "authentication": {"mode": "OFF"},
   "authorization": {"deny": [{"name": "p/0", "to": {"paths": ["/x%5Bsecret%5D", "/m/a,b", "/k/a+b", "/t/it's/*"]}}]}}]}`)
	port := runManaged(t, rs, k)
	for path, want := range map[string]int{
		"/v1/users:purge": 401, "/v1/users%3Apurge": 401, "/v1/users%3apurge": 401,
		"/users/@me/x": 401, "/users/%40me/x": 401,
		"/caf%C3%A9": 401, "/caf%c3%a9": 401,
		"/x%5Bsecret%5D": 403, "/x%5bsecret%5d": 403, "/x[secret]": 403, "/x%5Bsecret]": 403,
		"/m/a,b": 403, "/m/a%2Cb": 403,
		"/v1/users:purge;x": 403, "/v1/users;x/y": 403, "/v1/users%3bx/y": 403, // what a servlet container would take for another path
		"/k/a+b": 403, "/k/a%2Bb": 403,
		"/t/it's/x": 403, "/t/it%27s/x": 403,
		"/v1/users": 200, "/users/@you/x": 200, "/users/%40you/x": 200, "/k/a-b": 200,
	} {
		code, _, seen := raw(t, port, "GET "+path+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		if code != want || (seen != nil) != (want == 200) {
			t.Errorf("GET %s: status %d, reached the service %v; want status %d", path, code, seen != nil, want)
		}
	}
}

// runManaged starts a managed Envoy with a ruleset whose one issuer has one key,
// in front of an upstream that answers with what it saw, and returns its port.
func runManaged(t *testing.T, rs *dataplanev1.Ruleset, k *key) uint32 {
	t.Helper()
	port := freePort(t)
	rs.Issuers[0].Keys = []*dataplanev1.Key{k.proto()}
	rs.Inbound = &dataplanev1.Inbound{Address: "127.0.0.1", Port: port, LocalIp: "127.0.0.1", LocalPort: serveUpstream(t)}
	resources, err := Resources(rs)
	if err != nil {
		t.Fatal(err)
	}
	admin := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	config, err := Bootstrap(BootstrapOptions{Node: "orders-1", Service: "orders", ADSAddress: serveADS(t, resources), AdminAddress: admin, Unprotected: true})
	if err != nil {
		t.Fatal(err)
	}
	runEnvoy(t, config, admin)
	return port
}

// What can be read in two ways, or claims to be what it is not, is refused
// before a rule could be asked: hosts that servers read differently, a subject
// of our services from another issuer, an expiry beyond any clock, and claims
// that can't be in the header that they go into.
func TestAmbiguousAndForged(t *testing.T) {
	k := newKey(t, "a1")
	rs := ruleset(t, `{"service": "orders",
 "issuers": [{"name": "ci", "issuer": "https://ci.example"}],
 "ownSubjects": {"prefix": "spiffe://mesh.local/", "issuer": "https://sts.example"},
 "routes": [
  {"name": "strict", "match": {"hosts": ["admin.example.com", "*.int.example.com"]}, "authentication": {"mode": "STRICT", "rules": [
    {"issuer": "ci", "audiences": ["orders"], "fromHeaders": [{"name": "authorization", "prefix": "Bearer "}], "clockSkew": "60s", "maxLifetime": "86400s",
     "outputClaims": [{"claimPath": ["email"], "header": "x-email"}]}]}},
  {"match": {}, "authentication": {"mode": "OFF"}}]}`)
	port := runManaged(t, rs, k)
	send := func(what, host, header string, want int) {
		t.Helper()
		code, _, seen := raw(t, port, "GET /x HTTP/1.1\r\nHost: "+host+"\r\n"+header+"Connection: close\r\n\r\n")
		if code != want || (seen != nil) != (want == 200) {
			t.Errorf("%s (host %q): status %d, reached the service %v; want status %d", what, host, code, seen != nil, want)
		}
	}
	for host, want := range map[string]int{
		"other.example.com": 200, "other.example.com:8080": 200, "[::1]:80": 200, "127.0.0.1": 200,
		"admin.example.com": 401, "ADMIN.example.com:80": 401, "admin.example.com.": 401, "a.int.example.com": 401,
		"admin.example.com:abc": 403, "admin.example.com:-1": 403, "admin.example.com:80:80": 403, "a.int.example.com:x": 403,
		"admin.example.com,x": 403, "admin.example.com;x": 403, "admin%2eexample.com": 403, "[admin.example.com]": 403,
	} {
		send("without a token", host, "", want)
	}
	now := time.Now().Unix()
	for what, tt := range map[string]struct {
		claim string
		value any
		want  int
	}{
		"right":              {"sub", "builder", 200},
		"subject of a mesh":  {"sub", "spiffe://mesh.local/frontend", 401},
		"no end":             {"exp", json.Number("9223372036854775807"), 401},
		"no end, unsigned":   {"exp", json.Number("9223372036854775808"), 401},
		"far end":            {"exp", now + 10_000_000, 401},
		"line feed in email": {"email", "a@b\r\nx-evil: 1", 401},
		"line feed in sub":   {"sub", "a\nb", 401},
		"plain email":        {"email", "a@b", 200},
	} {
		claims := map[string]any{"iss": "https://ci.example", "aud": "orders", "sub": "builder", "exp": now + 300}
		claims[tt.claim] = tt.value
		send(what, "admin.example.com", "Authorization: Bearer "+k.sign(claims)+"\r\n", tt.want)
	}
}
