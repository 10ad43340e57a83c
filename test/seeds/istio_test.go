package seeds

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/importer"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// What stands in seeds/000: a token, which expires in 2118. The text above it
// says RS512, and other claims: {"iss": "weather@cloudnative-istio", "audience":
// "weather@cloudnative-istio"}. Both are here. Keys are not in the document,
// nor is a configuration: it says that the public key stands in JWKS or at a
// URI, and that iss is compared.
const (
	istioToken  = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJleHAiOjQ2ODU5ODk3MDAsInZlciI6IjIuMCIsImlhdCI6MTUzMjM4OTcwMCwiaXNzIjoid2VhdGhlckBjbG91ZG5hdGl2ZS1pc3Rpby5ib29rIiwic3ViIjoid2VhdGhlckBjbG91ZG5hdGl2ZS1pc3Rpby5ib29rIn0.SEp-8qiMwI45BuBgQPH-wTHvOYxcE_jPI0wqOxEpauw"
	istioBook   = "weather@cloudnative-istio.book"
	istioText   = "weather@cloudnative-istio"
	istioApp    = "weather"
	istioPolicy = `---
apiVersion: security.istio.io/v1
kind: %s
metadata: {name: %s, namespace: weather}
spec:
  selector: {matchLabels: {app: weather}}
  %s
`
)

// requestAuthentication has jwtRules in YAML's flow style.
func requestAuthentication(rules ...string) string {
	return fmt.Sprintf(istioPolicy, "RequestAuthentication", "jwt", "jwtRules: ["+strings.Join(rules, ", ")+"]")
}

func authorizationPolicy(action, rules string) string {
	return fmt.Sprintf(istioPolicy, "AuthorizationPolicy", strings.ToLower(action), "action: "+action+"\n  rules: "+rules)
}

func istio(t *testing.T, config ...string) importer.Result {
	t.Helper()
	return imported(t, importer.Istio, strings.Join(config, ""), importer.Options{AllowNetworks: []string{"127.0.0.0/8"}})
}

func istioCall(token string) meshtest.Call {
	return meshtest.Call{Path: "/forecast?city=x", Token: token}
}

func TestSeedIstio(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	secret, pair, stranger := meshtest.NewSigner(t, "HS256"), meshtest.NewSigner(t, "RS256"), meshtest.NewSigner(t, "RS256")
	secret.KID = "" // the document's token has none
	rs512 := meshtest.NewSigner(t, "RS512")
	book := fmt.Sprintf("{issuer: %s, jwks: '%s', outputPayloadToHeader: x-payload}", istioBook, meshtest.JWKS(secret))
	text := fmt.Sprintf("{issuer: %s, jwks: '%s'}", istioText, meshtest.JWKS(pair, rs512))
	token := secret.Resign(t, istioToken)
	payload := strings.Split(istioToken, ".")[1]
	// The token is removed once it is verified, as in Istio.
	weather := caller(istioBook, istioBook, "")
	weather["X-Payload"], weather["Authorization"] = payload, ""
	fromText := caller("", istioText, "")
	fromText["Authorization"] = ""
	claims := meshtest.Claims{"iss": istioText, "audience": istioText}

	m.deploy(t, istio(t, requestAuthentication(book, text)))
	m.check(t, istioApp,
		row{"HS256: the document's token, signed with our key", istioCall(token), allowed(weather)},
		row{"its payload in the header, from the caller", meshtest.Call{Token: token, Header: header("X-Payload", "made up")}, allowed(weather)},
		row{"RS512 with the document's claims", istioCall(rs512.Token(t, claims)), allowed(fromText)},
		row{"RS256", istioCall(pair.Token(t, claims)), allowed(fromText)},
		row{"in the query", meshtest.Call{Path: "/?a=b&access_token=" + token}, allowed(weather).withQuery("a=b")},
		// A request without a token gets past a RequestAuthentication.
		row{"no token", istioCall(""), allowed()},
		row{"no token, a forged caller", meshtest.Call{Header: http.Header{"X-Payload": {"x"}, "X-Watchword-Caller": {"root"}}}, allowed(map[string]string{"X-Payload": "", "X-Watchword-Caller": ""})},

		row{"the document's token, by another key than ours", istioCall(istioToken), refused(401, "signature_invalid", "")},
		row{"an issuer that no policy names", istioCall(pair.Token(t, claims.With("iss", "somebody"))), refused(401, "issuer_unknown", "")},
		row{"no iss", istioCall(pair.Token(t, claims.With("iss", nil))), refused(401, "issuer_unknown", "")},
		row{"the other issuer's key", istioCall(pair.Token(t, claims.With("iss", istioBook))), refused(401, "key_unknown", "")},
		row{"another key", istioCall(stranger.Token(t, claims)), refused(401, "key_unknown", "")},
		row{"RS256 by the key for RS512", istioCall(pair.Sign(t, map[string]any{"alg": "RS256", "kid": rs512.KID}, claims)), refused(401, "key_unknown", "")},
		row{"a changed signature", istioCall(flip(pair.Token(t, claims))), refused(401, "signature_invalid", "")},
		row{"expired", istioCall(pair.Token(t, claims.With("exp", time.Now().Add(-2*time.Minute).Unix()))), refused(401, "token_expired", "")},
		row{"no JWT", istioCall("abc"), refused(401, "token_malformed", "")},
	)

	// "iss and aud are verified": aud where the policy has audiences. What the
	// document's claims have is called audience, and that is another claim.
	m.deploy(t, istio(t, requestAuthentication(fmt.Sprintf("{issuer: %s, audiences: [%[1]s, sun], jwks: '%s', forwardOriginalToken: true, fromHeaders: [{name: x-jwt, prefix: 'JWT '}]}", istioText, meshtest.JWKS(pair)))))
	inHeader := func(c meshtest.Claims) meshtest.Call {
		return meshtest.Call{Header: header("X-Jwt", "JWT "+pair.Token(t, c))}
	}
	m.check(t, istioApp,
		row{"the audience, and the token is forwarded", inHeader(claims.With("aud", istioText)), allowed(caller("", istioText, ""))},
		row{"one of several", inHeader(claims.With("aud", []string{"moon", "sun"})), allowed(caller("", istioText, ""))},
		row{"another one", inHeader(claims.With("aud", "moon")), refused(403, "audience_mismatch", "")},
		row{"audience is not aud", inHeader(claims), refused(403, "audience_mismatch", "")},
		row{"a header that is not looked at", istioCall("abc"), allowed()},
	)

	// An AuthorizationPolicy is what asks for a token.
	m.deploy(t, istio(t, requestAuthentication(book, text), authorizationPolicy("ALLOW", `[{from: [{source: {requestPrincipals: ["`+istioBook+"/"+istioBook+`"]}}]}]`)))
	m.check(t, istioApp,
		row{"required: the principal", istioCall(token), allowed(weather)},
		row{"required: no token", istioCall(""), refused(403, "consumer_denied", "")},
		row{"required: another issuer", istioCall(pair.Token(t, claims.With("sub", istioBook))), refused(403, "consumer_denied", "")},
		row{"required: a bad token", istioCall(flip(token)), refused(401, "signature_invalid", "")},
	)
	m.deploy(t, istio(t, requestAuthentication(book, text),
		authorizationPolicy("DENY", `[{from: [{source: {notRequestPrincipals: ["*"]}}], to: [{operation: {notPaths: ["/healthz"]}}]}, {to: [{operation: {methods: [DELETE]}}], when: [{key: "request.auth.claims[ver]", values: ["2.0"]}]}]`)))
	m.check(t, istioApp,
		row{"denied without: a token", istioCall(token), allowed(weather)},
		row{"denied without: none", istioCall(""), refused(403, "consumer_denied", "")},
		row{"denied without: but not there", meshtest.Call{Path: "/healthz"}, allowed()},
		row{"denied without: a path that only passes there", meshtest.Call{Path: "/healthz/../x"}, refused(403, "consumer_denied", "")},
		row{"denied by a claim", meshtest.Call{Method: http.MethodDelete, Token: token}, refused(403, "consumer_denied", "")},
		row{"another claim", meshtest.Call{Method: http.MethodDelete, Token: pair.Token(t, claims.With("ver", "3.0"))}, allowed(fromText)},
	)
}

// The public key may be at a URI: the control plane fetches it, and follows it.
func TestSeedIstioURI(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	rs512 := meshtest.NewSigner(t, "RS512")
	keys := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, meshtest.JWKS(rs512))
	}))
	t.Cleanup(keys.Close)
	m.deploy(t, istio(t, requestAuthentication(fmt.Sprintf("{issuer: %s, jwksUri: %q}", istioText, keys.URL+"/keys"))))
	call := istioCall(rs512.Token(t, meshtest.Claims{"iss": istioText, "audience": istioText}))
	meshtest.Eventually(t, func() error { // until it is fetched
		if got := meshtest.Send(t, m.inbound[istioApp], call); got.Status != http.StatusOK {
			return fmt.Errorf("%s: got %d %q, want 200", call, got.Status, got.Body)
		}
		return nil
	})
	fromText := caller("", istioText, "")
	fromText["Authorization"] = ""
	m.check(t, istioApp,
		row{"RS512", call, allowed(fromText)},
		row{"a changed signature", istioCall(flip(call.Token)), refused(401, "signature_invalid", "")},
		row{"another key", istioCall(meshtest.NewSigner(t, "RS512").Token(t, meshtest.Claims{"iss": istioText})), refused(401, "key_unknown", "")},
	)
}
