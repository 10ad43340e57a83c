package seeds

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/importer"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// What stands in seeds/002: a credential, its consumer, and a token that is
// signed with it. The token expired in 2015; the plugin lets it in all the same
// unless claims_to_verify has exp.
const (
	kongKey      = "a36c3049b36249a3c9f8891cb127243c"
	kongSecret   = "e71829c351aa4242c2719cbfbe671c09"
	kongConsumer = "7bce93e1-0a90-489c-c887-d385545f8f4b"
	kongToken    = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJhMzZjMzA0OWIzNjI0OWEzYzlmODg5MWNiMTI3MjQzYyIsImV4cCI6MTQ0MjQzMDA1NCwibmJmIjoxNDQyNDI2NDU0LCJpYXQiOjE0NDI0MjY0NTR9.AhumfY35GFLuEEjrOXiaADo7Ae6gt_8VLwX7qffhQN4"
	// The token for RS256. Of its key the document has the beginning alone, so
	// that a key of the test signs an equal one.
	kongRSAKey   = "13d5814572e74a22b1a9a002f2d17c37"
	kongRSAToken = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiIxM2Q1ODE0NTcyZTc0YTIyYjFhOWEwMDJmMmQxN2MzNyJ9.uNPTnDZXVShFYUSiii78Q-IAfhnc2ExjarZr_WVhGrHHBLweOBJxGJlAKZQEKE4rVd7D6hCtWSkvAAOu7BU34OnlxtQqB8ArGX58xhpIqHtFUkj882JQ9QD6_v2S2Ad-EmEx5402ge71VWEJ0-jyH2WvfxZ_pD90n5AG5rAbYNAIlm2Ew78q4w4GVSivpletUhcv31-U3GROsa7dl8rYMqx6gyo9oIIDcGoMh3bu8su5kQc5SQBFp1CcA5H8sHGfYs-Et5rCU2A6yKbyXtpHrd1Y9oMrZpEfQdgpLae0AfWRf6JutA9SPhst9-5rn4o3cdUmto_TBGqHsFmVyob8VQ"

	kongAuth0 = "https://companyname.auth0.com/"

	kongService = "example-service"
	kongHost    = "example.com"
)

// The bodies of the plugin. Of the two for a token whose key claim is missing
// and for one that names no credential, both get the latter here.
var (
	kongMissing   = refused(401, "token_missing", `{"message":"Unauthorized"}`)
	kongMalformed = refused(401, "token_malformed", `{"message":"Bad token; invalid JSON"}`)
	kongUnknown   = refused(401, "credential_unknown", `{"message":"No credentials found for given 'iss'"}`)
	kongSignature = refused(403, "signature_invalid", `{"message":"Invalid signature"}`)
	kongAlgorithm = refused(401, "key_unknown", `{"message":"Invalid algorithm"}`)
)

// kongConfig is declarative configuration of what the document does by the
// admin API. config is that of the plugin jwt on the service, in YAML's flow
// style; consumers are lines.
func kongConfig(config string, consumers ...string) string {
	return fmt.Sprintf(`_format_version: "1.1"
services:
- name: %s
  url: http://httpbin.org
  plugins:
  - {name: jwt, config: %s}
  routes:
  - {name: example, hosts: [%s]}
consumers:
%s`, kongService, config, kongHost, strings.Join(consumers, ""))
}

// kongUser is an entry of consumers, with jwt_secrets in flow style.
func kongUser(who string, secrets ...string) string {
	return fmt.Sprintf("- {%s, jwt_secrets: [%s]}\n", who, strings.Join(secrets, ", "))
}

// kongCredential is an entry of jwt_secrets.
func kongCredential(t *testing.T, key string, s *meshtest.Signer) string {
	t.Helper()
	if s.Private == nil {
		return fmt.Sprintf("{key: %q, algorithm: %s, secret: %q}", key, s.Alg, s.Secret)
	}
	return fmt.Sprintf("{key: %q, algorithm: %s, rsa_public_key: %q}", key, s.Alg, s.PEM(t))
}

// kongSigner makes a key whose tokens have no kid, as those of the document.
func kongSigner(t *testing.T, alg string) *meshtest.Signer {
	t.Helper()
	s := meshtest.NewSigner(t, alg)
	if s.KID = ""; s.Private == nil {
		s.Secret = []byte(strings.Repeat(s.SecretText(), 2)[:64])
	}
	return s
}

func kong(t *testing.T, config string) importer.Result {
	t.Helper()
	return imported(t, importer.Kong, config, importer.Options{})
}

func kongCall(path, token string) meshtest.Call {
	return meshtest.Call{Host: kongHost, Path: path, Token: token}
}

// kongCaller are the headers of a consumer and the credential of its token.
func kongCaller(name, id, customID, username, iss, key string) map[string]string {
	out := caller("", iss, name)
	out["X-Consumer-Id"], out["X-Consumer-Custom-Id"], out["X-Consumer-Username"] = id, customID, username
	out["X-Credential-Identifier"] = key
	return out
}

// kongAlice is the consumer of most tests, with the document's credential.
var kongAlice = kongUser("username: alice, custom_id: c-42, id: "+kongConsumer, "{key: "+kongKey+", secret: "+kongSecret+"}")

func TestSeedKong(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	rs := kongSigner(t, "RS256")
	alice := kongCaller("alice", kongConsumer, "c-42", "alice", kongKey, kongKey)
	bob := kongCaller("bob", "0dfc969b-02be-42ae-9d98-e04ed1c05850", "", "bob", kongRSAKey, kongRSAKey)
	hs := &meshtest.Signer{Alg: "HS256", Secret: []byte(kongSecret)}
	claims := meshtest.Claims{"iss": kongKey}
	bobs := kongUser("username: bob, id: 0dfc969b-02be-42ae-9d98-e04ed1c05850", kongCredential(t, kongRSAKey, rs), kongCredential(t, kongAuth0, rs))
	deploy := func(config string) { m.deploy(t, kong(t, kongConfig(config, kongAlice, bobs))) }

	deploy("{}")
	m.check(t, kongService,
		row{"the document's token", kongCall("/path?q=1", kongToken), allowed(alice)},
		row{"in the query", kongCall("/path?jwt="+kongToken, ""), allowed(alice)},
		row{"in a cookie that is not configured", meshtest.Call{Host: kongHost, Header: header("Cookie", "jwt="+kongToken)}, kongMissing},
		row{"the document's RS256 token, signed with our key", kongCall("/", rs.Resign(t, kongRSAToken)), allowed(bob)},
		row{"a key that is a URL, as Auth0's", kongCall("/", rs.Token(t, meshtest.Claims{"iss": kongAuth0})),
			allowed(bob, map[string]string{"X-Watchword-Issuer": kongAuth0, "X-Credential-Identifier": kongAuth0})},
		row{"forged headers", meshtest.Call{Host: kongHost, Token: rs.Token(t, meshtest.Claims{"iss": kongRSAKey}), Header: http.Header{
			"X-Consumer-Id": {"root"}, "X-Consumer-Custom-Id": {"root"}, "X-Consumer-Username": {"root"}, "X-Anonymous-Consumer": {"true"}, "X-Credential-Identifier": {"root"}}},
			allowed(bob, map[string]string{"X-Anonymous-Consumer": ""})},

		// The table of status codes.
		row{"no JWT", kongCall("/", ""), kongMissing},
		// "Missing iss" is 401 in one row of the table, and 403 in another for a
		// signature that is valid. Kong itself says 401: without the claim there is
		// no credential to verify a signature with.
		row{"no iss", kongCall("/", hs.Token(t, claims.With("iss", nil))), kongUnknown},
		row{"an iss that is no credential's", kongCall("/", hs.Token(t, claims.With("iss", "nobody"))), kongUnknown},
		row{"an iss that is no string", kongCall("/", hs.Token(t, claims.With("iss", 7))), kongMalformed},
		row{"an invalid signature", kongCall("/", flip(kongToken)), kongSignature},
		row{"the document's RS256 token, by another key than ours", kongCall("/", kongRSAToken), kongSignature},
		row{"another credential's signature", kongCall("/", hs.Token(t, meshtest.Claims{"iss": kongRSAKey})), kongAlgorithm},
		row{"HS256 with the public key as secret", kongCall("/", meshtest.SignHS256([]byte(rs.PEM(t)), "", meshtest.Claims{"iss": kongRSAKey})), kongAlgorithm},
		row{"no JWT at all", kongCall("/", "abc"), kongMalformed},
		row{"exp and nbf are not looked at", kongCall("/", hs.Token(t, claims.With("exp", 1).With("nbf", time.Now().Add(time.Hour).Unix()))), allowed(alice)},

		row{"the key in the JOSE header", kongCall("/", hs.Sign(t, map[string]any{"alg": "HS256", "typ": "JWT", "iss": kongKey}, meshtest.Claims{})),
			allowed(alice, map[string]string{"X-Watchword-Issuer": ""})},
		row{"the payload comes before the header", kongCall("/", hs.Sign(t, map[string]any{"alg": "HS256", "iss": kongRSAKey}, claims)), allowed(alice)},
	)

	// claims_to_verify
	now := time.Now()
	in := func(d time.Duration) int64 { return now.Add(d).Unix() }
	deploy("{claims_to_verify: [exp, nbf]}")
	valid := claims.With("exp", in(time.Hour)).With("nbf", in(-time.Hour))
	m.check(t, kongService,
		row{"exp and nbf hold", kongCall("/", hs.Token(t, valid)), allowed(alice)},
		row{"the document's token has expired", kongCall("/", kongToken), refused(401, "token_expired", `{"exp":"token expired"}`)},
		row{"expired 2 s ago: there is no skew", kongCall("/", hs.Token(t, valid.With("exp", time.Now().Add(-2*time.Second).Unix()))), refused(401, "token_expired", `{"exp":"token expired"}`)},
		row{"not valid yet", kongCall("/", hs.Token(t, valid.With("nbf", in(time.Minute)))), refused(401, "token_not_yet_valid", `{"nbf":"token not valid yet"}`)},
		row{"no exp", kongCall("/", hs.Token(t, valid.With("exp", nil))), refused(401, "claim_missing", `{"exp":"must be a number"}`)},
		row{"no nbf", kongCall("/", hs.Token(t, valid.With("nbf", nil))), refused(401, "claim_missing", `{"exp":"must be a number"}`)},
		row{"an invalid signature", kongCall("/", flip(hs.Token(t, valid))), kongSignature},
		// Kong would say 403 first; Envoy looks at the time before the signature.
		row{"an invalid signature, and expired", kongCall("/", flip(kongToken)), refused(401, "token_expired", `{"exp":"token expired"}`)},
		row{"far in the future", kongCall("/", hs.Token(t, valid.With("exp", in(9*365*24*time.Hour)))), allowed(alice)},
	)
	deploy("{claims_to_verify: [exp], maximum_expiration: 3600}")
	m.check(t, kongService,
		row{"within maximum_expiration", kongCall("/", hs.Token(t, claims.With("exp", in(59*time.Minute)))), allowed(alice)},
		row{"beyond", kongCall("/", hs.Token(t, claims.With("exp", in(2*time.Hour)))), refused(403, "lifetime_exceeded", `{"exp":"exceeds maximum allowed expiration"}`)},
		row{"nbf is not looked at", kongCall("/", hs.Token(t, claims.With("exp", in(time.Minute)).With("nbf", in(time.Hour)))), allowed(alice)},
	)

	// Where tokens are, and what names their credential.
	deploy("{uri_param_names: [jwt, token], cookie_names: [jwt, session], header_names: [x-token], key_claim_name: client}")
	signed := hs.Token(t, meshtest.Claims{"client": kongKey})
	kidded := hs.Sign(t, map[string]any{"alg": "HS256", "client": kongKey}, meshtest.Claims{"iss": "else"})
	anon := func(iss string) map[string]string {
		return kongCaller("alice", kongConsumer, "c-42", "alice", iss, kongKey)
	}
	m.check(t, kongService,
		row{"the second parameter", kongCall("/?token="+signed, ""), allowed(anon(""))},
		row{"a cookie", meshtest.Call{Host: kongHost, Header: header("Cookie", "a=b; session="+signed)}, allowed(anon(""))},
		row{"a header", meshtest.Call{Host: kongHost, Header: header("X-Token", "Bearer "+signed)}, allowed(anon(""))},
		row{"another header", kongCall("/", signed), kongMissing},
		row{"the claim in the JOSE header", kongCall("/?jwt="+kidded, ""), allowed(anon("else"))},
		row{"iss does not count", kongCall("/?jwt="+kongToken, ""), refused(401, "credential_unknown", `{"message":"No credentials found for given 'client'"}`)},
	)

	// Preflight requests need a token unless run_on_preflight is false.
	preflight := meshtest.Call{Method: http.MethodOptions, Host: kongHost}
	m.check(t, kongService, row{"preflight", preflight, kongMissing})
	deploy("{run_on_preflight: false}")
	forged := preflight
	forged.Header = header("X-Consumer-Username", "root")
	m.check(t, kongService,
		row{"preflight, free", preflight, allowed()},
		row{"preflight, a forged header", forged, allowed(map[string]string{"X-Consumer-Username": ""})},
		row{"others still need one", kongCall("/", ""), kongMissing},
	)

	// The anonymous consumer is who calls when no token names one, whatever is
	// wrong with it.
	m.deploy(t, kong(t, kongConfig("{anonymous: guest-id, claims_to_verify: [exp]}", kongAlice, "- {username: guest, custom_id: g, id: guest-id}\n")))
	guest := map[string]string{
		"X-Consumer-Id": "guest-id", "X-Consumer-Custom-Id": "g", "X-Consumer-Username": "guest", "X-Anonymous-Consumer": "true", "X-Watchword-Consumer": "guest",
	}
	m.check(t, kongService,
		row{"anonymous: no token", kongCall("/", ""), allowed(guest)},
		row{"anonymous: expired", kongCall("/", kongToken), allowed(guest)},
		row{"anonymous: an invalid signature", kongCall("/", flip(hs.Token(t, claims))), allowed(guest)},
		row{"anonymous: a good token", kongCall("/", hs.Token(t, valid)), allowed(alice)},
		row{"anonymous: forged", meshtest.Call{Host: kongHost, Token: hs.Token(t, valid), Header: header("X-Anonymous-Consumer", "true")}, allowed(alice, map[string]string{"X-Anonymous-Consumer": ""})},
	)
}

// Consumers by username and by custom_id alone, with several credentials of all
// algorithms, one of them made when it was applied.
func TestSeedKongCredentials(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	keys, secrets := keysOfAll(t, kongSigner), []string{"{}"}
	for alg, key := range keys {
		secrets = append(secrets, kongCredential(t, "key-"+alg, key))
	}
	config := kongConfig("{}", kongUser("custom_id: only-this, id: one", secrets...), kongUser("username: only-that, id: two", "{}"))
	resp := m.deploy(t, kong(t, config))
	if again := m.deploy(t, kong(t, config)).GetGenerated(); len(again) > 0 {
		t.Errorf("made when the same was applied again: %v, want nothing", again)
	}
	one := func(key string) map[string]string { return kongCaller("only-this", "one", "only-this", "", key, key) }
	for alg, key := range keys {
		token := key.Token(t, meshtest.Claims{"iss": "key-" + alg})
		m.check(t, kongService,
			row{alg, kongCall("/", token), allowed(one("key-" + alg))},
			row{alg + ", a changed signature", kongCall("/", flip(token)), kongSignature},
		)
	}

	// What was made is printed once.
	made := map[string]map[string]string{}
	for _, g := range resp.GetGenerated() {
		if made[g.GetResource()] == nil {
			made[g.GetResource()] = map[string]string{}
		}
		made[g.GetResource()][g.GetField()] = g.GetValue()
	}
	for consumer, want := range map[string]map[string]string{
		"Consumer/only-this": kongCaller("only-this", "one", "only-this", "", "", ""),
		"Consumer/only-that": kongCaller("only-that", "two", "", "only-that", "", ""),
	} {
		key, secret := made[consumer]["spec.credentials[0].key"], made[consumer]["spec.credentials[0].keySet.secret.keys[0].secret"]
		if key == "" || secret == "" || len(made[consumer]) != 2 {
			t.Fatalf("made for %s: %v, want a key and a secret", consumer, made[consumer])
		}
		token := meshtest.SignHS256([]byte(secret), "", meshtest.Claims{"iss": key})
		m.check(t, kongService,
			row{consumer + ": what was made", kongCall("/", token), allowed(want, map[string]string{"X-Watchword-Issuer": key, "X-Credential-Identifier": key})},
			row{consumer + ": another secret", kongCall("/", meshtest.SignHS256([]byte(kongSecret), "", meshtest.Claims{"iss": key})), kongSignature},
		)
	}

	// Binary secrets as base64: "blob data" is YmxvYiBkYXRh.
	m.deploy(t, kong(t, kongConfig("{secret_is_base64: true}", kongUser("username: alice, id: one", "{key: "+kongKey+", secret: YmxvYiBkYXRh}"))))
	claims := meshtest.Claims{"iss": kongKey}
	m.check(t, kongService,
		row{"secret_is_base64", kongCall("/", meshtest.SignHS256([]byte("blob data"), "", claims)), allowed(kongCaller("alice", "one", "", "alice", kongKey, kongKey))},
		row{"a credential that was deleted", kongCall("/", keys["HS256"].Token(t, meshtest.Claims{"iss": "key-HS256"})), kongUnknown},
		row{"secret_is_base64, signed with the text", kongCall("/", meshtest.SignHS256([]byte("YmxvYiBkYXRh"), "", claims)), kongSignature},
	)
}

// The plugin on a route, on a service and for all: the most specific holds. One
// that is not enabled does not exist.
func TestSeedKongScopes(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	alice := kongCaller("alice", kongConsumer, "c-42", "alice", kongKey, kongKey)
	config := func(global, service, route string) string {
		return fmt.Sprintf(`_format_version: "1.1"
plugins: [%[1]s]
services:
- name: %[2]s
  url: http://httpbin.org
  plugins: [%[3]s]
  routes:
  - name: special
    hosts: [%[4]s]
    paths: [/special/]
    plugins: [%[5]s]
  - name: example
    hosts: [%[4]s]
- name: other
  url: http://httpbin.org
  routes:
  - name: other
    hosts: [other.example]
consumers:
%[6]s`, global, kongService, service, kongHost, route, kongAlice)
	}
	jwt := func(param string) string { return "{name: jwt, config: {uri_param_names: [" + param + "]}}" }
	other := func(path string) meshtest.Call { return meshtest.Call{Host: "other.example", Path: path} }

	m.deploy(t, kong(t, config("", "", jwt("route"))))
	m.check(t, kongService,
		row{"on a route", kongCall("/special/x?route="+kongToken, ""), allowed(alice)},
		row{"on a route, no token", kongCall("/special/x", ""), kongMissing},
		row{"on a route, not elsewhere", kongCall("/", ""), allowed()},
	)
	m.deploy(t, kong(t, config("", jwt("service"), jwt("route"))))
	m.check(t, kongService,
		row{"on both, the route's", kongCall("/special/x?route="+kongToken, ""), allowed(alice)},
		row{"on both, the route's holds whole", kongCall("/special/x?service="+kongToken, ""), kongMissing},
		row{"on both, elsewhere the service's", kongCall("/?service="+kongToken, ""), allowed(alice)},
	)
	m.deploy(t, kong(t, config(jwt("global"), jwt("service"), "")))
	m.check(t, kongService,
		row{"global and service", kongCall("/special/x?service="+kongToken, ""), allowed(alice)},
		row{"global and service, the service's holds whole", kongCall("/?global="+kongToken, ""), kongMissing},
	)
	m.check(t, "other",
		row{"global", other("/?global=" + kongToken), allowed(alice)},
		row{"global, no token", other("/"), kongMissing},
	)
	m.deploy(t, kong(t, config("", jwt("service"), "{name: jwt, enabled: false}")))
	m.check(t, kongService, row{"not enabled on the route: the service's holds", kongCall("/special/x", ""), kongMissing})
	m.check(t, "other", row{"no plugin", other("/"), allowed()})
	m.deploy(t, kong(t, config("", "{name: jwt, enabled: false}", "{name: jwt, enabled: false}")))
	m.check(t, kongService, row{"not enabled anywhere", kongCall("/special/x", ""), allowed()})
}

// A thousand credentials: the last one works, and the data plane finds it in a
// map, not by trying one after the other.
func TestSeedKongThousandCredentials(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	const n = 1000
	var consumers []string
	for i := range n {
		consumers = append(consumers, kongUser(fmt.Sprintf("username: user-%d, id: id-%d", i, i), fmt.Sprintf("{key: key-%d, secret: secret-of-at-least-32-characters-%d}", i, i)))
	}
	m.deploy(t, kong(t, kongConfig("{}", consumers...)))
	for _, i := range []int{0, n / 2, n - 1} {
		key, secret := fmt.Sprintf("key-%d", i), fmt.Sprintf("secret-of-at-least-32-characters-%d", i)
		user := kongCaller(fmt.Sprintf("user-%d", i), fmt.Sprintf("id-%d", i), "", fmt.Sprintf("user-%d", i), key, key)
		m.check(t, kongService,
			row{key, kongCall("/", meshtest.SignHS256([]byte(secret), "", meshtest.Claims{"iss": key})), allowed(user)},
			row{key + ", with the next one's secret", kongCall("/", meshtest.SignHS256([]byte(fmt.Sprintf("secret-of-at-least-32-characters-%d", (i+1)%n)), "", meshtest.Claims{"iss": key})), kongSignature},
		)
	}
	resp, err := m.Admin.GetDataPlaneConfig(t.Context(), &adminv1.GetDataPlaneConfigRequest{Node: kongService})
	if err != nil {
		t.Fatal(err)
	}
	longest, requires := 0, 0
	for _, r := range resp.GetResources() {
		walk(r.GetBody().AsMap(), "", func(path string, list, fields int) {
			longest = max(longest, list)
			if strings.HasSuffix(path, ".filter_state_rules.requires") {
				requires = fields
			}
		})
	}
	if longest > 100 || requires < n {
		t.Errorf("the longest list of what xds shows has %d entries, and the map of requirements %d; want no list that grows with the %d credentials, and a map with all", longest, requires, n)
	}
}

// walk visits lists and objects of JSON, with how many entries they have.
func walk(v any, path string, visit func(path string, list, fields int)) {
	switch v := v.(type) {
	case map[string]any:
		visit(path, 0, len(v))
		for name, e := range v {
			walk(e, path+"."+name, visit)
		}
	case []any:
		visit(path, len(v), 0)
		for _, e := range v {
			walk(e, path, visit)
		}
	}
}
