package bundle

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/durationpb"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

func source(issuer, uri string) Source {
	return Source{Issuer: issuer, JWKSURI: &policyv1.JwksUri{Uri: uri}}
}

// authority is a CA of a test's own.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pem = encodePEM("CERTIFICATE", der)
	return a
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func encodePEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// issue makes a certificate for loopback, and its key, both as PEM.
func (a *authority) issue(t *testing.T) (certificate, key string) {
	t.Helper()
	k := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "leaf"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, k.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return encodePEM("CERTIFICATE", der), encodePEM("PRIVATE KEY", pkcs8)
}

// idp is a server that publishes keys, over TLS.
type idp struct {
	*httptest.Server
	ca *authority

	mu       sync.Mutex
	requests []*http.Request
}

func newIDP(t *testing.T, answer http.HandlerFunc, more ...func(*tls.Config)) *idp {
	t.Helper()
	p := &idp{ca: newAuthority(t)}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		p.requests = append(p.requests, r)
		p.mu.Unlock()
		answer(w, r)
	}))
	p.Config.ErrorLog = quiet()
	certificate, key := p.ca.issue(t)
	pair, err := tls.X509KeyPair([]byte(certificate), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	p.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	for _, f := range more {
		f(p.TLS)
	}
	p.StartTLS()
	t.Cleanup(p.Close)
	return p
}

func (p *idp) asked() []*http.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests
}

// source is one that may reach the server.
func (p *idp) source(path string) Source {
	s := source("idp", p.URL+path)
	s.JWKSURI.Ca, s.JWKSURI.AllowNetworks = p.ca.pem, []string{"127.0.0.0/8", "::1/128"}
	return s
}

func keysAnswer(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, set(ec("a"))) }

// wantFailure fetches, and wants an error with all the words and without what
// must not be told.
func wantFailure(t *testing.T, what string, s Source, words ...string) {
	t.Helper()
	got, err := fetch(t.Context(), s, "")
	if err == nil {
		t.Errorf("%s: fetched %+v, want an error", what, got)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: the error %q lacks %q", what, err, w)
		}
	}
	for _, w := range []string{hidden, "\n", "\x1b"} {
		if strings.Contains(err.Error(), w) {
			t.Errorf("%s: the error %q shows %q", what, err, w)
		}
	}
}

// hidden is what no error may show: in URIs, bodies, headers.
const hidden = "s3cret-of-somebody"

// What a source may be and say, rule by rule, over real connections.
func TestFetch(t *testing.T) {
	defer goleak.VerifyNone(t)
	// What the environment says of proxies is not looked at.
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "https_proxy"} {
		t.Setenv(name, "http://127.0.0.1:1")
	}
	t.Run("keys by TLS with a private CA", func(t *testing.T) {
		p := newIDP(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"v1"`)
			w.Header().Set("Cache-Control", "public, max-age=60")
			keysAnswer(w, r)
		})
		got, err := fetch(t.Context(), p.source("/jwks?x=1#fragment"), "")
		if err != nil || string(got.body) != set(ec("a")) || got.etag != `"v1"` || got.maxAge != time.Minute || got.notModified {
			t.Errorf("fetch = %+v, %v", got, err)
		}
		r := p.asked()[0]
		if r.Method != http.MethodGet || r.RequestURI != "/jwks?x=1" || r.Header.Get("If-None-Match") != "" || r.Header.Get("User-Agent") != "watchword" || r.Header.Get("Accept-Encoding") != "" {
			t.Errorf("the request was %s %s %v", r.Method, r.RequestURI, r.Header)
		}
		alone := p.source("/")
		alone.JWKSURI.Ca = ""
		wantFailure(t, "without the CA", alone, "certificate")
		alone.JWKSURI.Ca = newAuthority(t).pem
		wantFailure(t, "with another CA", alone, "certificate")
		alone.JWKSURI.Ca = "-----BEGIN NOTHING-----"
		wantFailure(t, "with a CA that is none", alone, "ca:", "PEM")
	})
	t.Run("entity tag", func(t *testing.T) {
		p := newIDP(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `W/"v2"`)
			w.Header().Set("Cache-Control", "max-age=30")
			if r.Header.Get("If-None-Match") == `W/"v2"` || r.URL.Path == "/always" {
				w.WriteHeader(http.StatusNotModified)
				return
			}
			keysAnswer(w, r)
		})
		first, err := fetch(t.Context(), p.source("/"), "")
		if err != nil {
			t.Fatal(err)
		}
		second, err := fetch(t.Context(), p.source("/"), first.etag)
		if err != nil || !second.notModified || second.etag != first.etag || second.maxAge != 30*time.Second {
			t.Errorf("with the tag %q: %+v, %v; want not modified", first.etag, second, err)
		}
		if third, err := fetch(t.Context(), p.source("/"), `"old"`); err != nil || third.notModified || len(third.body) == 0 {
			t.Errorf("with an old tag: %+v, %v; want a body", third, err)
		}
		wantFailure(t, "304 that nobody asked for", p.source("/always"), "304")
	})
	t.Run("client certificate", func(t *testing.T) {
		p := newIDP(t, keysAnswer, func(c *tls.Config) { c.ClientAuth = tls.RequireAndVerifyClientCert })
		p.TLS.ClientCAs = x509.NewCertPool()
		p.TLS.ClientCAs.AddCert(p.ca.certificate)
		s := p.source("/")
		wantFailure(t, "without one", s, "tls", "certificate")
		s.JWKSURI.ClientCertificate, s.JWKSURI.ClientKey = p.ca.issue(t)
		if _, err := fetch(t.Context(), s, ""); err != nil {
			t.Errorf("with a client certificate: %v", err)
		}
		_, other := p.ca.issue(t)
		s.JWKSURI.ClientKey = other
		wantFailure(t, "with the key of another", s, "clientCertificate")
		s.JWKSURI.ClientKey = hidden
		wantFailure(t, "with a key that is none", s, "clientKey")
	})
	t.Run("TLS 1.1", func(t *testing.T) {
		p := newIDP(t, keysAnswer, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 })
		wantFailure(t, "TLS 1.1", p.source("/"), "tls", "version")
	})
	t.Run("addresses", func(t *testing.T) {
		p := newIDP(t, keysAnswer)
		s := p.source("/")
		s.JWKSURI.AllowNetworks = nil
		wantFailure(t, "loopback", s, "127.0.0.1 is not a public address", "allowNetworks")
		// A name is judged by what it resolves to when it is dialled.
		s.JWKSURI.Uri = strings.Replace(p.URL, "127.0.0.1", "localhost", 1)
		wantFailure(t, "a name of loopback", s, "is not a public address", "allowNetworks")
		s.JWKSURI.AllowNetworks = []string{"10.0.0.0/8"}
		wantFailure(t, "other networks", s, "is not a public address")
		s.JWKSURI.AllowNetworks = []string{"127.0.0.0/8"}
		if _, err := fetch(t.Context(), s, ""); err != nil {
			t.Errorf("a name of an allowed address: %v", err)
		}
		if n := len(p.asked()); n != 1 {
			t.Errorf("the server was asked %d times, want once", n)
		}
		s.JWKSURI.AllowNetworks = []string{"loopback"}
		wantFailure(t, "a range that is none", s, "allowNetworks", "loopback")
	})
	t.Run("http", func(t *testing.T) {
		server := httptest.NewServer(http.HandlerFunc(keysAnswer))
		defer server.Close()
		s := source("idp", server.URL)
		wantFailure(t, "http", s, "not a public address")
		s.JWKSURI.AllowNetworks = []string{"127.0.0.0/8"}
		if _, err := fetch(t.Context(), s, ""); err != nil {
			t.Errorf("http to an allowed address: %v", err)
		}
		s.JWKSURI.Uri = strings.Replace(server.URL, "http:", "https:", 1)
		wantFailure(t, "https to a server of http", s, "HTTP")
	})
	t.Run("URIs", func(t *testing.T) {
		for _, uri := range []string{"", "idp.test", "//idp.test/x", "ftp://idp.test/x", "file:///etc/passwd", "https:", "https:///x", "https://:443/", "https:idp.test", "https://u:" + hidden + "@127.0.0.1/x", "https://" + hidden + "@127.0.0.1/x", "https://127.0.0.1:x/", "://", "https://a b/"} {
			wantFailure(t, "uri "+uri, source("idp", uri), "uri:")
		}
	})
	t.Run("times out", func(t *testing.T) {
		for what, answer := range map[string]http.HandlerFunc{
			"no header": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
			"half a body": func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, set(ec("a"))[:30])
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			},
		} {
			s := newIDP(t, answer).source("/")
			s.JWKSURI.Timeout = durationpb.New(100 * time.Millisecond)
			ctx, cancel := context.WithTimeout(t.Context(), s.timeout())
			got, err := fetch(ctx, s, "")
			cancel()
			if err == nil || !strings.Contains(err.Error(), "within 100ms") {
				t.Errorf("%s: %+v, %v; want an error that names the time", what, got, err)
			}
		}
	})
	t.Run("answers", func(t *testing.T) {
		for what, c := range map[string]struct {
			answer http.HandlerFunc
			words  []string
		}{
			"401":                   {status(401), []string{"status 401"}},
			"500":                   {status(500), []string{"status 500"}},
			"204":                   {status(204), []string{"status 204"}},
			"206":                   {status(206), []string{"status 206"}},
			"header without end":    {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X", strings.Repeat("x", 64<<10)) }, []string{"header"}},
			"a body that is cut":    {cut, []string{"connection ended"}},
			"what is not HTTP":      {raw(hidden + " SSH-2.0\r\n\r\n"), []string{"not HTTP"}},
			"a status line of text": {raw("HTTP/1.1 200" + hidden + "\r\n\r\n"), []string{"not HTTP"}},
			"nothing":               {raw(""), []string{"connection ended"}},
		} {
			wantFailure(t, what, newIDP(t, c.answer).source("/?token="+hidden), c.words...)
		}
		large := newIDP(t, func(w http.ResponseWriter, _ *http.Request) {
			for range 1000 {
				_, _ = io.WriteString(w, strings.Repeat(" ", 1<<10))
			}
		})
		if got, err := fetch(t.Context(), large.source("/"), ""); err != nil || len(got.body) != MaxBytes+1 {
			t.Errorf("of a body of 1 MB %d bytes were read (%v), want %d", len(got.body), err, MaxBytes+1)
		}
	})
	t.Run("redirects", testRedirects)
	t.Run("proxy", testProxy)
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, hidden)
	}
}

func cut(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", "1000")
	_, _ = io.WriteString(w, hidden)
}

// raw answers with bytes of its own.
func raw(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = io.WriteString(c, text)
		_ = c.Close()
	}
}

// A redirect may lead elsewhere on the same server, and nowhere else.
func testRedirects(t *testing.T) {
	elsewhere := newIDP(t, keysAnswer)
	var p *idp
	p = newIDP(t, func(w http.ResponseWriter, r *http.Request) {
		to := map[string]string{
			"/once": "/keys", "/relative": "keys?a=b", "/absolute": p.URL + "/keys", "/three": "/two", "/two": "/once", "/four": "/three", "/loop": "/loop",
			"/port": elsewhere.URL + "/keys", "/host": strings.Replace(p.URL, "127.0.0.1", "localhost", 1) + "/keys",
			"/scheme": strings.Replace(p.URL, "https", "http", 1) + "/keys", "/user": strings.Replace(p.URL, "://", "://u:"+hidden+"@", 1) + "/keys",
			"/nowhere": "", "/bad": "https://%zz" + hidden, "/metadata": "http://169.254.169.254/latest/" + hidden,
		}[r.URL.Path]
		if r.URL.Path == "/keys" {
			keysAnswer(w, r)
			return
		}
		if to != "" {
			w.Header().Set("Location", to)
		}
		w.WriteHeader([]int{301, 302, 303, 307, 308}[len(r.URL.Path)%5])
	})
	for _, path := range []string{"/once", "/relative", "/absolute", "/two", "/three"} {
		if got, err := fetch(t.Context(), p.source(path), ""); err != nil || len(got.body) == 0 {
			t.Errorf("%s: %+v, %v; want the keys", path, got, err)
		}
	}
	for path, words := range map[string][]string{
		"/four": {"more than 3"}, "/loop": {"more than 3"},
		"/port": {"another place", elsewhere.URL}, "/host": {"another place", "localhost"}, "/scheme": {"another place", "http://"},
		"/user": {"without a usable place"}, "/nowhere": {"without a usable place"}, "/bad": {"without a usable place"},
		"/metadata": {"another place", "http://169.254.169.254"},
	} {
		wantFailure(t, path, p.source(path), words...)
	}
	if n := len(elsewhere.asked()); n != 0 {
		t.Errorf("the other server was asked %d times", n)
	}
}

// Through a proxy the keys still come by TLS from the server that the URI
// names; its own address and that of the target are checked as far as they are
// known here.
func testProxy(t *testing.T) {
	p := newIDP(t, keysAnswer)
	var mu sync.Mutex
	var targets []string
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		targets = append(targets, r.Method+" "+r.Host)
		mu.Unlock()
		if r.Host != "unknown.invalid:443" && !strings.Contains(p.URL, r.Host) {
			w.WriteHeader(http.StatusForbidden)
			_, _ = io.WriteString(w, hidden)
			return
		}
		tunnel(w, strings.TrimPrefix(p.URL, "https://"))
	}))
	proxy.Config.ErrorLog = quiet()
	defer proxy.Close()
	s := p.source("/")
	s.JWKSURI.Proxy = proxy.URL
	if got, err := fetch(t.Context(), s, ""); err != nil || len(got.body) == 0 {
		t.Errorf("through the proxy: %+v, %v; want the keys", got, err)
	}
	mu.Lock()
	if want := "[CONNECT " + strings.TrimPrefix(p.URL, "https://") + "]"; fmt.Sprint(targets) != want {
		t.Errorf("the proxy was asked for %v, want %s", targets, want)
	}
	targets = nil
	mu.Unlock()

	change := func(f func(*policyv1.JwksUri)) Source {
		s := p.source("/")
		s.JWKSURI.Proxy = proxy.URL
		f(s.JWKSURI)
		return s
	}
	wantFailure(t, "the proxy's own address", change(func(u *policyv1.JwksUri) { u.Uri, u.AllowNetworks = "https://8.8.8.8/", nil }), "127.0.0.1 is not a public address")
	wantFailure(t, "the target's address", change(func(u *policyv1.JwksUri) {
		u.Uri, u.AllowNetworks = "https://169.254.169.254/", []string{"127.0.0.1/32"}
	}), "169.254.169.254 is not a public address", "allowNetworks")
	wantFailure(t, "the address of the target's name", change(func(u *policyv1.JwksUri) {
		u.Uri, u.Proxy, u.AllowNetworks = "https://localhost/", "http://8.8.8.8:3128", nil
	}), "is not a public address")
	wantFailure(t, "a name that nobody here knows", change(func(u *policyv1.JwksUri) { u.Uri = "https://unknown.invalid/" }), "unknown.invalid does not resolve here", "allowNetworks", "0.0.0.0/0 and ::/0")
	wantFailure(t, "such a name, and half of all addresses", change(func(u *policyv1.JwksUri) { u.Uri, u.AllowNetworks = "https://unknown.invalid/", []string{"0.0.0.0/0"} }), "does not resolve here")
	wantFailure(t, "http through a proxy", change(func(u *policyv1.JwksUri) { u.Uri, u.AllowNetworks = "http://8.8.8.8/", []string{"127.0.0.1/32"} }), "8.8.8.8 would be asked by http")
	for _, bad := range []string{"https://proxy.test:1", "proxy.test:1", "http://", "http://u:" + hidden + "@127.0.0.1:1", "http://proxy.test:1/path", "socks5://127.0.0.1:1"} {
		wantFailure(t, "proxy "+bad, change(func(u *policyv1.JwksUri) { u.Proxy = bad }), "proxy:", "http://HOST:PORT")
	}
	if len(targets) != 0 {
		t.Errorf("the proxy was asked for %v by what is refused", targets)
	}
	everything := []string{"0.0.0.0/0", "::/0"}
	wantFailure(t, "the certificate of another", change(func(u *policyv1.JwksUri) { u.Uri, u.AllowNetworks = "https://unknown.invalid/", everything }), "certificate")
	wantFailure(t, "a proxy that refuses", change(func(u *policyv1.JwksUri) { u.Uri, u.AllowNetworks = "https://forbidden.invalid/", everything }), "CONNECT", "status 403")
}

// tunnel joins a client to a server, until either is done.
func tunnel(w http.ResponseWriter, to string) {
	server, err := net.Dial("tcp", to)
	if err != nil {
		panic(err)
	}
	client, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	_, _ = io.WriteString(client, "HTTP/1.1 200 OK\r\n\r\n")
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			_ = pair[0].Close()
		})
	}
	both.Wait()
}

// Cache-Control may shorten the time between fetches, to 10 s at least.
func TestMaxAge(t *testing.T) {
	for header, want := range map[string]time.Duration{
		"":                        0,
		"public":                  0,
		"max-age=60":              time.Minute,
		"Public, MAX-AGE=3600":    time.Hour,
		`max-age="60"`:            time.Minute,
		"max-age=1":               MinInterval,
		"max-age=0":               MinInterval,
		"no-store":                0,
		"no-store, max-age=0":     0,
		"max-age=5, no-cache":     0,
		"max-age=-1":              0,
		"max-age=x":               0,
		"max-age":                 0,
		"max-age=99999999999":     0,
		"max-age=20, max-age=600": 20 * time.Second,
		"s-maxage=5":              0,
		" max-age = 30 ":          30 * time.Second,
		",,max-age=30,;":          30 * time.Second,
	} {
		if got := maxAge([]string{header}); got != want {
			t.Errorf("maxAge(%q) = %s, want %s", header, got, want)
		}
	}
	if got := maxAge([]string{"public", "max-age=30"}); got != 30*time.Second {
		t.Errorf("maxAge of two lines = %s, want 30s", got)
	}
}

// Whatever the header says, it asks for nothing, or for a time that is not too
// short.
func FuzzMaxAge(f *testing.F) {
	for _, header := range []string{"max-age=60", `public, max-age="5", no-cache`, ",=,max-age=9999999999"} {
		f.Add(header)
	}
	f.Fuzz(func(t *testing.T, header string) {
		if got := maxAge([]string{header}); got != 0 && got < MinInterval {
			t.Errorf("maxAge(%q) = %s", header, got)
		}
	})
}
