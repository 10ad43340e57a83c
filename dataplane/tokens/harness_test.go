package tokens

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/watchword-mesh/watchword/internal/jose"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const tokenURL = "https://sts.test/token"

// fakeSTS is a token endpoint in memory. It signs as the real one does.
type fakeSTS struct {
	mu   sync.Mutex
	key  *jose.PrivateKey
	life time.Duration
	// delay of each answer; the token is signed before it.
	delay time.Duration
	away  bool
	// answer, if not nil, stands for the usual one.
	answer func(audience string) (status int, header http.Header, body string)
	asked  []time.Time
	seen   map[string]bool // assertions
}

func newSTS(tb testing.TB) *fakeSTS {
	tb.Helper()
	return &fakeSTS{key: newKey(tb), life: 5 * time.Minute, seen: map[string]bool{}}
}

func newKey(tb testing.TB) *jose.PrivateKey {
	tb.Helper()
	key, err := jose.GenerateKey("ES256")
	if err != nil {
		tb.Fatal(err)
	}
	return key
}

// set changes it while it is in use.
func (f *fakeSTS) set(change func(*fakeSTS)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

// times are those of the requests so far.
func (f *fakeSTS) times() []time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.asked)
}

func (f *fakeSTS) count() int { return len(f.times()) }

// RoundTrip is the way to it.
func (f *fakeSTS) RoundTrip(req *http.Request) (*http.Response, error) {
	status, header, body, delay, err := f.serve(req)
	if delay > 0 {
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-req.Context().Done():
			return nil, req.Context().Err()
		}
	}
	if err != nil {
		return nil, err
	}
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
}

func (f *fakeSTS) serve(req *http.Request) (status int, header http.Header, body string, delay time.Duration, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, time.Now())
	if f.away {
		return 0, nil, "", f.delay, errors.New("connection refused")
	}
	raw, err := io.ReadAll(req.Body)
	if err != nil {
		return 0, nil, "", 0, err
	}
	form, err := url.ParseQuery(string(raw))
	if err != nil || form.Get("grant_type") != "client_credentials" || form.Get("client_assertion_type") != assertionType || f.seen[form.Get("client_assertion")] {
		return 400, nil, `{"error":"invalid_request"}`, f.delay, nil
	}
	f.seen[form.Get("client_assertion")] = true
	if f.answer != nil {
		status, header, body = f.answer(form.Get("audience"))
		return status, header, body, f.delay, nil
	}
	return 200, nil, f.issue(form.Get("audience")), f.delay, nil
}

func (f *fakeSTS) issue(audience string) string {
	now := time.Now()
	claims, err := json.Marshal(map[string]any{
		"iss": "https://sts.test", "sub": "spiffe://mesh.test/shop", "aud": audience, "client_id": "shop", "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(f.life).Unix(),
	})
	if err != nil {
		panic(err)
	}
	token, err := f.key.Signer("at+jwt").Sign(claims)
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"access_token":%q,"token_type":"Bearer","expires_in":%d}`, token, int64(f.life/time.Second))
}

// source asks it.
func (f *fakeSTS) source(tb testing.TB, change ...func(*Config)) *Source {
	tb.Helper()
	c := Config{TokenURL: tokenURL, HTTPClient: &http.Client{Transport: f}, Assertion: assertion}
	for _, do := range change {
		do(&c)
	}
	s, err := New(c)
	if err != nil {
		tb.Fatalf("New: %v", err)
	}
	return s
}

// assertion is one that the fake knows by being new.
func assertion(time.Time) (string, error) { return "assertion-" + rand.Text(), nil }

// mustToken asks, and wants one.
func mustToken(tb testing.TB, t Tokens, audience string) Token {
	tb.Helper()
	got, err := t.Token(tb.Context(), audience)
	if err != nil {
		tb.Fatalf("Token(%q): %v", audience, err)
	}
	return got
}

func kidOf(tb testing.TB, t Token) string {
	tb.Helper()
	u, err := jose.ParseUnverified(t.Value)
	if err != nil {
		tb.Fatalf("the token is none: %v", err)
	}
	return u.Header().KeyID
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
