package sts

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
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
	for i := range failureBurst {
		if w := wrong(one); w.Code != 401 {
			t.Fatalf("failure %d: %d %s, want 401", i+1, w.Code, w.Body)
		}
	}
	m.audited()
	for range 3 {
		w := wrong("198.51.100.7:2000")
		want := `{"error":"temporarily_unavailable","error_description":"too many failed requests from this address; check the client credentials"}`
		if w.Code != 429 || w.Body.String() != want || w.Header().Get("Retry-After") != "1" {
			t.Errorf("after %d failures: %d %s, Retry-After %q; want 429 %s and 1", failureBurst, w.Code, w.Body, w.Header().Get("Retry-After"), want)
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
	for i := range 2 * failureBurst {
		if w := m.ask(m.tokenRequest("audience", "ghost")); w.Code != 400 {
			t.Fatalf("request %d: %d %s, want 400", i+1, w.Code, w.Body)
		}
	}
}

// However many sources there are, the memory for them is bounded, and one that
// fails all the time isn't forgotten for those that failed once.
func TestSourcesAreBounded(t *testing.T) {
	f := newFailures()
	for i := range 3 * maxSources {
		f.add("192.0.2.1", noon)
		f.add(fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), noon)
	}
	if len(f.sources) != maxSources || f.byRecent.Len() != maxSources {
		t.Errorf("%d sources in the map, %d in the list; want %d", len(f.sources), f.byRecent.Len(), maxSources)
	}
	if wait, _ := f.add("192.0.2.1", noon); wait == 0 {
		t.Error("the source that failed most often was forgotten")
	}
}

func TestSources(t *testing.T) {
	for _, c := range []struct{ remote, source, key string }{
		{"192.0.2.1:80", "192.0.2.1", "192.0.2.1"},
		{"[::ffff:192.0.2.1]:80", "192.0.2.1", "192.0.2.1"},
		{"[2001:db8:1:2:3::4]:80", "2001:db8:1:2:3::4", "2001:db8:1:2::/64"},
		{"[fe80::1%eth0]:80", "fe80::1%eth0", "fe80::/64"},
		{"@", "", ""},
	} {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = c.remote
		if got := sourceOf(r); got != c.source {
			t.Errorf("sourceOf(%s) = %q, want %q", c.remote, got, c.source)
		}
		if got := limitKey(c.source); got != c.key {
			t.Errorf("limitKey(%q) = %q, want %q", c.source, got, c.key)
		}
	}
}
