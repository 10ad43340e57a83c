package sts

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

const metadataDocument = `{"issuer":"ISSUER","token_endpoint":"BASE/token","jwks_uri":"BASE/jwks","grant_types_supported":["client_credentials"],` +
	`"token_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post","private_key_jwt"],"token_endpoint_auth_signing_alg_values_supported":["ES256","EdDSA"],"response_types_supported":[],` +
	`"subject_types_supported":["public"],"id_token_signing_alg_values_supported":["ES256"]}`

// Where the documents are, for issuers with and without a path, and that URLs
// in them follow from the issuer.
func TestDocuments(t *testing.T) {
	for _, c := range []struct {
		issuer, base string
		metadata     []string
		jwks         []string
	}{
		{
			"https://sts.example.com", "https://sts.example.com",
			[]string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"},
			[]string{"/jwks", "/.well-known/jwks.json"},
		},
		{
			"https://sts.example.com/", "https://sts.example.com",
			[]string{"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"},
			[]string{"/jwks", "/.well-known/jwks.json"},
		},
		{
			"https://example.com/a/mesh", "https://example.com/a/mesh",
			[]string{
				"/.well-known/oauth-authorization-server", "/.well-known/openid-configuration", // a proxy strips the path
				"/.well-known/oauth-authorization-server/a/mesh", "/.well-known/openid-configuration/a/mesh", // RFC 8414 sections 3.1 and 5
				"/a/mesh/.well-known/oauth-authorization-server", "/a/mesh/.well-known/openid-configuration", // OpenID Connect Discovery
			},
			[]string{"/jwks", "/a/mesh/jwks", "/a/mesh/.well-known/jwks.json"},
		},
	} {
		m := newMesh(t)
		m.state.Issuer = c.issuer
		m.SetState(m.state)
		want := strings.NewReplacer("ISSUER", c.issuer, "BASE", c.base).Replace(metadataDocument)
		for _, path := range c.metadata {
			w := m.ask(httptest.NewRequest("GET", path, nil))
			if w.Code != 200 || w.Body.String() != want || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("issuer %s: GET %s\n got %d %s (%s)\nwant 200 %s", c.issuer, path, w.Code, w.Body, w.Header().Get("Content-Type"), want)
			}
		}
		for _, path := range c.jwks {
			w := m.ask(httptest.NewRequest("GET", path, nil))
			if w.Code != 200 || w.Body.String() != string(m.state.Keys.JWKS()) || w.Header().Get("Content-Type") != "application/jwk-set+json" {
				t.Errorf("issuer %s: GET %s\n got %d %s (%s)\nwant 200 %s", c.issuer, path, w.Code, w.Body, w.Header().Get("Content-Type"), m.state.Keys.JWKS())
			}
		}
	}
}

// The token endpoint answers below the path of the issuer too.
func TestTokenBelowThePathOfTheIssuer(t *testing.T) {
	m := newMesh(t)
	m.state.Issuer = "https://example.com/mesh"
	m.SetState(m.state)
	for path, want := range map[string]int{"/token": 200, "/mesh/token": 200, "/token/mesh": 404, "/mesh": 404} {
		r := m.tokenRequest("audience", "stock")
		r.URL.Path = path
		if w := m.ask(r); w.Code != want {
			t.Errorf("POST %s: %d %s, want %d", path, w.Code, w.Body, want)
		}
	}
}

// A reader keeps a document and asks whether it has changed (RFC 9110 section
// 13); it changes with the keys.
func TestConditionalGet(t *testing.T) {
	m := newMesh(t)
	get := func(etag string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("GET", "/jwks", nil)
		if etag != "" {
			r.Header.Set("If-None-Match", etag)
		}
		return m.ask(r)
	}
	first := get("")
	etag := first.Header().Get("ETag")
	if got := first.Header().Get("Cache-Control"); got != "public, max-age=300" || etag == "" {
		t.Errorf("Cache-Control %q, ETag %q; want public, max-age=300 and an ETag", got, etag)
	}
	if w := get(etag); w.Code != http.StatusNotModified || w.Body.Len() != 0 || w.Header().Get("ETag") != etag {
		t.Errorf("same ETag: %d %s, ETag %q; want 304, no body, %q", w.Code, w.Body, w.Header().Get("ETag"), etag)
	}
	next, _ := newState(t)
	m.SetState(next)
	if w := get(etag); w.Code != http.StatusOK || w.Header().Get("ETag") == etag {
		t.Errorf("after a change: %d, ETag %q; want 200 and another than %q", w.Code, w.Header().Get("ETag"), etag)
	}
	if w := m.ask(httptest.NewRequest("HEAD", "/jwks", nil)); w.Code != http.StatusOK || w.Body.Len() != 0 {
		t.Errorf("HEAD: %d with %d bytes, want 200 with none", w.Code, w.Body.Len())
	}
}
