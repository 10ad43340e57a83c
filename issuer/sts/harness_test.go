package sts

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-mesh/watchword/internal/jose"
	"github.com/watchword-mesh/watchword/issuer/clientauth"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

var (
	noon   = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	pepper = bytes.Repeat([]byte("p"), clientauth.MinPepper)
)

// mesh is a Server with a small mesh: shop calls orders (also by URI) and
// stock; orders calls nobody.
type mesh struct {
	*Server
	state  *State
	secret string // of shop
	clock  *clock
	log    *syncBuffer
	reg    *prometheus.Registry

	mu      sync.Mutex
	entries []Entry
}

func newMesh(tb testing.TB) *mesh {
	tb.Helper()
	m := &mesh{clock: &clock{now: noon}, log: &syncBuffer{}, reg: prometheus.NewRegistry()}
	m.state, m.secret = newState(tb)
	m.Server = New(Config{
		Logger:     hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: m.log, JSONFormat: true}),
		Registerer: m.reg,
		Pepper:     pepper,
		Now:        m.clock.Now,
		Audit: func(e Entry) {
			m.mu.Lock()
			defer m.mu.Unlock()
			m.entries = append(m.entries, e)
		},
	})
	m.SetState(m.state)
	return m
}

func newState(tb testing.TB) (*State, string) {
	tb.Helper()
	record, err := keyset.First("ES256", noon)
	if err != nil {
		tb.Fatalf("First: %v", err)
	}
	keys, err := keyset.NewSet(keyset.Keys{Records: map[string]keyset.Record{record.KeyID: record}, Open: keyset.Open{Active: record.KeyID}})
	if err != nil {
		tb.Fatalf("NewSet: %v", err)
	}
	plain, secret, err := clientauth.NewSecret("shop", pepper, noon)
	if err != nil {
		tb.Fatalf("NewSecret: %v", err)
	}
	secret.ID = "SECRETOFSHOP1" // a fixed one for golden entries
	return &State{
		Issuer:      "https://sts.example.com",
		TrustDomain: "example.com",
		Keys:        keys,
		Services: map[string]Service{
			"shop": {Calls: map[string][]string{
				"orders":                     {"write", "read"},
				"https://orders.example.com": nil,
				"stock":                      nil,
				"*":                          nil, // what a faulty compiler could leave here
			}},
			"orders": {},
		},
		Secrets: map[string][]clientauth.Secret{"shop": {secret}},
	}, plain
}

// audited takes the entries since the last call.
func (m *mesh) audited() []Entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries
	m.entries = nil
	return e
}

// ask sends a request to the handler and waits for the whole answer.
func (m *mesh) ask(r *http.Request) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, r)
	return w
}

// form makes a request to the token endpoint with this body.
func form(body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/token", strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

// tokenRequest asks as shop, with Basic.
func (m *mesh) tokenRequest(pairs ...string) *http.Request {
	v := url.Values{"grant_type": {"client_credentials"}}
	for i := 0; i < len(pairs); i += 2 {
		v.Add(pairs[i], pairs[i+1])
	}
	r := form(v.Encode())
	r.SetBasicAuth("shop", m.secret)
	return r
}

// claimsOf verifies a token with the published keys.
func (m *mesh) claimsOf(tb testing.TB, token string) map[string]any {
	tb.Helper()
	verified, err := jose.Verify(token, m.state.Keys.Keys(), jose.VerifyOptions{Types: []string{"at+jwt"}})
	if err != nil {
		tb.Fatalf("Verify: %v", err)
	}
	var claims map[string]any
	if err := json.Unmarshal(verified.Claims, &claims); err != nil {
		tb.Fatalf("claims %s: %v", verified.Claims, err)
	}
	return claims
}

func tokenOf(tb testing.TB, w *httptest.ResponseRecorder) string {
	tb.Helper()
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || answer.AccessToken == "" {
		tb.Fatalf("answer %d has no access_token: %v", w.Code, err)
	}
	return answer.AccessToken
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func issuerOf(tb testing.TB, claims []byte) string {
	tb.Helper()
	var c struct {
		Issuer string `json:"iss"`
	}
	if err := json.Unmarshal(claims, &c); err != nil {
		tb.Fatalf("claims %s: %v", claims, err)
	}
	return c.Issuer
}
