package proxy

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// recorder is an upstream that keeps what it is sent and answers each head with
// 200.
func recorder(t testing.TB) (address string, heads chan string) {
	heads = make(chan string, 16)
	u := newUpstream(t, func(_ int, c *peer) {
		for {
			h := c.head()
			if h == "" {
				return
			}
			if strings.Contains(h, "\nTransfer-Encoding: chunked") {
				h += "\n\n" + c.take(len("5\r\nhello\r\n0\r\n\r\n"))
			} else if strings.Contains(h, "\nContent-Length: 5") {
				h += "\n\n" + c.take(5)
			}
			heads <- h
			c.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	return u.address, heads
}

// TestWire proves byte for byte what of a caller's request an upstream gets, and
// what is refused before it gets anything. A name in front of the proxy sets
// X-Watchword-Caller, as a Middleware does.
func TestWire(t *testing.T) {
	address, heads := recorder(t)
	p := newProxy(t, Config{Upstream: address, Protocol: HTTP1})
	judged := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("X-Watchword-Caller")
		r.Header.Set("X-Watchword-Caller", "orders")
		p.ServeHTTP(w, r)
	})
	s := serve(t, listen(t), judged, ServerConfig{})
	const ours = "X-Forwarded-For: 127.0.0.1\nX-Forwarded-Proto: http\nX-Watchword-Caller: orders"
	for _, tt := range []struct {
		name, in, want string // want: a head as sent, or the status of a refusal
	}{
		{"plain", "GET /a%2Fb?q=1 HTTP/1.1\r\nHost: h\r\nX-A: 1\r\nX-A: 2\r\n\r\n",
			"GET /a%2Fb?q=1 HTTP/1.1\nHost: h\nX-A: 1\nX-A: 2\n" + ours},
		{"absolute form", "GET http://other/x HTTP/1.1\r\nHost: h\r\n\r\n", "GET /x HTTP/1.1\nHost: other\n" + ours},
		{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "OPTIONS * HTTP/1.1\nHost: h\n" + ours},
		{"HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\nHost: \n" + ours},
		{"two slashes", "GET //evil/x HTTP/1.1\r\nHost: h\r\n\r\n", "GET //evil/x HTTP/1.1\nHost: h\n" + ours},
		{"length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
			"POST / HTTP/1.1\nContent-Length: 5\nHost: h\n" + ours + "\n\nhello"},
		{"no body", "POST / HTTP/1.1\r\nHost: h\r\n\r\n", "POST / HTTP/1.1\nContent-Length: 0\nHost: h\n" + ours},
		{"chunked", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
			"POST / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n" + ours + "\n\n5\r\nhello\r\n0\r\n\r\n"},
		{"same length twice", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
			"POST / HTTP/1.1\nContent-Length: 5\nHost: h\n" + ours + "\n\nhello"},
		{"expect", "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
			"POST / HTTP/1.1\nContent-Length: 5\nHost: h\n" + ours + "\n\nhello"},
		{"connection names ours", "GET / HTTP/1.1\r\nHost: h\r\nConnection: x-watchword-caller, close\r\n\r\n",
			"GET / HTTP/1.1\nHost: h\n" + ours},
		{"connection names theirs", "GET / HTTP/1.1\r\nHost: h\r\nConnection: X-Hop\r\nx-hop: 1\r\nX-End: 2\r\n\r\n",
			"GET / HTTP/1.1\nHost: h\nX-End: 2\n" + ours},
		{"hop by hop", "GET / HTTP/1.1\r\nHost: h\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nProxy-Authorization: Basic eA==\r\nTE: gzip\r\n\r\n",
			"GET / HTTP/1.1\nHost: h\n" + ours},
		{"upgrade to h2c", "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
			"GET / HTTP/1.1\nHost: h\n" + ours},
		{"upgrade to two", "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n",
			"GET / HTTP/1.1\nHost: h\n" + ours},
		{"upgrade without connection", "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n",
			"GET / HTTP/1.1\nHost: h\n" + ours},
		{"forwarded", "GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 8.8.8.8\r\nX-Forwarded-Proto: https\r\nForwarded: for=a\r\n\r\n",
			"GET / HTTP/1.1\nForwarded: for=a\nHost: h\nX-Forwarded-For: 9.9.9.9, 8.8.8.8, 127.0.0.1\nX-Forwarded-Proto: http\nX-Watchword-Caller: orders"},

		{"both framings", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
			"POST / HTTP/1.1\nHost: h\nTransfer-Encoding: chunked\n" + ours + "\n\n5\r\nhello\r\n0\r\n\r\n"},
		{"two lengths", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", "400"},
		{"signed length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +5\r\n\r\nhello", "400"},
		{"listed length", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\nhello", "400"},
		{"other coding", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "501"},
		{"coding twice", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400|501"},
		{"coding with a tab", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", "400|501"},
		{"space before colon", "GET / HTTP/1.1\r\nHost: h\r\nX-A : 1\r\n\r\n", "400"},
		{"fold in the first", "GET / HTTP/1.1\r\n Host: h\r\n\r\n", "400"},
		{"NUL", "GET / HTTP/1.1\r\nHost: h\r\nX-A: a\x00b\r\n\r\n", "400"},
		{"CR", "GET / HTTP/1.1\r\nHost: h\r\nX-A: a\rb\r\n\r\n", "400"},
		{"two hosts", "GET / HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", "400"},
		{"no host", "GET / HTTP/1.1\r\n\r\n", "400"},
		{"other version", "GET / HTTP/1.2\r\nHost: h\r\n\r\n", "GET / HTTP/1.1\nHost: h\n" + ours},
		{"no path", "GET http:x HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
		{"fragment", "GET /?a#b HTTP/1.1\r\nHost: h\r\n\r\n", "400"},
		{"connect", "CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", "405"},
		{"websocket with a body", "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello", "400"},
		{"websocket by POST", "POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "400"},
		{"preface of HTTP/2", "PRI * HTTP/2.0\r\nHost: h\r\n\r\n", "400"},
	} {
		c := dial(t, s.address)
		c.send("%s", tt.in)
		if !strings.Contains(tt.want, "HTTP/1.1") {
			got := c.status()
			ok := tt.want == "" && got == ""
			for want := range strings.SplitSeq(tt.want, "|") {
				ok = ok || want != "" && strings.HasPrefix(got, "HTTP/1.1 "+want)
			}
			if !ok {
				t.Errorf("%s: %q: got %q, want status %q", tt.name, tt.in, got, tt.want)
			}
			c.Close()
			continue
		}
		if tt.name == "expect" {
			if got := c.status(); got != "HTTP/1.1 100 Continue" {
				t.Errorf("%s: got %q, want 100", tt.name, got)
			}
		}
		if got := c.status(); !strings.HasSuffix(got, "200 OK") {
			t.Errorf("%s: %q: got %q, want 200", tt.name, tt.in, got)
			c.Close()
			continue
		}
		c.Close()
		if got := <-heads; got != tt.want {
			t.Errorf("%s: %q reached the upstream as\n%q, want\n%q", tt.name, tt.in, got, tt.want)
		}
	}
	select {
	case got := <-heads:
		t.Errorf("of the refused requests, this reached the upstream: %q", got)
	default:
	}
}

// TestFolded proves that a folded line (obs-fold) reaches an upstream as one line
// or not at all.
func TestFolded(t *testing.T) {
	address, heads := recorder(t)
	c := dial(t, front(t, Config{Upstream: address}))
	c.send("GET / HTTP/1.1\r\nHost: h\r\nX-A: 1\r\n  X-B: 2\r\n\r\n")
	if got := c.status(); strings.Contains(got, " 400 ") {
		return
	}
	if got := <-heads; !strings.Contains(got, "\nX-A: 1 X-B: 2\n") {
		t.Errorf("got %q", got)
	}
}

// h2Request sends one request over HTTP/2 frame by frame, so that it may be what no
// client would send, and returns the status or the error code.
func h2Request(t *testing.T, address string, fields ...string) string {
	t.Helper()
	c := dial(t, address)
	defer c.Close()
	c.send(http2.ClientPreface)
	f := http2.NewFramer(c, c.br)
	f.AllowIllegalWrites = true
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := 0; i < len(fields); i += 2 {
		_ = enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = f.WriteSettings()
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			return frame.PseudoValue("status")
		case *http2.RSTStreamFrame:
			return frame.ErrCode.String()
		case *http2.GoAwayFrame:
			return frame.ErrCode.String()
		}
	}
}

// TestDowngrade proves what of HTTP/2 reaches an upstream that speaks HTTP/1.1.
func TestDowngrade(t *testing.T) {
	address, heads := recorder(t)
	at := front(t, Config{Upstream: address, Protocol: HTTP1})
	const ours = "X-Forwarded-For: 127.0.0.1\nX-Forwarded-Proto: http"
	pseudo := func(path string, more ...string) []string {
		return append([]string{":method", "GET", ":scheme", "http", ":authority", "h", ":path", path}, more...)
	}
	for _, tt := range []struct {
		name   string
		fields []string
		want   string
	}{
		{"plain", pseudo("/a", "x-a", "1", "cookie", "a=1", "cookie", "b=2"), "GET /a HTTP/1.1\nCookie: a=1; b=2\nHost: h\nX-A: 1\n" + ours},
		{"te", pseudo("/", "te", "trailers"), "GET / HTTP/1.1\nHost: h\n" + ours},
		{"same host", pseudo("/", "host", "h"), "GET / HTTP/1.1\nHost: h\n" + ours},
		{"other host", pseudo("/", "host", "i"), "400"},
		{"transfer-encoding", pseudo("/", "transfer-encoding", "chunked"), "PROTOCOL_ERROR|400"},
		{"connection", pseudo("/", "connection", "x-a", "x-a", "1"), "PROTOCOL_ERROR|400"},
		{"upgrade", pseudo("/", "upgrade", "h2c"), "PROTOCOL_ERROR|400"},
		{"line end in a value", pseudo("/", "x-a", "1\r\nX-Watchword-Caller: x"), "PROTOCOL_ERROR|400"},
		{"line end in a name", pseudo("/", "x-a: 1\r\nx-b", "1"), "PROTOCOL_ERROR|400"},
		{"line end in the path", pseudo("/ HTTP/1.1\r\nHost: x"), "PROTOCOL_ERROR|400"},
		{"space in the query", pseudo("/?a HTTP/1.1"), "PROTOCOL_ERROR|400"},
		{"space in the path", pseudo("/a b"), "GET /a%20b HTTP/1.1\nHost: h\n" + ours},
		{"absolute path", pseudo("http://x/a"), "PROTOCOL_ERROR|400"},
		{"no path", pseudo(""), "PROTOCOL_ERROR|400"},
		{"method", []string{":method", "GET / HTTP/1.1\r\nX: ", ":scheme", "http", ":authority", "h", ":path", "/"}, "PROTOCOL_ERROR|400"},
		{"authority", []string{":method", "GET", ":scheme", "http", ":authority", "h\r\nX-A: 1", ":path", "/"}, "PROTOCOL_ERROR|400"},
		{"two authorities", pseudo("/", ":authority", "i"), "PROTOCOL_ERROR|400"},
		{"pseudo after others", pseudo("/", "x-a", "1", ":method", "POST"), "PROTOCOL_ERROR|400"},
		{"extended connect", []string{":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "h", ":path", "/"}, "PROTOCOL_ERROR|400|405"},
		{"length of a body that is not there", pseudo("/", "content-length", "5"), "GET / HTTP/1.1\nHost: h\n" + ours},
	} {
		got := h2Request(t, at, tt.fields...)
		if strings.Contains(tt.want, "HTTP/1.1") {
			if got != "200" {
				t.Errorf("%s: %q: got %s, want 200", tt.name, tt.fields, got)
				continue
			}
			if got := <-heads; got != tt.want {
				t.Errorf("%s: %q reached the upstream as\n%q, want\n%q", tt.name, tt.fields, got, tt.want)
			}
			continue
		}
		ok := false
		for want := range strings.SplitSeq(tt.want, "|") {
			ok = ok || got == want
		}
		if !ok {
			t.Errorf("%s: %q: got %s, want %s", tt.name, tt.fields, got, tt.want)
		}
	}
	select {
	case got := <-heads:
		t.Errorf("of the refused requests, this reached the upstream: %q", got)
	default:
	}
}
