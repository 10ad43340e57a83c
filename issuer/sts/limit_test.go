package sts

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/internal/failures"
)

// A source that keeps failing hears 429 until a second has passed; the audit
// has one entry about it. Whoever has the right secret, other sources, and
// readers of keys and metadata are not touched.
func TestFailedAuthenticationsAreLimited(t *testing.T) {
	m := newMesh(t)
	wrong := func(address string) *httptest.ResponseRecorder {
		r := form("grant_type=client_credentials&audience=orders")
		r.SetBasicAuth("shop", "wrong")
		r.RemoteAddr = address
		return m.ask(r)
	}
	const one = "198.51.100.7:1000"
	for i := range failures.Burst {
		if w := wrong(one); w.Code != 401 {
			t.Fatalf("failure %d: %d %s, want 401", i+1, w.Code, w.Body)
		}
	}
	m.audited()
	for range 3 {
		w := wrong("198.51.100.7:2000")
		want := `{"error":"temporarily_unavailable","error_description":"too many failed requests from this address; check the client credentials"}`
		if w.Code != 429 || w.Body.String() != want || w.Header().Get("Retry-After") != "1" {
			t.Errorf("after %d failures: %d %s, Retry-After %q; want 429 %s and 1", failures.Burst, w.Code, w.Body, w.Header().Get("Retry-After"), want)
		}
	}
	if e := m.audited(); len(e) != 1 || e[0].Code != CodeUnavailable || !strings.Contains(e[0].Reason, "wrong secret") || e[0].Source != "198.51.100.7" {
		t.Errorf("audit of three limited requests: %+v, want one entry", e)
	}

	right := m.tokenRequest("audience", "orders")
	right.RemoteAddr = one
	if w := m.ask(right); w.Code != 200 {
		t.Errorf("right secret from that address: %d %s, want 200", w.Code, w.Body)
	}
	if w := wrong("198.51.100.8:1000"); w.Code != 401 {
		t.Errorf("another address: %d %s, want 401", w.Code, w.Body)
	}
	for _, path := range []string{"/jwks", "/.well-known/oauth-authorization-server"} {
		r := httptest.NewRequest("GET", path, nil)
		r.RemoteAddr = one
		if w := m.ask(r); w.Code != 200 {
			t.Errorf("GET %s: %d, want 200", path, w.Code)
		}
	}

	m.clock.Advance(time.Second)
	if w := wrong(one); w.Code != 401 {
		t.Errorf("a second later: %d, want 401", w.Code)
	}
	if w := wrong(one); w.Code != 429 {
		t.Errorf("and again at once: %d, want 429", w.Code)
	}
}

// What an authenticated service does wrong doesn't count.
func TestRefusedServicesAreNotLimited(t *testing.T) {
	m := newMesh(t)
	for i := range 2 * failures.Burst {
		if w := m.ask(m.tokenRequest("audience", "ghost")); w.Code != 400 {
			t.Fatalf("request %d: %d %s, want 400", i+1, w.Code, w.Body)
		}
	}
}

// A client that floods hears 429 when it has had its burst, and the audit says it a
// bounded number of times; another client isn't touched.
func TestClientsHaveAPace(t *testing.T) {
	m := newMesh(t)
	m.load = newLoad(2, 1)
	for i := range 20 {
		if w := m.ask(m.tokenRequest("audience", "orders")); w.Code != 200 {
			t.Fatalf("request %d: %d %s, want 200", i+1, w.Code, w.Body)
		}
	}
	m.audited()
	for range 3 * failures.Burst {
		if w := m.ask(m.tokenRequest("audience", "orders")); w.Code != 429 || w.Header().Get("Retry-After") != "1" {
			t.Fatalf("beyond the burst: %d %s, want 429", w.Code, w.Body)
		}
	}
	if got := len(m.audited()); got != failures.Burst+1 {
		t.Errorf("%d entries of the audit about the flood, want %d", got, failures.Burst+1)
	}
	if leave, err := m.serveClient(Entry{Service: "orders", Credential: "other"}); err != nil {
		t.Errorf("another client: %v", err)
	} else {
		leave()
	}
	m.clock.Advance(time.Second)
	if w := m.ask(m.tokenRequest("audience", "orders")); w.Code != 200 {
		t.Errorf("a second later: %d, want 200", w.Code)
	}
}
