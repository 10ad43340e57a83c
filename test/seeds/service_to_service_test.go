package seeds

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// seeds/003 has no configuration to import and no tokens: it says what services
// A, B and C have to do, in two ways. Here the data planes do it.

// serviceToken takes the way that the document asks for: a long-term credential
// against a JWT, by OAuth 2.0 client credentials.
func serviceToken(t *testing.T, m *mesh, service string, params url.Values) (string, error) {
	t.Helper()
	id, secret := m.ClientSecret(t, service)
	config := clientcredentials.Config{ClientID: id, ClientSecret: secret, TokenURL: m.TokenURL(), AuthStyle: oauth2.AuthStyleInHeader, EndpointParams: params}
	token, err := config.Token(m.HTTPContext(t))
	if err != nil {
		return "", err
	}
	return token.AccessToken, nil
}

// tokenFor is a token of a service for an audience.
func tokenFor(t *testing.T, m *mesh, service, audience string) string {
	t.Helper()
	token, err := serviceToken(t, m, service, url.Values{"audience": {audience}})
	if err != nil {
		t.Fatalf("a token of %s for %s: %v", service, audience, err)
	}
	return token
}

// claimsOf reads a token without verifying it.
func claimsOf(t *testing.T, token string) meshtest.Claims {
	t.Helper()
	raw, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	var claims meshtest.Claims
	if err == nil {
		err = json.Unmarshal(raw, &claims)
	}
	if err != nil {
		t.Fatal(err)
	}
	return claims
}

// asService is what a service sees of a call: who it is, and not the token.
func asService(name, iss string) map[string]string {
	out := caller("spiffe://mesh.local/"+name, iss, "")
	out["Authorization"] = ""
	return out
}

// tampered changes a claim of a token and leaves its signature.
func tampered(t *testing.T, token, name string, value any) string {
	t.Helper()
	text, err := json.Marshal(claimsOf(t, token).With(name, value))
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, ".")
	return parts[0] + "." + base64.RawURLEncoding.EncodeToString(text) + "." + parts[2]
}

// Option 1: a security token service signs.
func TestSeedServiceToServiceSTS(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.apply(t, resource("Service", "a", "calls: [{service: b, scopes: [read]}, {service: c}]")+
		resource("Service", "b", m.inboundOf(t, "b"), "calls: [{service: d}]")+
		resource("Service", "c", m.inboundOf(t, "c"))+resource("Service", "d", "{}"), "b", "c")

	forB, forC := tokenFor(t, m, "a", "b"), tokenFor(t, m, "a", "c")
	a := asService("a", m.IssuerURL())
	call := func(token string) meshtest.Call { return meshtest.Call{Path: "/orders", Token: token} }
	m.check(t, "b",
		row{"A's token", call(forB), allowed(a)},
		row{"no token", call(""), refused(401, "token_missing", "")},
		row{"a token for C", call(forC), refused(403, "audience_mismatch", "")},
		row{"a changed signature", call(flip(forB)), refused(401, "signature_invalid", "")},
		row{"another sub", call(tampered(t, forB, "sub", "spiffe://mesh.local/d")), refused(401, "signature_invalid", "")},
		row{"another aud", call(tampered(t, forC, "aud", "b")), refused(401, "signature_invalid", "")},
	)
	// B takes A's token and poses as A before C.
	m.check(t, "c",
		row{"A itself", call(forC), allowed(a)},
		row{"B with A's token", call(forB), refused(403, "audience_mismatch", "")},
	)

	// "Avoid tokens without aud, or with a wildcard": there are none. Nor is there
	// one for a service that A does not call.
	for what, params := range map[string]url.Values{
		"no audience": {}, "a wildcard": {"audience": {"*"}}, "two audiences": {"audience": {"b", "c"}}, "a service that A does not call": {"audience": {"d"}},
	} {
		_, err := serviceToken(t, m, "a", params)
		var refusal *oauth2.RetrieveError
		if !errors.As(err, &refusal) || refusal.Response.StatusCode != 400 || refusal.ErrorCode != "invalid_target" {
			t.Errorf("%s: got %v, want 400 invalid_target", what, err)
		}
	}
	// "A short expiry, ideally some minutes."
	claims := claimsOf(t, forB)
	iat, _ := claims["iat"].(float64)
	exp, _ := claims["exp"].(float64)
	nbf, _ := claims["nbf"].(float64)
	if claims["aud"] != "b" || iat == 0 || nbf != iat || exp-iat != 300 {
		t.Errorf("the claims of A's token for B: %v, want aud b, iat, nbf, and exp 5 minutes later", claims)
	}
}

// The same with an STS elsewhere ("such as Keycloak, Okta or Auth0"), whose
// clock and keys the test has: B checks aud, exp, iat and nbf, and how long a
// token lives; its keys rotate under a connection that stays open.
func TestSeedServiceToServiceOtherSTS(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	const iss = "https://sts.example"
	first, second := meshtest.NewSigner(t, "ES256"), meshtest.NewSigner(t, "ES256")
	deploy := func(keys ...*meshtest.Signer) {
		m.apply(t, resource("Service", "b", m.inboundOf(t, "b"))+
			resource("Issuer", "sts", "issuer: "+iss, "keySet: {jwks: '"+meshtest.JWKS(keys...)+"'}")+
			resource("AuthenticationPolicy", "b", "target: {services: [b]}", "jwtRules: [{issuer: sts, audiences: [b], clockSkew: 30s, maxLifetime: 10m}]"), "b")
	}
	deploy(first)
	claims := meshtest.NewClaims(iss, "service-a", "b")
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	call := func(c meshtest.Claims) meshtest.Call { return meshtest.Call{Token: first.Token(t, c)} }
	a := caller("service-a", iss, "")
	a["Authorization"] = ""
	m.check(t, "b",
		row{"A's token", call(claims.With("nbf", at(-time.Second))), allowed(a)},
		row{"aud: another", call(claims.With("aud", "c")), refused(403, "audience_mismatch", "")},
		row{"aud: none", call(claims.With("aud", nil)), refused(403, "audience_mismatch", "")},
		row{"aud: a wildcard", call(claims.With("aud", "*")), refused(403, "audience_mismatch", "")},
		row{"exp: past", call(claims.With("exp", at(-time.Minute))), refused(401, "token_expired", "")},
		row{"exp: past, within the skew", call(claims.With("exp", at(-5*time.Second))), allowed(a)},
		row{"exp: none", call(claims.With("exp", nil)), refused(401, "claim_missing", "")},
		row{"exp: hours", call(claims.With("exp", at(5*time.Hour))), refused(401, "lifetime_exceeded", "")},
		row{"exp: no end", call(claims.With("exp", int64(1)<<60)), refused(401, "lifetime_exceeded", "")},
		row{"iat: in the future", call(claims.With("iat", at(time.Minute))), refused(401, "token_not_yet_valid", "")},
		row{"nbf: in the future", call(claims.With("nbf", at(time.Minute))), refused(401, "token_not_yet_valid", "")},
	)

	conn := &meshtest.Conn{Address: m.inbound["b"]}
	rotation{"b", a, func(s *meshtest.Signer) string { return s.Token(t, claims) }, deploy}.run(t, m, conn, first, second)
}

// rotation of a key of whoever calls a service.
type rotation struct {
	service string
	// seen is what the service sees of a call, token makes one's token, and deploy
	// says which keys are trusted.
	seen   map[string]string
	token  func(*meshtest.Signer) string
	deploy func(...*meshtest.Signer)
}

// run adds a key, then removes the one before, on a connection that stays open.
func (r rotation) run(t *testing.T, m *mesh, conn *meshtest.Conn, one, other *meshtest.Signer) {
	t.Helper()
	yes, no := allowed(r.seen), refused(401, "key_unknown", "")
	for _, step := range []struct {
		what       string
		keys       []*meshtest.Signer
		one, other want
	}{
		{"before", []*meshtest.Signer{one}, yes, no},
		{"the new key is added", []*meshtest.Signer{one, other}, yes, yes},
		{"the old key is removed", []*meshtest.Signer{other}, no, yes},
	} {
		r.deploy(step.keys...)
		for what, call := range map[string]row{
			"the old key": {call: meshtest.Call{Token: r.token(one)}, want: step.one},
			"the new key": {call: meshtest.Call{Token: r.token(other)}, want: step.other},
		} {
			call.what = step.what + ": " + what
			m.checkAnswer(t, r.service, call, conn.Do(t, call.call))
		}
	}
}

// Option 2: services sign for themselves, and each one's public keys are where
// its calls arrive.
func TestSeedServiceToServiceSelfIssued(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	keyA, nextA, keyD := meshtest.NewSigner(t, "ES256"), meshtest.NewSigner(t, "EdDSA"), meshtest.NewSigner(t, "RS256")
	selfIssued := func(keys ...*meshtest.Signer) string {
		return "selfIssued: {keySet: {jwks: '" + meshtest.JWKS(keys...) + "'}}"
	}
	deploy := func(keysOfA ...*meshtest.Signer) {
		m.apply(t, resource("Service", "a", selfIssued(keysOfA...), "calls: [{service: b}]")+
			resource("Service", "d", selfIssued(keyD), "calls: [{service: c}, {service: b}]")+
			resource("Service", "b", m.inboundOf(t, "b"))+resource("Service", "c", m.inboundOf(t, "c"))+
			resource("AuthenticationPolicy", "all", "jwtRules: [{services: {}}]")+
			resource("AuthorizationPolicy", "b", "target: {services: [b]}", "action: ALLOW", "rules: [{from: {services: [a]}}]"), "b", "c")
	}
	deploy(keyA)
	id := func(name string) string { return "spiffe://mesh.local/" + name }
	claims := func(name, aud string) meshtest.Claims { return meshtest.NewClaims(id(name), id(name), aud) }
	at := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	call := func(s *meshtest.Signer, c meshtest.Claims) meshtest.Call { return meshtest.Call{Token: s.Token(t, c)} }
	a := asService("a", id("a"))
	m.check(t, "b",
		row{"A's token", call(keyA, claims("a", "b")), allowed(a)},
		row{"no token", meshtest.Call{}, refused(401, "token_missing", "")},
		row{"for another service", call(keyA, claims("a", "c")), refused(403, "audience_mismatch", "")},
		row{"without aud", call(keyA, claims("a", "b").With("aud", nil)), refused(403, "audience_mismatch", "")},
		row{"expired", call(keyA, claims("a", "b").With("exp", at(-2*time.Minute))), refused(401, "token_expired", "")},
		row{"without exp", call(keyA, claims("a", "b").With("exp", nil)), refused(401, "claim_missing", "")},
		row{"for a day", call(keyA, claims("a", "b").With("exp", at(24*time.Hour))), refused(401, "lifetime_exceeded", "")},
		row{"issued in the future", call(keyA, claims("a", "b").With("iat", at(2*time.Minute))), refused(401, "token_not_yet_valid", "")},
		row{"not valid yet", call(keyA, claims("a", "b").With("nbf", at(2*time.Minute))), refused(401, "token_not_yet_valid", "")},

		row{"A for D", call(keyA, claims("a", "b").With("sub", id("d"))), refused(401, "subject_forged", "")},
		row{"A without sub", call(keyA, claims("a", "b").With("sub", nil)), refused(401, "subject_forged", "")},
		row{"A in D's name", call(keyA, claims("d", "b")), refused(401, "key_unknown", "")},
		row{"D, which nothing allows", call(keyD, claims("d", "b")), refused(403, "consumer_denied", "")},
		row{"a service that is none", call(keyA, claims("x", "b")), refused(401, "credential_unknown", "")},
		row{"the built-in STS, which the policy does not name", meshtest.Call{Token: m.Token(t, "a", "b")}, refused(401, "credential_unknown", "")},
	)
	m.check(t, "c",
		row{"D's token", call(keyD, claims("d", "c")), allowed(asService("d", id("d")))},
		row{"A, which may not call it", call(keyA, claims("a", "c")), refused(401, "credential_unknown", "")},
		row{"B with A's token", call(keyA, claims("a", "b")), refused(401, "credential_unknown", "")},
	)

	// A key is where its calls arrive, and nowhere else; what is sent is public.
	for service, want := range map[string]map[string]bool{
		"b": {keyA.KID: true, keyD.KID: true},
		"c": {keyA.KID: false, keyD.KID: true},
	} {
		sent := sentTo(t, m, service) + m.envoys[service].Get(t, "/config_dump")
		for kid, there := range want {
			if strings.Contains(sent, kid) != there {
				t.Errorf("the key %s is among what %s was sent: %t, want %t", kid, service, !there, there)
			}
		}
	}
	secret := meshtest.NewSigner(t, "HS256")
	m.wantFault(t, "a shared secret", resource("Service", "a", selfIssued(secret)), "public")

	conn := &meshtest.Conn{Address: m.inbound["b"], Protocol: meshtest.HTTP2}
	rotation{"b", a, func(s *meshtest.Signer) string { return s.Token(t, claims("a", "b")) }, deploy}.run(t, m, conn, keyA, nextA)
}

// sentTo is what `watchword xds` shows of the data plane of a service.
func sentTo(t *testing.T, m *mesh, service string) string {
	t.Helper()
	resp, err := m.Admin.GetDataPlaneConfig(t.Context(), &adminv1.GetDataPlaneConfigRequest{Node: service})
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.GetResources()) == 0 {
		t.Fatalf("nothing was sent to %s", service)
	}
	return fmt.Sprint(resp.GetResources())
}
