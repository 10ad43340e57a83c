package sts

import (
	"errors"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// served is a mesh behind a real listener, with the issuer that this gives and
// with real time, since the clients have that.
func served(t *testing.T, path string) (*mesh, string) {
	t.Helper()
	m := newMesh(t)
	srv := httptest.NewServer(m.Handler())
	t.Cleanup(srv.Close)
	m.clock.now = time.Now()
	m.state.Issuer = srv.URL + path
	m.SetState(m.state)
	return m, m.state.Issuer
}

// golang.org/x/oauth2 gets a token, and go-oidc finds the keys by discovery
// and verifies it.
func TestGoClients(t *testing.T) {
	for _, path := range []string{"", "/mesh"} {
		for name, style := range map[string]oauth2.AuthStyle{"basic": oauth2.AuthStyleInHeader, "post": oauth2.AuthStyleInParams, "auto": oauth2.AuthStyleAutoDetect} {
			t.Run(name+path, func(t *testing.T) {
				m, issuer := served(t, path)
				provider, err := oidc.NewProvider(t.Context(), issuer)
				if err != nil {
					t.Fatalf("NewProvider(%s): %v", issuer, err)
				}
				config := clientcredentials.Config{
					ClientID: "shop", ClientSecret: m.secret, AuthStyle: style,
					TokenURL: provider.Endpoint().TokenURL, Scopes: []string{"read"},
					EndpointParams: url.Values{"audience": {"orders"}},
				}
				token, err := config.Token(t.Context())
				if err != nil {
					t.Fatalf("Token: %v", err)
				}
				if token.TokenType != "Bearer" || token.Extra("expires_in") != 300.0 || token.Extra("scope") != "read" {
					t.Errorf("got a %s token for %v s with scope %v; want Bearer, 300, read", token.TokenType, token.Extra("expires_in"), token.Extra("scope"))
				}
				verified, err := provider.Verifier(&oidc.Config{ClientID: "orders"}).Verify(t.Context(), token.AccessToken)
				if err != nil {
					t.Fatalf("Verify: %v", err)
				}
				if verified.Subject != "spiffe://example.com/shop" || verified.Issuer != issuer {
					t.Errorf("subject %s of issuer %s; want spiffe://example.com/shop of %s", verified.Subject, verified.Issuer, issuer)
				}
				if _, err := provider.Verifier(&oidc.Config{ClientID: "stock"}).Verify(t.Context(), token.AccessToken); err == nil {
					t.Error("a verifier for another audience accepts the token")
				}
			})
		}
	}
}

// A client sees the error code of a refusal.
func TestGoClientIsRefused(t *testing.T) {
	m, issuer := served(t, "")
	for _, c := range []struct {
		secret, audience string
		want             string
	}{
		{"wrong", "orders", CodeInvalidClient},
		{m.secret, "shop", CodeInvalidTarget},
	} {
		config := clientcredentials.Config{
			ClientID: "shop", ClientSecret: c.secret, AuthStyle: oauth2.AuthStyleInHeader,
			TokenURL: issuer + "/token", EndpointParams: url.Values{"audience": {c.audience}},
		}
		_, err := config.Token(t.Context())
		var got *oauth2.RetrieveError
		if !errors.As(err, &got) || got.ErrorCode != c.want {
			t.Errorf("audience %s: %v, want %s", c.audience, err, c.want)
		}
	}
}
