package e2e

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// fetchToken takes the way that a service takes: OAuth client credentials, by
// a library that knows nothing of Watchword.
func fetchToken(t *testing.T, m *mesh, service, audience string, style oauth2.AuthStyle) string {
	t.Helper()
	id, secret := m.ClientSecret(t, service)
	config := clientcredentials.Config{
		ClientID: id, ClientSecret: secret, TokenURL: m.TokenURL(), AuthStyle: style,
		EndpointParams: url.Values{"audience": {audience}},
	}
	token, err := config.Token(m.HTTPContext(t))
	if err != nil {
		t.Fatalf("token of %s for %s: %v", service, audience, err)
	}
	return token.AccessToken
}

// The main job: policies applied, tokens from the token endpoint, and a real
// Envoy that lets in the right caller and nobody else.
func TestMainJob(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, m.service(t, "orders")+
		resource("Service", "billing", "{}")+
		resource("Service", "shop", "calls: [{service: orders, scopes: [read]}, {service: billing}]")+
		resource("Service", "stranger", "calls: [{service: orders}]")+
		allowOnly("orders", "shop"))
	m.startEnvoy(t, "orders")

	right := fetchToken(t, m, "shop", "orders", oauth2.AuthStyleInHeader)
	for _, c := range []struct {
		what, token string
		want        int
	}{
		{"no token", "", 401},
		{"no JWT", "abc", 401},
		{"a token whose signature was changed", flip(right), 401},
		{"a token for another audience", fetchToken(t, m, "shop", "billing", oauth2.AuthStyleInHeader), 403},
		{"a caller that the policy does not allow", fetchToken(t, m, "stranger", "orders", oauth2.AuthStyleInParams), 403},
		{"the right caller", right, 200},
		{"the right caller, secret in the body", fetchToken(t, m, "shop", "orders", oauth2.AuthStyleInParams), 200},
	} {
		call := meshtest.Call{Path: "/x", Token: c.token}
		wantStatus(t, c.what, call, m.send(t, "orders", call), c.want)
	}

	got := m.send(t, "orders", meshtest.Call{Path: "/x?q=1", Token: right}).Seen
	if got == nil {
		t.Fatal("the right caller did not get in")
	}
	for name, want := range map[string]string{
		"X-Watchword-Caller": "spiffe://mesh.local/shop",
		"X-Watchword-Issuer": m.IssuerURL(),
		"Authorization":      "",
	} {
		if value := strings.Join(got.Header.Values(name), ","); value != want {
			t.Errorf("the service saw %s: %q, want %q", name, value, want)
		}
	}
	if got.Path != "/x" || got.Query != "q=1" {
		t.Errorf("the service saw %s?%s, want /x?q=1", got.Path, got.Query)
	}
}

// flip changes a signature, at its beginning: the last character may hold
// nothing but padding.
func flip(token string) string {
	i := strings.LastIndex(token, ".") + 1
	first := byte('A')
	if token[i] == first {
		first = 'B'
	}
	return token[:i] + string(first) + token[i+1:]
}

// A verifier that has no Envoy finds the keys by discovery, as go-oidc does.
func TestTokensVerifyByDiscovery(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, resource("Service", "orders", "{}")+resource("Service", "shop", "calls: [{service: orders}]"))
	token := m.Token(t, "shop", "orders")
	provider, err := oidc.NewProvider(m.HTTPContext(t), m.IssuerURL())
	if err != nil {
		t.Fatal(err)
	}
	verify := func(audience string) error {
		config := &oidc.Config{ClientID: audience, SupportedSigningAlgs: []string{"ES256"}}
		_, err := provider.Verifier(config).Verify(context.WithoutCancel(m.HTTPContext(t)), token)
		return err
	}
	if err := verify("orders"); err != nil {
		t.Errorf("for its audience: %v, want it verified", err)
	}
	if err := verify("billing"); err == nil {
		t.Error("for another audience: verified, want a refusal")
	}
}

// What only the mesh may say about a caller never comes from the caller:
// neither in our headers nor in those filled from claims, on no kind of route,
// in no spelling that a service could read as the same.
func TestSpoofedIdentityIsRemoved(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	issuer := newIssuer(t, "https://idp.example", "ES256")
	m.Apply(t, m.service(t, "orders", `routes: [{name: open, paths: ["/open/*"]}, {name: maybe, paths: ["/maybe/*"]}]`)+
		resource("Service", "shop", "calls: [{service: orders}]")+
		issuer.resource("idp")+
		authentication("strict", "orders", "", "STRICT", "{issuer: watchword}", `{issuer: idp, audiences: [orders], outputClaims: [{claimPath: [plan], header: x-plan}]}`)+
		authentication("open", "orders", "open", "OFF")+
		authentication("maybe", "orders", "maybe", "OPTIONAL", `{issuer: idp, audiences: [orders], outputClaims: [{claimPath: [team], header: x-team}]}`))
	m.startEnvoy(t, "orders")

	spoofed := http.Header{
		"X-Watchword-Caller": {"spiffe://mesh.local/root"}, "X-Watchword-Issuer": {"evil"}, "X-Watchword-New": {"evil"},
		"X-Plan": {"evil"}, "X-Team": {"evil"}, "X-Innocent": {"kept"},
	}
	ours := m.Token(t, "shop", "orders")
	theirs := issuer.token(t, meshtest.NewClaims(issuer.iss, "ann", "orders").With("plan", "gold"))
	for _, c := range []struct {
		path, token, caller, plan string
	}{
		{"/open/x", "", "", ""},
		{"/open/x", ours, "", ""},
		{"/maybe/x", "", "", ""},
		{"/x", ours, "spiffe://mesh.local/shop", ""},
		{"/x", theirs, "ann", "gold"},
		{"/maybe/x", theirs, "ann", ""},
	} {
		call := meshtest.Call{Path: c.path, Token: c.token, Header: spoofed}
		got := m.send(t, "orders", call)
		if got.Seen == nil {
			t.Errorf("%s: got %d %q, want it to reach the service", call, got.Status, got.Body)
			continue
		}
		for name, values := range got.Seen.Header {
			if slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, "evil") || strings.Contains(v, "root") }) {
				t.Errorf("%s: the service saw what the caller made up: %s: %q", call, name, values)
			}
		}
		for name, want := range map[string]string{"X-Watchword-Caller": c.caller, "X-Plan": c.plan, "X-Innocent": "kept"} {
			if value := strings.Join(got.Seen.Header.Values(name), ","); value != want {
				t.Errorf("%s: the service saw %s: %q, want %q", call, name, value, want)
			}
		}
	}
	// CGI and its heirs read both as HTTP_X_WATCHWORD_CALLER.
	call := meshtest.Call{Path: "/open/x", Header: http.Header{"x_watchword_caller": {"root"}}}
	if got := m.send(t, "orders", call); got.Seen != nil && len(got.Seen.Header["X_watchword_caller"]) > 0 {
		t.Errorf("%s: the service saw %v", call, got.Seen.Header)
	}
}
