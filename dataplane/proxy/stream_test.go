package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// TestStream proves that each byte goes both ways before the next is sent: of a
// chunked request, and of a response of each framing.
func TestStream(t *testing.T) {
	for _, framing := range []struct{ head, piece, end string }{
		{"Transfer-Encoding: chunked\r\n", "1\r\nr\r\n", "0\r\n\r\n"},
		{"Content-Length: 3\r\n", "r", ""},
		{"Connection: close\r\n", "r", ""},
	} {
		u := newUpstream(t, func(_ int, c *peer) {
			c.head()
			c.send("HTTP/1.1 200 OK\r\n%s\r\n", framing.head)
			for range 3 {
				c.want("1\r\nq\r\n")
				c.send("%s", framing.piece)
			}
			if !strings.HasPrefix(framing.head, "Content-Length") { // else the response is whole, and nobody waits for the request
				c.want("0\r\n\r\n")
				c.send("%s", framing.end)
			}
		})
		c := dial(t, front(t, Config{Upstream: u.address}))
		c.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
		resp, err := http.ReadResponse(c.br, nil)
		if err != nil {
			t.Fatal(framing, err)
		}
		b := make([]byte, 1)
		for range 3 {
			c.send("1\r\nq\r\n")
			if _, err := io.ReadFull(resp.Body, b); err != nil || b[0] != 'r' {
				t.Fatalf("%q: got %q, %v", framing, b, err)
			}
		}
		c.send("0\r\n\r\n")
		if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
			t.Errorf("%q: got %q, %v at the end", framing, rest, err)
		}
	}
}

// TestTrailers proves that trailers pass both ways, but for those that a service
// could take for what its data plane says.
func TestTrailers(t *testing.T) {
	got := make(chan string, 1)
	u := newUpstream(t, func(_ int, c *peer) {
		h := c.head()
		c.want("1\r\nq\r\n0\r\n")
		got <- h + "\n\n" + c.head()
		c.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-A\r\n\r\n1\r\nr\r\n0\r\nX-A: 1\r\nX-B: 2\r\nContent-Length: 9\r\n\r\n")
	})
	c := dial(t, front(t, Config{Upstream: u.address}))
	c.send("POST / HTTP/1.1\r\nHost: h\r\nX-Role: user\r\nTransfer-Encoding: chunked\r\n" +
		"Trailer: X-Sum, X-Role, X-Watchword-Caller, X_Watchword_Caller, Authorization\r\n\r\n" +
		"1\r\nq\r\n0\r\nX-Sum: 7\r\nX-Role: admin\r\nX-Watchword-Caller: root\r\nX_Watchword_Caller: root\r\nAuthorization: Bearer x\r\n\r\n")
	if got := c.head(); !strings.Contains(got, "\nTrailer: X-A\n") {
		t.Errorf("got head %q", got)
	}
	c.want("1\r\nr\r\n0\r\n")
	if got, want := c.head(), "X-A: 1\nX-B: 2"; got != want {
		t.Errorf("got trailers %q, want %q", got, want)
	}
	want := "POST / HTTP/1.1\nHost: h\nTrailer: X-Sum\nTransfer-Encoding: chunked\nX-Forwarded-For: 127.0.0.1\nX-Forwarded-Proto: http\nX-Role: user\n\nX-Sum: 7"
	if got := <-got; got != want {
		t.Errorf("the upstream got\n%q, want\n%q", got, want)
	}
}

// TestResponses proves what becomes of the answers of an upstream: those that are
// as they should be, and those that could be read in two ways.
func TestResponses(t *testing.T) {
	for _, tt := range []struct{ name, method, answer, want, body string }{
		{"no content", "GET", "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n", "204", ""},
		{"not modified", "GET", "HTTP/1.1 304 Not Modified\r\nEtag: \"a\"\r\nContent-Length: 7\r\n\r\n", "304", ""},
		{"head", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n", "200", ""},
		{"head chunked", "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "200", ""},
		{"until close", "GET", "HTTP/1.0 200 OK\r\n\r\nhello", "200", "hello"},
		{"no reason", "GET", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", "200", ""},
		{"hop by hop", "GET", "HTTP/1.1 200 OK\r\nConnection: x-a, keep-alive\r\nX-A: secret\r\nKeep-Alive: 5\r\nContent-Length: 0\r\n\r\n", "200", ""},
		{"early hints", "GET", "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "103", ""},
		{"continue", "GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "200", "ok"},
		{"large", "GET", "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 60_000) + "\r\nContent-Length: 2\r\n\r\nok", "200", "ok"},

		{"too large", "GET", "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 70_000) + "\r\n\r\n", "502", ""},
		{"endless", "GET", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100), "502", ""},
		{"both framings", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "502", ""},
		{"two lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!", "502", ""},
		{"negative length", "GET", "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "502", ""},
		{"other coding", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "502", ""},
		{"fold", "GET", "HTTP/1.1 200 OK\r\nX-A: 1\r\n X-B: 2\r\nContent-Length: 0\r\n\r\n", "502", ""},
		{"bare LF", "GET", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", "502", ""},
		{"LF in a value", "GET", "HTTP/1.1 200 OK\r\nX-A: 1\nSet-Cookie: a\r\nContent-Length: 0\r\n\r\n", "502", ""},
		{"space before colon", "GET", "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n", "502", ""},
		{"other protocol", "GET", "SSH-2.0-OpenSSH_9.9\r\n", "502", ""},
		{"unasked 101", "GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", "502", ""},
		{"status of two digits", "GET", "HTTP/1.1 20 OK\r\n\r\n", "502", ""},
		{"closed", "GET", "", "502", ""},
	} {
		u := newUpstream(t, func(_ int, c *peer) {
			if c.head() != "" {
				c.send("%s", tt.answer)
			}
		})
		c := dial(t, front(t, Config{Upstream: u.address}))
		c.send("%s / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", tt.method)
		head := c.head()
		if !strings.HasPrefix(head, "HTTP/1.1 "+tt.want+" ") && head != "HTTP/1.1 "+tt.want {
			t.Errorf("%s: %.80q: got %q, want %s", tt.name, tt.answer, head, tt.want)
			continue
		}
		if strings.Contains(head, "secret") {
			t.Errorf("%s: a hop-by-hop header passed: %q", tt.name, head)
		}
		rest, _ := io.ReadAll(c.br)
		if strings.Contains(head, "\nTransfer-Encoding: chunked") && len(rest) > 0 {
			rest, _ = io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(rest)))
		}
		if tt.want != "502" && tt.want != "103" && string(rest) != tt.body {
			t.Errorf("%s: got body %q, want %q", tt.name, rest, tt.body)
		}
		if tt.want == "103" && !strings.HasPrefix(string(rest), "HTTP/1.1 200 OK\r\n") {
			t.Errorf("%s: got %q after it", tt.name, rest)
		}
	}
}

// TestCutOff proves that a response that ends too early is not whole to the caller
// either.
func TestCutOff(t *testing.T) {
	for _, answer := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n",
	} {
		u := newUpstream(t, func(_ int, c *peer) {
			c.head()
			c.send("%s", answer)
		})
		c := dial(t, front(t, Config{Upstream: u.address}))
		c.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		resp, err := http.ReadResponse(c.br, nil)
		if err != nil {
			continue // it came too early for the head
		}
		if body, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%q: got %q as if it were whole", answer, body)
		}
	}
}

// TestEarlyResponse proves that an answer passes while the body is still being
// sent, and that the request ends then.
func TestEarlyResponse(t *testing.T) {
	u := newUpstream(t, func(_ int, c *peer) {
		c.head()
		c.send("HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
	})
	for _, framing := range []string{"Content-Length: 1000000", "Transfer-Encoding: chunked"} {
		c := dial(t, front(t, Config{Upstream: u.address}))
		c.send("POST / HTTP/1.1\r\nHost: h\r\n%s\r\n\r\n", framing)
		if got := c.status(); !strings.Contains(got, " 413 ") {
			t.Errorf("%s: got %q", framing, got)
		}
		c.want("no")
		if !c.closed() {
			t.Errorf("%s: the connection stays open", framing)
		}
	}
}

// TestCallerGone proves that the upstream's connection is closed when the caller
// goes away: before there is an answer, while it is sent, and in a body.
func TestCallerGone(t *testing.T) {
	for _, tt := range []struct{ request, answer string }{
		{"GET / HTTP/1.1\r\nHost: h\r\n\r\n", ""},
		{"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"},
		{"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", ""},
		{"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\na", ""},
	} {
		there, gone := make(chan bool), make(chan bool)
		u := newUpstream(t, func(_ int, c *peer) {
			c.head()
			c.send("%s", tt.answer)
			close(there)
			_, err := io.Copy(io.Discard, c.br)
			gone <- err == nil || !isTimeout(err)
		})
		c := dial(t, front(t, Config{Upstream: u.address}))
		c.send("%s", tt.request)
		<-there
		c.Close()
		if !<-gone {
			t.Errorf("%q: the upstream's connection stays open", tt.request)
		}
	}
}

// TestPool proves that one connection serves many requests; that one is not used
// again over which something came that nobody asked for; and that a request is sent
// again over a new one only if it can't be done twice.
func TestPool(t *testing.T) {
	behave := make(chan string, 1)
	u := newUpstream(t, func(_ int, c *peer) {
		for h := c.head(); h != ""; h = c.head() {
			if strings.Contains(h, "Content-Length: 1") {
				c.take(1)
			}
			how := "answer"
			select {
			case how = <-behave:
			default:
			}
			if how == "close" {
				return
			}
			answer := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
			if how == "poison" {
				// In one write: what comes later can't be told from the next answer.
				answer += "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
			}
			c.send("%s", answer)
		}
	})
	c := dial(t, front(t, Config{Upstream: u.address}))
	const get, post = "GET / HTTP/1.1\r\nHost: h\r\n\r\n", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx"
	for i, tt := range []struct {
		how, request, status, body string
		conns                      int
	}{
		{"", get, "200", "ok", 1},
		{"", post, "200", "ok", 1},
		{"close", get, "200", "ok", 2}, // again over another
		{"close", post, "502", "", 2},
		{"", get, "200", "ok", 3},
		{"poison", get, "200", "ok", 3},
		{"", get, "200", "ok", 4},
	} {
		if tt.how != "" {
			behave <- tt.how
		}
		c.send("%s", tt.request)
		resp, err := http.ReadResponse(c.br, nil)
		if err != nil {
			t.Fatal(i, err)
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil || !strings.HasPrefix(resp.Status, tt.status) || tt.body != "" && string(body) != tt.body {
			t.Errorf("step %d: got %s %q, %v, want %s %q", i, resp.Status, body, err, tt.status, tt.body)
		}
		if got := u.accepted(); got != tt.conns {
			t.Errorf("step %d: %d connections, want %d", i, got, tt.conns)
		}
	}
}

// TestTimeouts proves which status and word an upstream that fails has.
func TestTimeouts(t *testing.T) {
	silent := newUpstream(t, func(_ int, c *peer) { _, _ = io.Copy(io.Discard, c.br) })
	l := listen(t)
	nobody := l.Addr().String()
	l.Close()
	for _, tt := range []struct {
		name, upstream string
		protocol       Protocol
		status, word   string
	}{
		{"silent", silent.address, HTTP1, "504", "upstream_timeout"},
		{"silent h2", silent.address, HTTP2, "504", "upstream_timeout"},
		{"nobody", nobody, HTTP1, "503", "upstream_unreachable"},
		{"nobody h2", nobody, HTTP2, "503", "upstream_unreachable"},
		{"no socket", "unix:" + filepath.Join(t.TempDir(), "none"), HTTP1, "503", "upstream_unreachable"},
	} {
		c := dial(t, front(t, Config{Upstream: tt.upstream, Protocol: tt.protocol, Timeouts: Timeouts{ResponseHeader: 50 * time.Millisecond}}))
		for _, framing := range []string{"", "Transfer-Encoding: chunked\r\n"} {
			c.send("POST / HTTP/1.1\r\nHost: h\r\n%s\r\n", framing)
			if framing != "" {
				c.send("1\r\nx\r\n0\r\n\r\n")
			}
			resp, err := http.ReadResponse(c.br, nil)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			body, err := io.ReadAll(resp.Body)
			if err != nil || !strings.HasPrefix(resp.Status, tt.status) || string(body) != `{"reason":"`+tt.word+`"}` {
				t.Errorf("%s %q: got %s %s, %v, want %s %s", tt.name, framing, resp.Status, body, err, tt.status, tt.word)
			}
		}
	}
}

// TestLimits proves that a body that is too large reaches nobody as a whole.
func TestLimits(t *testing.T) {
	whole := make(chan bool, 4)
	u := newUpstream(t, func(_ int, c *peer) {
		c.head()
		b, _ := io.ReadAll(c.br)
		whole <- strings.HasSuffix(string(b), "0\r\n\r\n")
	})
	at := front(t, Config{Upstream: u.address, MaxBodyBytes: 20})
	for _, body := range []string{"Content-Length: 21\r\n\r\n", "Transfer-Encoding: chunked\r\n\r\n15\r\n" + strings.Repeat("a", 21) + "\r\n0\r\n\r\n"} {
		c := dial(t, at)
		c.send("POST / HTTP/1.1\r\nHost: h\r\n%s", body)
		if got := c.status(); !strings.Contains(got, " 413 ") {
			t.Errorf("%q: got %q, want 413", body, got)
		}
	}
	if u.accepted() > 0 && <-whole {
		t.Error("the upstream got a body that seemed whole")
	}
}

// TestUnixSockets proves that caller and upstream may be at Unix sockets.
func TestUnixSockets(t *testing.T) {
	dir := t.TempDir()
	in, err := net.Listen("unix", filepath.Join(dir, "in"))
	if err != nil {
		t.Fatal(err)
	}
	back, err := net.Listen("unix", filepath.Join(dir, "back"))
	if err != nil {
		t.Fatal(err)
	}
	serve(t, back, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Header.Get("X-Forwarded-For")+r.Header.Get("X-Forwarded-Proto"))
	}), ServerConfig{})
	serve(t, in, newProxy(t, Config{Upstream: "unix:" + filepath.Join(dir, "back")}), ServerConfig{})
	c, err := net.Dial("unix", in.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	p := newPeer(t, c)
	p.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	if got := p.status(); got != "HTTP/1.1 200 OK" {
		t.Errorf("got %q", got)
	}
	p.want("http") // no address to forward
}

// FuzzHead proves that what the parser takes net/http reads in the same way, also
// when it comes byte by byte.
func FuzzHead(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.0 404\r\n\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nx-a: b\r\nX-A:c \r\n\r\n",
		"HTTP/1.1 200 OK\r\nA: 1\r\n B: 2\r\n\r\n", "HTTP/1.1 204 \r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 200 OK\nA: b\n\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text, err := readHead(bufio.NewReader(strings.NewReader(s)), 4096)
		slow, slowErr := readHead(bufio.NewReader(iotest.OneByteReader(strings.NewReader(s))), 4096)
		if (err == nil) && (slowErr != nil || slow != text) && !strings.Contains(strings.ReplaceAll(text, "\r\n", ""), "\n") {
			t.Fatalf("%q: at once %q, byte by byte %q, %v", s, text, slow, slowErr)
		}
		if err != nil {
			return
		}
		got, err := parseHead(text)
		if err != nil {
			return
		}
		frame, err := framingOf("GET", got)
		if err != nil || got.StatusCode < 200 {
			return
		}
		want, err := http.ReadResponse(bufio.NewReader(strings.NewReader(text)), nil)
		if err != nil {
			t.Fatalf("%q: net/http says %v", text, err)
		}
		if got.StatusCode != want.StatusCode || frame.kind == exact && want.ContentLength != frame.length || (frame.kind == chunked) != (len(want.TransferEncoding) > 0) {
			t.Fatalf("%q: got %d %+v, want %d %d %q", text, got.StatusCode, frame, want.StatusCode, want.ContentLength, want.TransferEncoding)
		}
		for name, values := range want.Header {
			if strings.Join(got.Header[name], "\n") != strings.Join(values, "\n") {
				t.Fatalf("%q: %s is %q, want %q", text, name, got.Header[name], values)
			}
		}
	})
}
