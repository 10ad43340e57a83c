package sts

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"
)

// given takes what clients give up.
type given struct {
	tokens []RevokedToken
	err    error
}

func (g *given) RevokeToken(_ context.Context, t RevokedToken) error {
	if g.err == nil {
		g.tokens = append(g.tokens, t)
	}
	return g.err
}

func revokingMesh(t testing.TB) (*mesh, *given) {
	t.Helper()
	m, g := newMesh(t), &given{}
	m.revoker = g
	m.routes = byPath(m.endpoints())
	m.SetState(m.state)
	return m, g
}

// A client gives up its own token; what nobody accepts anyway is answered 200 and goes
// nowhere; and a store that fails is 503 with a time to try again (RFC 7009 section 2.2.1).
func TestRevoke(t *testing.T) {
	m, g := revokingMesh(t)
	token := tokenOf(t, m.ask(m.tokenRequest("audience", "orders")))
	claims := m.claimsOf(t, token)
	post := func(token string, secret string) (int, string) {
		t.Helper()
		r := form(url.Values{"token": {token}, "token_type_hint": {"refresh_token"}}.Encode())
		r.URL.Path = "/revoke"
		r.SetBasicAuth("shop", secret)
		w := m.ask(r)
		return w.Code, w.Header().Get("Retry-After") + w.Body.String()
	}
	for name, tt := range map[string]struct {
		token, secret string
		want          int
		text          string
	}{
		"not a token": {"abc", m.secret, 200, ""},
		"changed":     {token[:len(token)-8] + "AAAAAAAA", m.secret, 200, ""},
		"none":        {"", m.secret, 400, "invalid_request"},
		"a stranger":  {token, "wrong", 401, "invalid_client"},
	} {
		if got, text := post(tt.token, tt.secret); got != tt.want || !strings.Contains(text, tt.text) || tt.want == 200 && text != "" {
			t.Errorf("%s: %d %q, want %d %q", name, got, text, tt.want, tt.text)
		}
	}
	if len(g.tokens) != 0 {
		t.Errorf("%+v were given up", g.tokens)
	}
	g.err = errors.New("etcd is away")
	if got, text := post(token, m.secret); got != 503 || !strings.HasPrefix(text, "2") || strings.Contains(text, "etcd") {
		t.Errorf("a store that fails: %d %q, want 503 with Retry-After, and no word of why", got, text)
	}
	g.err = nil
	if got, _ := post(token, m.secret); got != 200 || len(g.tokens) != 1 || g.tokens[0].ID != claims["jti"] || g.tokens[0].Service != "shop" {
		t.Errorf("its own: %d, %+v; want 200 and the token %v", got, g.tokens, claims["jti"])
	}
	m.clock.Advance(time.Hour)
	if got, _ := post(token, m.secret); got != 200 || len(g.tokens) != 1 {
		t.Errorf("one that has expired: %d, %d given up; want 200 and no more", got, len(g.tokens))
	}
	if strings.Contains(m.log.String(), token[:40]) {
		t.Error("the log has the token")
	}
}

// The metadata names the endpoint, and how to authenticate there, where there is one
// (RFC 8414 section 2).
func TestRevocationMetadata(t *testing.T) {
	with, _ := revokingMesh(t)
	for _, want := range []string{`"revocation_endpoint":"https://sts.example.com/revoke"`, `"revocation_endpoint_auth_methods_supported":["client_secret_basic"`} {
		if body := string(with.view.Load().metadata.body); !strings.Contains(body, want) {
			t.Errorf("the metadata lacks %s: %s", want, body)
		}
	}
	if body := string(newMesh(t).view.Load().metadata.body); strings.Contains(body, "revocation") {
		t.Errorf("without a revoker: %s", body)
	}
}

// What strangers send as a token is never given up, and breaks nothing.
func FuzzRevoke(f *testing.F) {
	m, g := revokingMesh(f)
	token := tokenOf(f, m.ask(m.tokenRequest("audience", "orders")))
	f.Add("abc")
	f.Add(token[:len(token)-2])
	f.Add("eyJhbGciOiJub25lIn0.eyJqdGkiOiJ4In0.")
	f.Fuzz(func(t *testing.T, text string) {
		if text == token {
			return
		}
		if _, ours := readOwn(text, m.view.Load()); ours {
			t.Errorf("%q is taken for one of ours", text)
		}
		_ = g
	})
}
