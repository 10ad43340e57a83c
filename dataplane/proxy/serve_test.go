package proxy

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var ok = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err == nil {
		_, _ = io.WriteString(w, r.Proto)
	}
})

// TestSlow proves that who sends nothing more is not waited for: in the header
// section, in a body that is read, and in one that nobody reads.
func TestSlow(t *testing.T) {
	const short = 50 * time.Millisecond
	u := newUpstream(t, func(_ int, c *peer) { _, _ = io.Copy(io.Discard, c.br) })
	p := newProxy(t, Config{Upstream: u.address})
	refuse := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) })
	for _, tt := range []struct {
		name, sent string
		handler    http.Handler
		want       string
	}{
		{"head", "GET / HTTP/1.1\r\nHost: h\r\nX-A:", p, ""},
		{"nothing", "", p, ""},
		{"small body", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel", p, "HTTP/1.1 408 Request Timeout"},
		{"large body", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 50000\r\n\r\nhel", p, "HTTP/1.1 408 Request Timeout"},
		{"chunked body", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", p, "HTTP/1.1 408 Request Timeout"},
		{"refused", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel", refuse, "HTTP/1.1 401 Unauthorized"},
	} {
		s := serve(t, listen(t), tt.handler, ServerConfig{HeaderTimeout: short, BodyTimeout: short, StreamTimeout: short})
		c := dial(t, s.address)
		c.send("%s", tt.sent)
		got := c.status()
		if tt.name == "head" && strings.Contains(got, " 408 ") {
			got = ""
		}
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
		_, _ = io.Copy(io.Discard, c.br)
		if !c.closed() {
			t.Errorf("%s: the connection stays open", tt.name)
		}
	}
}

// TestRefusedAtOnce proves that a refusal does not wait for a body that nobody reads.
func TestRefusedAtOnce(t *testing.T) {
	refuse := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) })
	c := dial(t, serve(t, listen(t), refuse, ServerConfig{}).address)
	c.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
	if got := c.status(); got != "HTTP/1.1 401 Unauthorized" {
		t.Errorf("got %q", got)
	}
	if !c.closed() {
		t.Error("the connection stays open")
	}
}

// TestSlowButSteady proves that a body may take longer than the timeout as long as
// it goes on, and that the connection then serves the next request.
func TestSlowButSteady(t *testing.T) {
	s := serve(t, listen(t), ok, ServerConfig{BodyTimeout: 200 * time.Millisecond})
	c := dial(t, s.address)
	c.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\n")
	for range 8 {
		time.Sleep(50 * time.Millisecond) // the caller's pace, not a wait for us
		c.send("x")
	}
	for range 2 {
		resp, err := http.ReadResponse(c.br, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		time.Sleep(250 * time.Millisecond) // the deadline of the body no longer holds
		c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	}
}

// TestSlowReader proves that a caller that takes nothing is not waited for.
func TestSlowReader(t *testing.T) {
	ended := make(chan error, 1)
	endless := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1<<20)); err != nil {
				ended <- err
				return
			}
		}
	})
	s := serve(t, listen(t), endless, ServerConfig{WriteTimeout: 50 * time.Millisecond})
	c := dial(t, s.address)
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	<-ended
}

// TestBounds proves the bounds on headers and on connections.
func TestBounds(t *testing.T) {
	s := serve(t, listen(t), ok, ServerConfig{MaxHeaderBytes: 8 << 10})
	c := dial(t, s.address)
	c.send("GET / HTTP/1.1\r\nHost: h\r\nX-A: %s\r\n\r\n", strings.Repeat("a", 20<<10))
	if got := c.status(); !strings.Contains(got, " 431 ") {
		t.Errorf("got %q for a huge header, want 431", got)
	}

	reg := prometheus.NewRegistry()
	s = serve(t, listen(t), ok, ServerConfig{Name: "inbound", MaxConnections: 1, Registerer: reg})
	first := dial(t, s.address)
	first.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	if got := first.status(); got != "HTTP/1.1 200 OK" {
		t.Errorf("got %q", got)
	}
	if !dial(t, s.address).closed() {
		t.Error("a second connection stays open")
	}
	if got := counted(t, reg, "watchword_proxy_listener_refused_total"); got != 1 {
		t.Errorf("%v refused connections are counted, want 1", got)
	}
}

// counted is the sum of a counter over its labels.
func counted(t *testing.T, reg *prometheus.Registry, name string) (sum float64) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name {
				sum += m.GetCounter().GetValue()
			}
		}
	}
	return sum
}

// TestDrain proves that requests that have begun end as they should, that the
// connection then ends, and that nobody new is let in.
func TestDrain(t *testing.T) {
	begun, finish := make(chan bool), make(chan bool)
	slow := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/" {
			begun <- true
			<-finish
		}
		_, _ = io.WriteString(w, "done")
	})
	s := serve(t, listen(t), slow, ServerConfig{DrainTimeout: patience})
	idle, c := dial(t, s.address), dial(t, s.address)
	c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	<-begun
	idle.send("GET /quick HTTP/1.1\r\nHost: h\r\n\r\n")
	if got := idle.head(); strings.Contains(got, "Connection: close") {
		t.Errorf("before the drain: %q", got)
	}
	idle.want("done")
	s.stop()
	if !idle.closed() {
		t.Error("an idle connection stays open")
	}
	finish <- true
	if got := c.head(); !strings.HasPrefix(got, "HTTP/1.1 200 OK") || !strings.Contains(got, "\nConnection: close\n") {
		t.Errorf("got %q", got)
	}
	c.want("done")
	<-s.ended
}

// TestDrainHTTP2 proves that HTTP/2 without TLS is told to go away, and may finish.
func TestDrainHTTP2(t *testing.T) {
	begun, finish := make(chan bool), make(chan bool)
	slow := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		begun <- true
		<-finish
		_, _ = io.WriteString(w, "done")
	})
	s := serve(t, listen(t), slow, ServerConfig{DrainTimeout: patience})
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	got := make(chan string)
	go func() {
		resp, err := (&http.Client{Transport: tr}).Get("http://" + s.address)
		if err != nil {
			got <- err.Error()
			return
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		got <- string(b)
	}()
	<-begun
	s.stop()
	finish <- true
	if got := <-got; got != "done" {
		t.Errorf("got %q", got)
	}
	<-s.ended
}

// TestDrainEnds proves that what does not end is cut off at the bound: a request
// and a WebSocket. Serve returns only then, and leaves nothing.
func TestDrainEnds(t *testing.T) {
	u := newUpstream(t, func(_ int, c *peer) { echoWebSocket(c) })
	p := newProxy(t, Config{Upstream: u.address})
	begun := make(chan bool)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/wait" {
			p.ServeHTTP(w, r)
			return
		}
		begun <- true
		<-r.Context().Done()
	})
	s := serve(t, listen(t), h, ServerConfig{DrainTimeout: 50 * time.Millisecond})
	ws, c := shake(t, s.address), dial(t, s.address)
	c.send("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n")
	<-begun
	s.stop()
	<-s.ended
	for _, p := range []*peer{ws, c} {
		if !p.closed() {
			t.Error("a connection stays open")
		}
	}
}

// testTLS is a certificate for 127.0.0.1 and a configuration that trusts it.
func testTLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	return &tls.Config{Certificates: s.TLS.Certificates}, &tls.Config{RootCAs: roots}
}

// TestTLS proves that both sides may speak TLS, over HTTP/1.1 and HTTP/2, and that
// an upstream that nobody trusts gets nothing.
func TestTLS(t *testing.T) {
	server, client := testTLS(t)
	back := serve(t, listen(t), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Proto+" "+r.Header.Get("X-Forwarded-Proto"))
	}), ServerConfig{TLS: server})
	at := serve(t, listen(t), newProxy(t, Config{Upstream: "https://" + back.address, TLS: client}), ServerConfig{TLS: server})
	distrust := serve(t, listen(t), newProxy(t, Config{Upstream: "https://" + back.address}), ServerConfig{TLS: server})
	for _, h2 := range []bool{false, true} {
		tr := &http.Transport{TLSClientConfig: client.Clone(), Protocols: new(http.Protocols)}
		tr.Protocols.SetHTTP1(!h2)
		tr.Protocols.SetHTTP2(h2)
		want := "HTTP/1.1 https"
		if h2 {
			want = "HTTP/2.0 https"
		}
		for range 2 {
			if got := get(t, tr, "https://"+at.address); got != "200 "+want {
				t.Errorf("HTTP/2 %v: got %q, want %q", h2, got, want)
			}
		}
		if got := get(t, tr, "https://"+distrust.address); !strings.HasPrefix(got, "503 ") {
			t.Errorf("HTTP/2 %v: got %q, want 503", h2, got)
		}
		tr.CloseIdleConnections()
	}
}

// get returns status and body.
func get(t *testing.T, tr *http.Transport, url string) string {
	t.Helper()
	resp, err := (&http.Client{Transport: tr, Timeout: patience}).Get(url)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return resp.Status[:4] + string(b)
}
