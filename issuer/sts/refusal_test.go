package sts

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const (
	noStore   = "Cache-Control: no-store\nContent-Type: application/json\nPragma: no-cache\n"
	challenge = noStore + "Www-Authenticate: Basic realm=\"watchword\", charset=\"UTF-8\"\n"
)

// Each refusal: status, header, body, and the reason that operators see.
func TestRefusals(t *testing.T) {
	const grant = "grant_type=client_credentials"
	asShop := func(body string) func(*mesh) *http.Request {
		return func(m *mesh) *http.Request {
			r := form(body)
			r.SetBasicAuth("shop", m.secret)
			return r
		}
	}
	stranger := func(change func(*mesh, *http.Request)) func(*mesh) *http.Request {
		return func(m *mesh) *http.Request {
			r := form(grant + "&audience=orders")
			change(m, r)
			return r
		}
	}
	for _, c := range []struct {
		name    string
		request func(*mesh) *http.Request
		status  int
		header  string
		body    string
		reason  string // of the audit entry; empty: the description
	}{
		{"no credentials", stranger(func(*mesh, *http.Request) {}), 401, challenge,
			`{"error":"invalid_client","error_description":"client authentication failed; send client_id and client_secret by HTTP Basic or in the body, or a client_assertion"}`,
			"client authentication failed: client_id or client_secret is missing"},
		{"wrong secret", stranger(func(_ *mesh, r *http.Request) { r.SetBasicAuth("shop", "wrong") }), 401, challenge,
			`{"error":"invalid_client","error_description":"client authentication failed; send client_id and client_secret by HTTP Basic or in the body, or a client_assertion"}`,
			"client authentication failed: unknown service or wrong secret"},
		{"unknown service", stranger(func(m *mesh, r *http.Request) { r.SetBasicAuth("ghost", m.secret) }), 401, challenge,
			`{"error":"invalid_client","error_description":"client authentication failed; send client_id and client_secret by HTTP Basic or in the body, or a client_assertion"}`,
			"client authentication failed: unknown service or wrong secret"},
		{"deleted service", func(m *mesh) *http.Request {
			delete(m.state.Services, "shop")
			m.SetState(m.state)
			return m.tokenRequest("audience", "orders")
		}, 401, challenge,
			`{"error":"invalid_client","error_description":"client authentication failed; send client_id and client_secret by HTTP Basic or in the body, or a client_assertion"}`,
			"client authentication failed: unknown service or wrong secret"},
		{"Basic and body", func(m *mesh) *http.Request {
			return m.tokenRequest("audience", "orders", "client_id", "shop", "client_secret", m.secret)
		}, 400, noStore,
			`{"error":"invalid_request","error_description":"client credentials must be sent once, by one method"}`,
			"malformed client authentication: both an Authorization header and credentials in the body"},

		{"no grant type", asShop("audience=orders"), 400, noStore,
			`{"error":"invalid_request","error_description":"grant_type is missing"}`, ""},
		{"another grant type", asShop("grant_type=password&audience=orders"), 400, noStore,
			`{"error":"unsupported_grant_type","error_description":"grant_type must be client_credentials"}`, ""},
		{"duplicate parameter", asShop(grant + "&audience=orders&scope=read&scope=read"), 400, noStore,
			`{"error":"invalid_request","error_description":"a parameter is there more than once"}`, ""},
		{"duplicate parameter, one of them empty", asShop(grant + "&audience=orders&scope=read&scope="), 400, noStore,
			`{"error":"invalid_request","error_description":"a parameter is there more than once"}`, ""},
		{"parameter in the URL", func(m *mesh) *http.Request {
			r := m.tokenRequest("audience", "orders")
			r.URL.RawQuery = "scope=read"
			return r
		}, 400, noStore,
			`{"error":"invalid_request","error_description":"parameters must be in the body, not in the URL"}`, ""},
		{"JSON", func(m *mesh) *http.Request {
			r := m.tokenRequest("audience", "orders")
			r.Header.Set("Content-Type", "application/json")
			return r
		}, 400, noStore,
			`{"error":"invalid_request","error_description":"Content-Type must be application/x-www-form-urlencoded"}`, ""},
		{"no content type", func(m *mesh) *http.Request {
			r := m.tokenRequest("audience", "orders")
			r.Header.Del("Content-Type")
			return r
		}, 400, noStore,
			`{"error":"invalid_request","error_description":"Content-Type must be application/x-www-form-urlencoded"}`, ""},
		{"not form-encoded", asShop(grant + "&audience=%zz"), 400, noStore,
			`{"error":"invalid_request","error_description":"the body is not form-encoded"}`, ""},
		{"too large", asShop(grant + "&x=" + strings.Repeat("x", maxBody)), 413, noStore,
			`{"error":"invalid_request","error_description":"the body is larger than 64 KiB"}`, ""},
		{"body that breaks off", func(m *mesh) *http.Request {
			r := m.tokenRequest("audience", "orders")
			r.Body = io.NopCloser(io.MultiReader(strings.NewReader(grant), brokenReader{}))
			return r
		}, 400, noStore,
			`{"error":"invalid_request","error_description":"the body ended early"}`, "unexpected EOF"},

		{"no audience", asShop(grant), 400, noStore,
			`{"error":"invalid_target","error_description":"resource or audience is missing; name the service that the token is for"}`, ""},
		{"two audiences", asShop(grant + "&audience=orders&audience=stock"), 400, noStore,
			`{"error":"invalid_target","error_description":"a token is for one audience; ask for one at a time"}`, ""},
		{"two resources", asShop(grant + "&resource=https://a.example.com&resource=https://b.example.com"), 400, noStore,
			`{"error":"invalid_target","error_description":"a token is for one audience; ask for one at a time"}`, ""},
		{"resource and audience differ", asShop(grant + "&resource=https://orders.example.com&audience=orders"), 400, noStore,
			`{"error":"invalid_target","error_description":"resource and audience differ; send one of them"}`, ""},
		{"relative resource", asShop(grant + "&resource=orders"), 400, noStore,
			`{"error":"invalid_target","error_description":"resource must be an absolute URI without fragment; use audience for a plain name"}`, ""},
		{"resource with fragment", asShop(grant + "&resource=https://orders.example.com%23"), 400, noStore,
			`{"error":"invalid_target","error_description":"resource must be an absolute URI without fragment; use audience for a plain name"}`, ""},
		{"wildcard", asShop(grant + "&audience=*"), 400, noStore,
			`{"error":"invalid_target","error_description":"the service may not have a token for this audience"}`,
			"an audience must name one service; wildcards are not allowed"},
		{"audience that is there, not called", asShop(grant + "&audience=shop"), 400, noStore,
			`{"error":"invalid_target","error_description":"the service may not have a token for this audience"}`,
			`service "shop" has no call to audience "shop"; add it to the calls of the Service`},
		{"audience that isn't there", asShop(grant + "&audience=ghost"), 400, noStore,
			`{"error":"invalid_target","error_description":"the service may not have a token for this audience"}`,
			`service "shop" has no call to audience "ghost"; add it to the calls of the Service`},

		{"scope not allowed", asShop(grant + "&audience=orders&scope=read+admin"), 400, noStore,
			`{"error":"invalid_scope","error_description":"the service may not have this scope for this audience"}`,
			`scope "admin" is not in the call to this audience; add it to the calls of the Service`},
		{"scope of another audience", asShop(grant + "&audience=stock&scope=read"), 400, noStore,
			`{"error":"invalid_scope","error_description":"the service may not have this scope for this audience"}`,
			`scope "read" is not in the call to this audience; add it to the calls of the Service`},
		{"scope with two spaces", asShop(grant + "&audience=orders&scope=read++write"), 400, noStore,
			`{"error":"invalid_scope","error_description":"scope must be names with one space between them"}`, ""},
		{"scope with a quote", asShop(grant + "&audience=orders&scope=%22"), 400, noStore,
			`{"error":"invalid_scope","error_description":"scope must be names with one space between them"}`, ""},

		{"a lifetime that ends at once", func(m *mesh) *http.Request {
			m.state.Lifetime = 1
			m.SetState(m.state)
			return m.tokenRequest("audience", "orders")
		}, 500, noStore,
			`{"error":"server_error","error_description":"the issuer failed; its log says why"}`,
			`issuing a token to service "shop": exp of a token is 1803902400, which is not after iat, 1803902400`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMesh(t)
			r := c.request(m)
			w := m.ask(r)
			if w.Code != c.status || w.Body.String() != c.body {
				t.Errorf("answer\n got %d %s\nwant %d %s", w.Code, w.Body, c.status, c.body)
			}
			if diff := cmp.Diff(c.header, headerText(w)); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
			entries := m.audited()
			if len(entries) != 1 || entries[0].Outcome != Refused || !strings.Contains(c.body, `"`+entries[0].Code+`"`) || entries[0].Source != "192.0.2.1" {
				t.Fatalf("audit: %+v; want one refusal with the code of the answer and the source", entries)
			}
			if got := entries[0].Reason; got != c.reason && (c.reason != "" || !strings.Contains(c.body, got)) {
				t.Errorf("audit: reason %q, want %q", got, c.reason)
			}
		})
	}
}

// Refusals of the routes, before there is a question about a token.
func TestRouteRefusals(t *testing.T) {
	for _, c := range []struct {
		method, path string
		status       int
		header       string
		body         string
	}{
		{"GET", "/token", 405, "Allow: POST\n" + noStore, `{"error":"invalid_request","error_description":"the method must be POST"}`},
		{"OPTIONS", "/token", 405, "Allow: POST\n" + noStore, `{"error":"invalid_request","error_description":"the method must be POST"}`},
		{"POST", "/jwks", 405, "Allow: GET, HEAD\n" + noStore, `{"error":"invalid_request","error_description":"the method must be GET, HEAD"}`},
		{"DELETE", "/.well-known/openid-configuration", 405, "Allow: GET, HEAD\n" + noStore, `{"error":"invalid_request","error_description":"the method must be GET, HEAD"}`},
		{"GET", "/", 404, noStore, `{"error":"invalid_request","error_description":"there is no such endpoint"}`},
		{"POST", "/token/", 404, noStore, `{"error":"invalid_request","error_description":"there is no such endpoint"}`},
		{"GET", "/mesh/jwks", 404, noStore, `{"error":"invalid_request","error_description":"there is no such endpoint"}`},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			w := newMesh(t).ask(httptest.NewRequest(c.method, c.path, nil))
			if w.Code != c.status || w.Body.String() != c.body {
				t.Errorf("answer\n got %d %s\nwant %d %s", w.Code, w.Body, c.status, c.body)
			}
			if diff := cmp.Diff(c.header, headerText(w)); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
		})
	}
}

// Before the first state nothing is answered, on any path.
func TestNotReady(t *testing.T) {
	s := New(Config{})
	for _, st := range []*State{nil, {}} {
		s.SetState(st)
		for _, path := range []string{"/token", "/jwks", "/.well-known/oauth-authorization-server", "/x"} {
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
			want := `503 {"error":"temporarily_unavailable","error_description":"the issuer has no configuration yet; try again"}`
			if got := fmt.Sprint(w.Code, " ", w.Body); got != want || w.Header().Get("Retry-After") != "1" {
				t.Errorf("GET %s: %s, Retry-After %q; want %s and 1", path, got, w.Header().Get("Retry-After"), want)
			}
		}
	}
}

// headerText is the header in its own order, as one text.
func headerText(w *httptest.ResponseRecorder) string {
	var b strings.Builder
	_ = w.Header().Write(&b)
	return strings.ReplaceAll(b.String(), "\r\n", "\n")
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
