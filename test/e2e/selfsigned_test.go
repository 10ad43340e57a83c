package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"net/http"
	"testing"

	"github.com/watchword-mesh/watchword/dataplane"
	"github.com/watchword-mesh/watchword/dataplane/tokens"
	"github.com/watchword-mesh/watchword/internal/jose"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// A service with keys of its own signs for itself: the callee verifies with the key in
// its Service, and the token endpoint is asked for nothing.
func TestSelfSigned(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := jose.NewPrivateKey(signer, "ES256")
	if err != nil {
		t.Fatal(err)
	}
	port := meshtest.FreeAddress(t)
	m.Apply(t, resource("Service", "orders", "{dataPlanes: [GO], inbound: {port: 1, localAddress: \"127.0.0.1:1\", tls: MESH}, endpoints: [\""+port+"\"]}")+
		resource("Service", "shop", "calls: [{service: orders}]", "selfIssued: {keySet: {jwks: '{\"keys\": ["+private.Public().JWK()+"]}'}}")+
		resource("AuthenticationPolicy", "orders", "target: {services: [orders]}", "jwtRules: [{services: {}}]"))
	own, err := tokens.NewSelfSigned(tokens.SelfSignedConfig{
		Issuer: "spiffe://mesh.local/shop", Subject: "spiffe://mesh.local/shop", Key: signer, KeyID: private.Public().ID(), Algorithm: "ES256",
	})
	if err != nil {
		t.Fatal(err)
	}
	relay(t, port, protect(t, m.OpenDataPlane(t, "orders")))
	shop := m.OpenDataPlane(t, "shop", func(c *dataplane.Config) { c.Tokens, c.TokenURL = own, "https://127.0.0.1:1/token" })
	client := &http.Client{Transport: shop.Transport(nil)}
	t.Cleanup(client.CloseIdleConnections)
	if code, body := fetch(t, client, "https://orders/a"); code != 200 || body != `{"authorization":"","caller":"shop","path":"/a"}`+"\n" {
		t.Errorf("shop calls orders with its own key: %d %s", code, body)
	}
}
