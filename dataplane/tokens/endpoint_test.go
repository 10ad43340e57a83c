package tokens

import (
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// The STS is known by its host name and a CA that is given, or of the system, over
// real TLS.
func TestAuthorities(t *testing.T) {
	sts := newSTS(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, _, body, _, err := sts.serve(r)
		if err != nil {
			t.Error(err)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0) // of handshakes that are to fail
	server.StartTLS()
	defer server.Close()
	ask := func(to string, authorities func() []*x509.Certificate) error {
		s, err := New(Config{TokenURL: to, Assertion: assertion, Authorities: authorities})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		_, err = s.Token(t.Context(), "orders")
		return err
	}
	own := func() []*x509.Certificate { return []*x509.Certificate{server.Certificate()} }
	if err := ask(server.URL, own); err != nil {
		t.Errorf("its own CA: %v", err)
	}
	if err := ask(server.URL, nil); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("without its CA: %v; want an error of the certificate", err)
	}
	// The certificate is for 127.0.0.1, not for localhost.
	if err := ask(strings.Replace(server.URL, "127.0.0.1", "localhost", 1), own); err == nil || !strings.Contains(err.Error(), "certificate is") {
		t.Errorf("another host name: %v; want an error of the certificate", err)
	}
	if n := sts.count(); n != 1 {
		t.Errorf("the STS got %d requests, want 1: who isn't known gets no assertion", n)
	}
}

// Where tokens or assertions could be read on the way nothing is asked.
func TestConfigRefuses(t *testing.T) {
	good := Config{TokenURL: tokenURL, Assertion: assertion}
	for _, c := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.TokenURL = "http://sts.test/token" }, "must be https"},
		{func(c *Config) { c.TokenURL = "http://127.0.0.1.nip.io/token" }, "must be https"},
		{func(c *Config) { c.TokenURL = "ftp://127.0.0.1/token" }, "must be https"},
		{func(c *Config) { c.TokenURL = "https://u:p4ss@sts.test/token" }, "without user"},
		{func(c *Config) { c.TokenURL = "/token" }, "is not a URL"},
		{func(c *Config) { c.TokenURL, c.Issuer = "", "http://sts.test" }, "must be https"},
		{func(c *Config) { c.TokenURL = "" }, "neither TokenURL nor Issuer"},
		{func(c *Config) { c.Assertion = nil }, "no Assertion"},
	} {
		config := good
		c.change(&config)
		if _, err := New(config); err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "p4ss") {
			t.Errorf("New(%s %s) = %v; want an error with %q", config.TokenURL, config.Issuer, err, c.want)
		}
	}
	for _, to := range []string{"http://127.0.0.1:1/token", "http://[::1]:1/token", "http://LocalHost/token"} {
		good.TokenURL = to
		s, err := New(good)
		if err != nil {
			t.Errorf("New(%s): %v", to, err)
			continue
		}
		s.Close()
	}
}

// The token endpoint is found in the issuer's metadata, once, and again when it
// fails. What is not of that issuer is refused.
func TestDiscovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const issuer = "https://sts.test/mesh"
		sts := newSTS(t)
		document := `{"issuer":"https://sts.test/mesh","token_endpoint":"https://sts.test/mesh/token"}`
		asked := map[string]int{}
		client := &http.Client{Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
			asked[req.URL.String()]++
			if req.Method == http.MethodPost {
				return sts.RoundTrip(req)
			}
			return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(document)), Request: req}, nil
		})}
		s := sts.source(t, func(c *Config) { c.TokenURL, c.Issuer, c.HTTPClient = "", issuer, client })
		defer s.Close()
		const from = "https://sts.test/.well-known/oauth-authorization-server/mesh"
		mustToken(t, s, "a")
		mustToken(t, s, "b")
		if asked[from] != 1 || asked["https://sts.test/mesh/token"] != 2 {
			t.Errorf("asked %v; want the metadata once and two tokens", asked)
		}
		for document, want := range map[string]string{
			`{"issuer":"https://evil.test","token_endpoint":"https://sts.test/t"}`:                                      "another issuer",
			`{"issuer":"https://sts.test/mesh/","token_endpoint":"https://sts.test/t"}`:                                 "another issuer",
			`{"issuer":"https://sts.test/mesh","token_endpoint":"http://sts.test/t"}`:                                   "must be https",
			`{"issuer":"https://sts.test/mesh"}`:                                                                        "no token_endpoint",
			`{"issuer":"https://sts.test/mesh","issuer":"https://sts.test/mesh","token_endpoint":"https://sts.test/t"}`: "twice",
			`[]`: "not a JSON object",
		} {
			if _, err := parseMetadata([]byte(document), issuer); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v; want an error with %q", document, err, want)
			}
		}
		// It has moved, and the old place is gone.
		sts.set(func(f *fakeSTS) { f.away = true })
		if _, err := s.Token(t.Context(), "c"); err == nil {
			t.Error("a token from an STS that is away")
		}
		document = strings.Replace(document, "/mesh/token", "/moved", 1)
		sts.set(func(f *fakeSTS) { f.away = false })
		time.Sleep(missingPause)
		mustToken(t, s, "c")
		if asked["https://sts.test/moved"] != 1 || asked[from] != 2 {
			t.Errorf("asked %v; want the metadata again, and the new place", asked)
		}
	})
}

// An answer that is too large is not read to its end.
func TestLargeAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		sts.answer = func(string) (int, http.Header, string) {
			return 200, nil, `{"access_token":"x","token_type":"Bearer","expires_in":300,"more":"` + strings.Repeat("x", maxAnswer) + `"}`
		}
		s := sts.source(t)
		defer s.Close()
		if _, err := s.Token(t.Context(), "orders"); err == nil || !strings.Contains(err.Error(), "larger than 64 KiB") {
			t.Errorf("Token: %v; want an error of the size", err)
		}
	})
}

// The host of a URL is loopback by what it says, and by nothing else.
func TestLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"127.0.0.1": true, "127.8.8.8": true, "::1": true, "::ffff:127.0.0.1": true, "localhost": true, "LOCALHOST": true,
		"": false, "0.0.0.0": false, "::": false, "10.0.0.1": false, "localhost.evil.test": false, "127.0.0.1.evil.test": false, "127.1": false, "evil.test": false,
	} {
		if got := loopback(host); got != want {
			t.Errorf("loopback(%q) = %v, want %v", host, got, want)
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
