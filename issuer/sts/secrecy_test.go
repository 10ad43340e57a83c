package sts

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

// Wherever a client puts its secret or a token, neither shows up in logs (at
// the lowest level), audit or answers to refusals; the token is in its own
// answer alone.
func TestSecretsStayOut(t *testing.T) {
	m, _, key := enrolledMesh(t)
	assertion := m.assertion(t, key, m.state.Issuer)
	issued := m.ask(m.tokenRequest("audience", "orders"))
	token := tokenOf(t, issued)
	signature, asserted := token[strings.LastIndex(token, ".")+1:], assertion[strings.LastIndex(assertion, ".")+1:]

	answers := strings.Builder{}
	for _, credential := range []string{m.secret, token, assertion} {
		requests := []*http.Request{}
		for _, name := range []string{"client_id", "client_secret", "grant_type", "scope", "audience", "resource", "client_assertion", "client_assertion_type", "other"} {
			requests = append(requests,
				form(url.Values{name: {credential}}.Encode()),
				form(url.Values{"client_id": {"shop"}, "client_secret": {"wrong"}, name: {credential}}.Encode()),
				m.tokenRequest(name, credential),
				m.tokenRequest("audience", "orders", name, credential),
				m.tokenRequest("audience", "orders", name, "x"+credential+"%zz"),
			)
		}
		requests = append(requests, assertedForm(credential, "audience", "orders"), assertedForm(credential, "audience", "ghost"))
		swapped := form("audience=orders")
		swapped.SetBasicAuth(credential, "shop")
		bearer := form("audience=orders")
		bearer.Header.Set("Authorization", "Bearer "+credential)
		broken := form("audience=orders&x=%" + credential)
		inURL := m.tokenRequest("audience", "orders")
		inURL.URL.RawQuery = "client_secret=" + credential
		for i, r := range append(requests, swapped, bearer, broken, inURL) {
			r.RemoteAddr = fmt.Sprintf("192.0.2.%d:1000", i) // each with its own limit
			if w := m.ask(r); w.Code != http.StatusOK {
				answers.WriteString(w.Body.String())
			}
		}
	}
	_, err := m.Issue(t.Context(), Request{Service: m.secret, Audience: m.secret, Scope: token})
	answers.WriteString(err.Description)

	audit, jsonErr := json.Marshal(m.audited())
	if jsonErr != nil {
		t.Fatal(jsonErr)
	}
	for name, text := range map[string]string{"log": m.log.String(), "audit": string(audit), "answers": answers.String()} {
		if len(text) < 1000 && name != "answers" || text == "" {
			t.Errorf("the %s is nearly empty, so this test shows nothing: %s", name, text)
		}
		for _, secret := range []string{m.secret[len("wwcs_"):], signature, token[:40], asserted, assertion[:40]} {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("the %s shows a secret: ...%s...", name, text[max(0, i-100):i+10])
			}
		}
	}
}

// What a client sends is cut to a size that fits into audit and log.
func TestShown(t *testing.T) {
	long := strings.Repeat("x", 1000)
	for in, want := range map[string]string{
		"orders":    "orders",
		"":          "",
		long:        long[:256] + "...",
		"a\xffb":    "a\uFFFDb",
		"wwcs_ABC":  "[redacted]",
		"wwjt_ABC":  "[redacted]",
		"eyJhbGci":  "[redacted]",
		"x wwcs_AB": "[redacted]",
	} {
		if got := shown(in); got != want {
			t.Errorf("shown(%q) = %q, want %q", in, got, want)
		}
	}
	for in, want := range map[string]string{"shop": "shop", "shop-2.eu": "shop-2.eu", "Shop": "", "": "", "a b": "", "a\nb": "", long: ""} {
		if got := shownName(in); got != want {
			t.Errorf("shownName(%q) = %q, want %q", in, got, want)
		}
	}
}
