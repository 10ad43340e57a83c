package sts

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/watchword-mesh/watchword/internal/jose"
	"github.com/watchword-mesh/watchword/issuer/clientauth"
	"github.com/watchword-mesh/watchword/issuer/token"
)

// enrolled are the keys of instances, by "SERVICE/INSTANCE".
type enrolled struct {
	mu   sync.Mutex
	keys map[string]jose.Key
}

func (e *enrolled) InstanceKey(service, instance string) (jose.Key, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	k, ok := e.keys[service+"/"+instance]
	return k, ok
}

func (e *enrolled) revoke(name string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.keys, name)
}

// enrolledMesh is a mesh in which shop has an instance "one" with this key.
func enrolledMesh(tb testing.TB) (*mesh, *enrolled, *jose.PrivateKey) {
	tb.Helper()
	key, err := jose.GenerateKey("ES256")
	if err == nil {
		key, err = key.WithID("one")
	}
	if err != nil {
		tb.Fatal(err)
	}
	e := &enrolled{keys: map[string]jose.Key{"shop/one": key.Public()}}
	m := newMesh(tb)
	m.instances = e
	m.SetState(m.state)
	return m, e, key
}

// assertion is one of shop for this audience, each time another.
func (m *mesh) assertion(tb testing.TB, key *jose.PrivateKey, audience string) string {
	tb.Helper()
	claims, err := json.Marshal(map[string]any{
		"iss": "shop", "sub": "shop", "aud": audience, "jti": token.NewID(), "exp": m.clock.Now().Add(time.Minute).Unix(),
	})
	if err != nil {
		tb.Fatal(err)
	}
	signed, err := key.Signer("JWT").Sign(claims)
	if err != nil {
		tb.Fatal(err)
	}
	return signed
}

func assertedForm(assertion string, pairs ...string) *http.Request {
	v := url.Values{"grant_type": {"client_credentials"}, "client_assertion_type": {clientauth.AssertionType}, "client_assertion": {assertion}}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	return form(v.Encode())
}

// An instance gets what its service may have; the token and the audit name it.
func TestTokenByAssertion(t *testing.T) {
	m, _, key := enrolledMesh(t)
	w := m.ask(assertedForm(m.assertion(t, key, m.state.Issuer), "audience", "orders", "scope", "read"))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	got := m.claimsOf(t, tokenOf(t, w))
	want := map[string]any{
		"iss": "https://sts.example.com", "sub": "spiffe://example.com/shop", "aud": "orders", "client_id": "shop", "instance": "one", "scope": "read",
		"jti": got["jti"], "iat": float64(noon.Unix()), "nbf": float64(noon.Unix()), "exp": float64(noon.Unix() + 300),
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("claims (-want +got):\n%s", diff)
	}
	entries := []Entry{{
		Time: noon, Outcome: Issued, Service: "shop", Credential: "instance/one",
		Audience: "orders", Scope: "read", ID: got["jti"].(string), Source: "192.0.2.1",
	}}
	if diff := cmp.Diff(entries, m.audited()); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}
	// What the service may not have, the instance may not either.
	if w := m.ask(assertedForm(m.assertion(t, key, m.state.Issuer), "audience", "shop")); !strings.Contains(w.Body.String(), CodeInvalidTarget) {
		t.Errorf("for an audience that shop doesn't call: %d %s", w.Code, w.Body)
	}
	// Who asks for it through the admin API has proved no key.
	answer, err := m.Issue(t.Context(), Request{Service: "shop", Audience: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := m.claimsOf(t, answer.AccessToken)["instance"]; ok {
		t.Error("Issue gives a token of an instance")
	}
}

// Whatever is wrong with an assertion, the client hears the same words.
func TestAssertionRefusals(t *testing.T) {
	const body = `{"error":"invalid_client","error_description":"client authentication failed; send client_id and client_secret by HTTP Basic or in the body, or a client_assertion"}`
	other, err := jose.GenerateKey("ES256")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		request func(*mesh, *enrolled, *jose.PrivateKey) *http.Request
		reason  string
		service string
	}{
		{"no JWT", func(*mesh, *enrolled, *jose.PrivateKey) *http.Request { return assertedForm("x", "audience", "orders") },
			"not a signed JWT that can be read", ""},
		{"a key that isn't enrolled", func(m *mesh, _ *enrolled, _ *jose.PrivateKey) *http.Request {
			return assertedForm(m.assertion(t, other, m.state.Issuer), "audience", "orders")
		}, "unknown service or instance, or wrong signature", "shop"},
		{"revoked", func(m *mesh, e *enrolled, key *jose.PrivateKey) *http.Request {
			e.revoke("shop/one")
			return assertedForm(m.assertion(t, key, m.state.Issuer), "audience", "orders")
		}, "unknown service or instance, or wrong signature", "shop"},
		{"deleted service", func(m *mesh, _ *enrolled, key *jose.PrivateKey) *http.Request {
			delete(m.state.Services, "shop")
			m.SetState(m.state)
			return assertedForm(m.assertion(t, key, m.state.Issuer), "audience", "orders")
		}, "unknown service or instance, or wrong signature", "shop"},
		{"for the token endpoint", func(m *mesh, _ *enrolled, key *jose.PrivateKey) *http.Request {
			return assertedForm(m.assertion(t, key, m.state.Issuer+"/token"), "audience", "orders")
		}, "aud of the client assertion must be the issuer's iss", "shop"},
		{"expired", func(m *mesh, _ *enrolled, key *jose.PrivateKey) *http.Request {
			r := assertedForm(m.assertion(t, key, m.state.Issuer), "audience", "orders")
			m.clock.Advance(2 * time.Minute)
			return r
		}, "has expired", "shop"},
		{"another client_id", func(m *mesh, _ *enrolled, key *jose.PrivateKey) *http.Request {
			return assertedForm(m.assertion(t, key, m.state.Issuer), "audience", "orders", "client_id", "orders")
		}, "client_id differs", "orders"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, e, key := enrolledMesh(t)
			w := m.ask(c.request(m, e, key))
			if w.Code != http.StatusUnauthorized || w.Body.String() != body {
				t.Errorf("answer\n got %d %s\nwant 401 %s", w.Code, w.Body, body)
			}
			entries := m.audited()
			if len(entries) != 1 || entries[0].Outcome != Refused || !strings.Contains(entries[0].Reason, c.reason) || entries[0].Service != c.service || entries[0].Credential != "" {
				t.Errorf("audit: %+v; want a refusal of %q with %q", entries, c.service, c.reason)
			}
		})
	}
}

// An assertion is good once, at the token endpoint or for the enrolment, also if
// the state changed meanwhile.
func TestAssertionIsGoodOnce(t *testing.T) {
	m, _, key := enrolledMesh(t)
	text := m.assertion(t, key, m.state.Issuer)
	if service, instance, err := m.VerifyAssertion(text); service != "shop" || instance != "one" || err != nil {
		t.Errorf("VerifyAssertion = %q, %q, %v; want shop, one", service, instance, err)
	}
	next, _ := newState(t)
	m.SetState(next)
	if w := m.ask(assertedForm(text, "audience", "orders")); w.Code != http.StatusUnauthorized {
		t.Errorf("used again at the token endpoint: %d %s", w.Code, w.Body)
	}
	if _, _, err := m.VerifyAssertion(text); !errors.Is(err, clientauth.ErrClient) {
		t.Errorf("used again for the enrolment: %v, want ErrClient", err)
	}
	m.SetState(nil)
	if _, _, err := m.VerifyAssertion(m.assertion(t, key, next.Issuer)); err == nil {
		t.Error("VerifyAssertion without a state gave no error")
	}
}

// golang.org/x/oauth2 authenticates by an assertion.
func TestGoClientByAssertion(t *testing.T) {
	m, issuer := served(t, "/mesh")
	_, e, key := enrolledMesh(t)
	m.instances = e
	m.SetState(m.state)
	config := clientcredentials.Config{
		ClientID: "shop", AuthStyle: oauth2.AuthStyleInParams, TokenURL: issuer + "/token",
		EndpointParams: url.Values{
			"audience": {"orders"}, "client_assertion_type": {clientauth.AssertionType}, "client_assertion": {m.assertion(t, key, issuer)},
		},
	}
	got, err := config.Token(t.Context())
	if err != nil {
		t.Fatalf("Token: %v", err)
	}
	if claims := m.claimsOf(t, got.AccessToken); claims["instance"] != "one" || claims["client_id"] != "shop" {
		t.Errorf("claims %v; want those of instance one of shop", claims)
	}
	var refused *oauth2.RetrieveError
	if _, err := config.Token(t.Context()); !errors.As(err, &refused) || refused.ErrorCode != CodeInvalidClient {
		t.Errorf("the same assertion again: %v, want %s", err, CodeInvalidClient)
	}
}

// The audience of the admin API is one like any other: who has a call to it gets
// tokens for it, and nobody else.
func TestAdminAudienceIsOrdinary(t *testing.T) {
	const admin = "watchword-admin"
	m := newMesh(t)
	if w := m.ask(m.tokenRequest("audience", admin)); !strings.Contains(w.Body.String(), CodeInvalidTarget) {
		t.Errorf("without a call: %d %s", w.Code, w.Body)
	}
	m.state.Services["shop"].Calls[admin] = nil
	m.SetState(m.state)
	w := m.ask(m.tokenRequest("audience", admin))
	if w.Code != http.StatusOK || m.claimsOf(t, tokenOf(t, w))["aud"] != admin {
		t.Errorf("with a call: %d %s", w.Code, w.Body)
	}
}
