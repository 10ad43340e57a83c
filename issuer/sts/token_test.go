package sts

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The whole answer, the token in it, and the entry in the audit.
func TestTokenIsIssued(t *testing.T) {
	for _, c := range []struct {
		name     string
		pairs    []string
		audience string
		scope    string
		body     string
	}{
		{"by audience, all scopes, sorted", []string{"audience", "orders"}, "orders", "read write", `,"scope":"read write"`},
		{"fewer scopes", []string{"audience", "orders", "scope", "write"}, "orders", "write", `,"scope":"write"`},
		{"a scope twice", []string{"audience", "orders", "scope", "write read write"}, "orders", "read write", `,"scope":"read write"`},
		{"no scope to have", []string{"audience", "stock"}, "stock", "", ""},
		{"by resource", []string{"resource", "https://orders.example.com"}, "https://orders.example.com", "", ""},
		{"by both, equal", []string{"resource", "https://orders.example.com", "audience", "https://orders.example.com"}, "https://orders.example.com", "", ""},
		{"parameters without a value don't count", []string{"audience", "stock", "scope", "", "resource", ""}, "stock", "", ""},
		{"unknown parameters don't count", []string{"audience", "stock", "x", "y"}, "stock", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMesh(t)
			w := m.ask(m.tokenRequest(c.pairs...))
			if w.Code != http.StatusOK {
				t.Fatalf("%v: %d %s", c.pairs, w.Code, w.Body)
			}
			token := tokenOf(t, w)
			wantBody := `{"access_token":"TOKEN","token_type":"Bearer","expires_in":300` + c.body + `}`
			if got := strings.ReplaceAll(w.Body.String(), token, "TOKEN"); got != wantBody {
				t.Errorf("%v: body %s, want %s", c.pairs, got, wantBody)
			}
			wantHeader := http.Header{"Content-Type": {"application/json"}, "Cache-Control": {"no-store"}, "Pragma": {"no-cache"}}
			if diff := cmp.Diff(wantHeader, w.Header()); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
			claims := m.claimsOf(t, token)
			jti, _ := claims["jti"].(string)
			want := map[string]any{
				"iss": "https://sts.example.com", "sub": "spiffe://example.com/shop", "aud": c.audience, "client_id": "shop", "jti": jti,
				"iat": float64(noon.Unix()), "nbf": float64(noon.Unix()), "exp": float64(noon.Unix() + 300),
			}
			if c.scope != "" {
				want["scope"] = c.scope
			}
			if diff := cmp.Diff(want, claims); diff != "" || jti == "" {
				t.Errorf("claims (-want +got), jti %q:\n%s", jti, diff)
			}
			entries := []Entry{{
				Time: noon, Outcome: Issued, Service: "shop", Credential: "SECRETOFSHOP1",
				Audience: c.audience, Scope: c.scope, ID: jti, Source: "192.0.2.1",
			}}
			if diff := cmp.Diff(entries, m.audited()); diff != "" {
				t.Errorf("audit (-want +got):\n%s", diff)
			}
		})
	}
}

// client_secret_post gives the same as Basic.
func TestTokenIsIssuedByPost(t *testing.T) {
	m := newMesh(t)
	w := m.ask(form("grant_type=client_credentials&audience=stock&client_id=shop&client_secret=" + m.secret))
	if w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	m.claimsOf(t, tokenOf(t, w))
}

// Lifetime and clock come from outside; a new token has a new ID.
func TestTokenLifetime(t *testing.T) {
	m := newMesh(t)
	m.state.Lifetime = time.Hour
	m.SetState(m.state)
	ids := map[any]bool{}
	for i := range 3 {
		m.clock.now = noon.Add(time.Duration(i) * 24 * time.Hour)
		w := m.ask(m.tokenRequest("audience", "stock"))
		claims := m.claimsOf(t, tokenOf(t, w))
		iat := m.clock.now.Unix()
		if claims["iat"] != float64(iat) || claims["exp"] != float64(iat+3600) || !strings.Contains(w.Body.String(), `"expires_in":3600`) {
			t.Errorf("at %v: claims %v; want iat %d and an hour more for exp and expires_in", m.clock.now, claims, iat)
		}
		ids[claims["jti"]] = true
	}
	if len(ids) != 3 {
		t.Errorf("3 tokens have %d IDs", len(ids))
	}
}

// Issue gives what the endpoint gives, and refuses what it refuses.
func TestIssue(t *testing.T) {
	m := newMesh(t)
	got, err := m.Issue(t.Context(), Request{Service: "shop", Audience: "orders", Scope: "read"})
	if err != nil {
		t.Fatalf("Issue: %v", err)
	}
	claims := m.claimsOf(t, got.AccessToken)
	if got.Scope != "read" || got.ExpiresIn != 5*time.Minute || got.ID != claims["jti"] || claims["sub"] != "spiffe://example.com/shop" {
		t.Errorf("Issue = scope %q, for %v, ID %s; claims %v", got.Scope, got.ExpiresIn, got.ID, claims)
	}
	want := []Entry{{Time: noon, Outcome: Issued, Service: "shop", Audience: "orders", Scope: "read", ID: got.ID}}
	if diff := cmp.Diff(want, m.audited()); diff != "" {
		t.Errorf("audit (-want +got):\n%s", diff)
	}

	for _, c := range []struct {
		req  Request
		code string
	}{
		{Request{Service: "ghost", Audience: "orders"}, CodeInvalidRequest},
		{Request{Service: "orders", Audience: "stock"}, CodeInvalidTarget},
		{Request{Service: "shop", Audience: "*"}, CodeInvalidTarget},
		{Request{Service: "shop"}, CodeInvalidTarget},
		{Request{Service: "shop", Audience: "orders", Scope: "admin"}, CodeInvalidScope},
	} {
		got, err := m.Issue(t.Context(), c.req)
		if err == nil || err.Code != c.code || got != (Response{}) {
			t.Errorf("Issue(%+v) = %v, want %s", c.req, err, c.code)
		}
		if e := m.audited(); len(e) != 1 || e[0].Outcome != Refused || e[0].Code != c.code {
			t.Errorf("Issue(%+v): audit %+v, want one refusal", c.req, e)
		}
	}
	m.SetState(nil)
	if _, err := m.Issue(t.Context(), Request{Service: "shop", Audience: "orders"}); err == nil || err.Code != CodeUnavailable {
		t.Errorf("Issue without state: %v, want %s", err, CodeUnavailable)
	}
}

// Only so many sign at once; who waits gives up with its request, or is told
// to come back.
func TestSigningIsBounded(t *testing.T) {
	m := newMesh(t)
	for range cap(m.signing) {
		m.signing <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := m.ask(m.tokenRequest("audience", "stock").WithContext(ctx))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") != "1" {
		t.Errorf("all places taken: %d, Retry-After %q; want 503 and 1", w.Code, w.Header().Get("Retry-After"))
	}
	<-m.signing
	if w := m.ask(m.tokenRequest("audience", "stock")); w.Code != http.StatusOK {
		t.Errorf("one place free: %d %s", w.Code, w.Body)
	}
	if len(m.signing) != cap(m.signing)-1 {
		t.Errorf("%d places taken after the request, want %d", len(m.signing), cap(m.signing)-1)
	}
}

// A request waits for its turn as long as turnWait, then hears 503.
func TestSigningTurnTimesOut(t *testing.T) {
	m := newMesh(t)
	synctest.Test(t, func(t *testing.T) {
		m.signing = make(chan struct{}, 1)
		m.signing <- struct{}{}
		began := time.Now()
		_, err := m.Issue(t.Context(), Request{Service: "shop", Audience: "stock"})
		if err == nil || err.Code != CodeUnavailable || !errors.Is(err, errBusy) || time.Since(began) != turnWait {
			t.Errorf("Issue: %v after %v, want %s after %v", err, time.Since(began), CodeUnavailable, turnWait)
		}
	})
}

func TestMetrics(t *testing.T) {
	m := newMesh(t)
	m.ask(m.tokenRequest("audience", "stock"))
	m.ask(m.tokenRequest("audience", "stock"))
	m.ask(m.tokenRequest("audience", "ghost"))
	m.ask(form(""))
	got := map[string]float64{}
	families, err := m.reg.Gather()
	if err != nil {
		t.Fatalf("Gather: %v", err)
	}
	for _, f := range families {
		for _, metric := range f.GetMetric() {
			name := f.GetName()
			for _, l := range metric.GetLabel() {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			got[name] = metric.GetCounter().GetValue() + float64(metric.GetHistogram().GetSampleCount())
		}
	}
	want := map[string]float64{
		"watchword_sts_tokens_issued_total":                      2,
		"watchword_sts_tokens_refused_total code=invalid_client": 1,
		"watchword_sts_tokens_refused_total code=invalid_target": 1,
		"watchword_sts_token_request_seconds":                    4,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}
