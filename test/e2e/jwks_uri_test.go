package e2e

import (
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// keyServer publishes keys at a URI, with a certificate of its own.
type keyServer struct {
	*httptest.Server
	// answer is a JWK set, or empty for a server in trouble.
	answer atomic.Pointer[string]
}

func startKeyServer(t *testing.T, signers ...*meshtest.Signer) *keyServer {
	t.Helper()
	k := &keyServer{}
	k.publish(signers...)
	k.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		text := *k.answer.Load()
		if text == "" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = io.WriteString(w, text)
	}))
	t.Cleanup(k.Close)
	return k
}

func (k *keyServer) publish(signers ...*meshtest.Signer) {
	text := ""
	if len(signers) > 0 {
		text = meshtest.JWKS(signers...)
	}
	k.answer.Store(&text)
}

// issuer is an Issuer whose keys are there; more are further fields of jwksUri.
func (k *keyServer) issuer(name, iss string, more ...string) string {
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Certificate().Raw}))
	fields := append([]string{fmt.Sprintf("uri: %q", k.URL+"/jwks"), fmt.Sprintf("ca: %q", ca), "interval: 10s"}, more...)
	return resource("Issuer", name, fmt.Sprintf("issuer: %q", iss), "keySet: {jwksUri: {"+strings.Join(fields, ", ")+"}}")
}

// status is what `get` shows of the key set.
func issuerStatus(t *testing.T, m *mesh, name string) map[string]any {
	t.Helper()
	resp, err := m.Admin.List(t.Context(), &adminv1.ListRequest{Kind: "Issuer", Name: name})
	if err != nil {
		t.Fatal(err)
	}
	status, _ := resp.GetItems()[0].AsMap()["status"].(map[string]any)
	return status
}

// The keys of an issuer at a URI are fetched by the control plane and reach the
// data planes; a key that is added there follows, a shared secret there does
// not. A URI in trouble changes nothing, not even for a control plane and an
// Envoy that start while it is.
func TestJWKSURI(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	const iss = "https://idp.test"
	first, second, secret := meshtest.NewSigner(t, "RS256"), meshtest.NewSigner(t, "ES256"), meshtest.NewSigner(t, "HS256")
	idp := startKeyServer(t, first, secret)
	m.Apply(t, m.service(t, "orders")+
		idp.issuer("idp", iss, "allowNetworks: [127.0.0.0/8]")+idp.issuer("careless", "https://careless.test")+
		authentication("orders", "orders", "", "STRICT", "{issuer: idp, audiences: [orders]}"))
	e := m.startEnvoy(t, "orders")
	claims := meshtest.NewClaims(iss, "ann", "orders")
	call := func(s *meshtest.Signer) meshtest.Call { return meshtest.Call{Token: s.Token(t, claims)} }
	accepted := func(s *meshtest.Signer) func() error {
		c := call(s)
		return func() error {
			if got := m.send(t, "orders", c); got.Status != 200 {
				return fmt.Errorf("%s: got %d %q, want 200", c, got.Status, got.Body)
			}
			return nil
		}
	}
	meshtest.Eventually(t, accepted(first))
	wantStatus(t, "a key that is not there", call(second), m.send(t, "orders", call(second)), 401)
	wantStatus(t, "a shared secret that is there", call(secret), m.send(t, "orders", call(secret)), 401)
	status := issuerStatus(t, m, "idp")
	if keys, _ := status["keys"].([]any); len(keys) != 1 || status["fetched"] == nil || status["error"] != nil || !strings.Contains(fmt.Sprint(status["leftOut"]), "shared secret") {
		t.Errorf("status of the issuer: %v; want one key, and one left out", status)
	}
	meshtest.Eventually(t, func() error { // nobody has allowed loopback here
		if s := issuerStatus(t, m, "careless"); !strings.Contains(fmt.Sprint(s["error"]), "allowNetworks") || s["fetched"] != nil {
			return fmt.Errorf("status of an issuer on loopback that is not allowed: %v", s)
		}
		return nil
	})

	listeners := e.Stats(t, "listener_manager.listener_modified", "listener_manager.listener_added")
	idp.publish(first, second)
	meshtest.Eventually(t, accepted(second))
	wantStatus(t, "the key before", call(first), m.send(t, "orders", call(first)), 200)
	if got := e.Stats(t, "listener_manager.listener_modified", "listener_manager.listener_added"); fmt.Sprint(got) != fmt.Sprint(listeners) {
		t.Errorf("the new key changed listeners: %v, before %v", got, listeners)
	}

	idp.publish()
	failing := func() error {
		if s := issuerStatus(t, m, "idp"); !strings.Contains(fmt.Sprint(s["error"]), "503") {
			return fmt.Errorf("status of an issuer whose server is in trouble: %v", s)
		}
		return nil
	}
	meshtest.Eventually(t, failing)
	wantStatus(t, "the URI in trouble", call(second), m.send(t, "orders", call(second)), 200)

	m.Stop(t)
	e.Stop()
	m.Start(t)
	m.startEnvoy(t, "orders")
	meshtest.Eventually(t, accepted(second))
	wantStatus(t, "after a restart, the URI in trouble", call(first), m.send(t, "orders", call(first)), 200)
	meshtest.Eventually(t, failing)

	// Another URI: what came from the old one holds no more.
	other := startKeyServer(t, second)
	m.ApplyWait(t, other.issuer("idp", iss, "allowNetworks: [127.0.0.0/8]"))
	meshtest.Eventually(t, accepted(second))
	wantStatus(t, "a key of the old URI", call(first), m.send(t, "orders", call(first)), 401)
}
