package e2e

import (
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// The way of request authentication in a mesh as users know it: an issuer
// outside signs, the policy names its keys inline, iss and aud, and the proxy
// lets in what was signed for this service, whatever algorithm the key is for.
func TestSeed000(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	const iss = "weather@cloudnative-istio"
	rsa, secret := meshtest.NewSigner(t, "RS256"), meshtest.NewSigner(t, "HS256")
	stranger, strangerSecret := meshtest.NewSigner(t, "RS256"), meshtest.NewSigner(t, "HS256")
	m.Apply(t, m.service(t, "weather")+inlineIssuer("istio", iss, rsa, secret)+
		authentication("weather", "weather", "", "STRICT", "{issuer: istio, audiences: [weather]}"))
	m.startEnvoy(t, "weather")

	good := meshtest.NewClaims(iss, "ann", "weather")
	expired := good.With("exp", time.Now().Add(-2*time.Minute).Unix())
	for _, c := range []struct {
		what, token string
		want        int
	}{
		{"RS256", rsa.Token(t, good), 200},
		{"HS256", secret.Token(t, good), 200},
		{"one of several audiences", rsa.Token(t, good.With("aud", []string{"sun", "weather"})), 200},
		{"no token", "", 401},
		{"RS256, expired", rsa.Token(t, expired), 401},
		{"HS256, expired", secret.Token(t, expired), 401},
		{"no exp", rsa.Token(t, good.With("exp", nil)), 401},
		{"not valid yet", rsa.Token(t, good.With("nbf", time.Now().Add(2*time.Minute).Unix())), 401},
		{"RS256, wrong aud", rsa.Token(t, good.With("aud", "billing")), 403},
		{"HS256, wrong aud", secret.Token(t, good.With("aud", "billing")), 403},
		{"no aud", rsa.Token(t, good.With("aud", nil)), 403},
		{"wrong iss", rsa.Token(t, good.With("iss", "weather@elsewhere")), 401},
		{"no iss", rsa.Token(t, good.With("iss", nil)), 401},
		{"unknown RS256 key", stranger.Token(t, good), 401},
		{"unknown HS256 key", strangerSecret.Token(t, good), 401},
		{"unknown secret under a known kid", meshtest.SignHS256(strangerSecret.Secret, secret.KID, good), 401},
		{"HS256 with the public RSA key as secret", meshtest.SignHS256([]byte(rsa.PEM(t)), rsa.KID, good), 401},
		{"the same, as JWK", meshtest.SignHS256([]byte(rsa.JWK()), rsa.KID, good), 401},
		{"HS256 with an empty secret", meshtest.SignHS256(nil, secret.KID, good), 401},
		{"signature changed", flip(rsa.Token(t, good)), 401},
		{"our own issuer, which this policy does not name", tokenOfOurs(t, m, "weather"), 401},
	} {
		call := meshtest.Call{Path: "/", Token: c.token}
		wantStatus(t, c.what, call, m.send(t, "weather", call), c.want)
	}
}

// tokenOfOurs is a token of the built-in issuer for the service.
func tokenOfOurs(t *testing.T, m *mesh, service string) string {
	t.Helper()
	m.ApplyWait(t, resource("Service", "caller-of-"+service, "calls: [{service: "+service+"}]"))
	return m.Token(t, "caller-of-"+service, service)
}
