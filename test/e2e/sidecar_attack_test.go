package e2e

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// witness is a service that notes each request as its bytes, and answers it.
type witness struct {
	address string
	mu      sync.Mutex
	bytes   bytes.Buffer
	seen    []*http.Request
}

func startWitness(t *testing.T) *witness {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &witness{address: l.Addr().String()}
	srv := &http.Server{Handler: w}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(noting{l, w}) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return w
}

// ServeHTTP implements http.Handler.
func (w *witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return // it was not whole, and is not served
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen = append(w.seen, r)
	_, _ = io.WriteString(rw, "served "+r.URL.Path)
}

// take gives what has come, and forgets it.
func (w *witness) take() (wire string, seen []*http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	wire, seen = w.bytes.String(), w.seen
	w.bytes.Reset()
	w.seen = nil
	return wire, seen
}

type noting struct {
	net.Listener
	w *witness
}

func (n noting) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return notingConn{c, n.w}, nil
}

type notingConn struct {
	net.Conn
	w *witness
}

func (c notingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	c.w.bytes.Write(p[:n])
	return n, err
}

// raw sends bytes and gives all that comes back until the server has nothing to say.
func raw(t *testing.T, address, text string) string {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, text)
	_ = conn.SetReadDeadline(time.Now().Add(250 * time.Millisecond))
	var got bytes.Buffer
	_, _ = io.Copy(&got, conn)
	return got.String()
}

// Whatever a caller writes, the service sees no identity that the sidecar has not
// verified, and no request that was hidden in another one. HIDDEN is in what must not
// arrive.
func TestSidecarForgery(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	w, inbound := startWitness(t), meshtest.FreeAddress(t)
	m.Apply(t, resource("Service", "orders", "dataPlanes: [GO]", fmt.Sprintf("inbound: {port: %s, localAddress: %q}", portOf(inbound), w.address), `routes: [{name: open, paths: ["/open/*"]}]`)+
		resource("AuthenticationPolicy", "open", "target: {services: [orders], routes: [open]}", "mode: OFF")+
		resource("AuthenticationPolicy", "orders", "target: {services: [orders]}", "runOnPreflight: false", "jwtRules: [{issuer: watchword, audiences: [orders], outputPayloadToHeader: x-payload}]")+
		resource("Service", "shop", "{calls: [{service: orders}]}"))
	m.startSidecar(t, "orders")
	meshtest.Eventually(t, func() error {
		c, err := net.Dial("tcp", inbound)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	auth := "Authorization: Bearer " + m.Token(t, "shop", "orders") + "\r\n"
	const host = "Host: orders\r\n"
	var forged string
	for _, name := range []string{
		"x-watchword-caller", "X-WATCHWORD-CALLER", "X_Watchword_Caller", "x-watchword_caller", "x_watchword-subject", "X-Watchword-Anything",
		"x-watchword-consumer", "x-payload", "X_Payload", "X-PAYLOAD",
	} {
		forged += name + ": HIDDEN\r\n" + name + ": HIDDEN2\r\n"
	}
	const hidden = "GET /HIDDEN HTTP/1.1\r\nHost: orders\r\n\r\n"
	for what, c := range map[string]struct {
		text string
		// served are the paths that the service may see.
		served []string
		named  bool // the service is told who calls
	}{
		"a good request":                   {"GET /a HTTP/1.1\r\n" + host + auth + "\r\n", []string{"/a"}, true},
		"identity headers, OFF":            {"GET /open/a HTTP/1.1\r\n" + host + forged + "\r\n", []string{"/open/a"}, false},
		"identity headers, preflight":      {"OPTIONS /a HTTP/1.1\r\n" + host + "Origin: http://x\r\nAccess-Control-Request-Method: PUT\r\n" + forged + "\r\n", []string{"/a"}, false},
		"identity headers, token":          {"GET /a HTTP/1.1\r\n" + host + auth + forged + "\r\n", []string{"/a"}, true},
		"identity trailers, OFF":           {"POST /open/a HTTP/1.1\r\n" + host + "Trailer: x-watchword-caller, x_payload\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + forged + "\r\n", []string{"/open/a"}, false},
		"identity trailers, token":         {"POST /a HTTP/1.1\r\n" + host + auth + "Trailer: x-watchword-caller, X_Watchword_Caller, x_payload\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n" + forged + "\r\n", []string{"/a"}, true},
		"Connection names the caller":      {"GET /a HTTP/1.1\r\n" + host + auth + "Connection: x-watchword-caller, x-payload, X_Watchword_Caller\r\n\r\n", []string{"/a"}, true},
		"Connection names the token":       {"GET /a HTTP/1.1\r\n" + host + auth + "Connection: authorization\r\n\r\n", nil, false},
		"two lengths":                      {"POST /open/a HTTP/1.1\r\n" + host + "Content-Length: 0\r\nContent-Length: 43\r\n\r\n" + hidden, nil, false},
		"two lengths in one":               {"POST /open/a HTTP/1.1\r\n" + host + "Content-Length: 0, 43\r\n\r\n" + hidden, nil, false},
		"a length with a sign":             {"POST /open/a HTTP/1.1\r\n" + host + "Content-Length: +0\r\n\r\n" + hidden, nil, false},
		"length and chunks":                {"POST /open/a HTTP/1.1\r\n" + host + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + hidden, []string{"/open/a"}, false},
		"chunks and length":                {"POST /open/a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nContent-Length: 50\r\n\r\n0\r\n\r\n" + hidden, []string{"/open/a"}, false},
		"chunked twice":                    {"POST /open/a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + hidden, nil, false},
		"chunked by tab":                   {"POST /open/a HTTP/1.1\r\n" + host + "Transfer-Encoding:\x0bchunked\r\nContent-Length: 43\r\n\r\n" + hidden, nil, false},
		"Transfer_Encoding":                {"POST /open/a HTTP/1.1\r\n" + host + "Transfer_Encoding: chunked\r\nContent-Length: 0\r\n\r\n" + hidden, []string{"/open/a"}, false},
		"a bad chunk":                      {"POST /open/a HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n" + hidden, nil, false},
		"a folded line":                    {"GET /open/a HTTP/1.1\r\n" + host + "X-A: b\r\n X-Watchword-Caller: x\r\n\r\n", []string{"/open/a"}, false},
		"a folded first line":              {"GET /open/a HTTP/1.1\r\n X-Watchword-Caller: HIDDEN\r\n" + host + "\r\n", nil, false},
		"a blank before the colon":         {"GET /open/a HTTP/1.1\r\n" + host + "X-Watchword-Caller : HIDDEN\r\n\r\n", nil, false},
		"a bare CR in a value":             {"GET /open/a HTTP/1.1\r\n" + host + "X-A: b\rX-Watchword-Caller: HIDDEN\r\n\r\n", nil, false},
		"a zero in a name":                 {"GET /open/a HTTP/1.1\r\n" + host + "X-Watchword\x00-Caller: HIDDEN\r\n\r\n", nil, false},
		"two hosts":                        {"GET /open/a HTTP/1.1\r\nHost: orders\r\nHost: HIDDEN\r\n\r\n", nil, false},
		"absolute form, another host":      {"GET http://orders/open/a HTTP/1.1\r\nHost: HIDDEN\r\n\r\n", []string{"/open/a"}, false},
		"absolute form, path of STRICT":    {"GET http://orders/HIDDEN HTTP/1.1\r\nHost: orders\r\n\r\n", nil, false},
		"h2c by Upgrade":                   {"GET /open/a HTTP/1.1\r\n" + host + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\nHIDDEN", []string{"/open/a"}, false},
		"CONNECT":                          {"CONNECT HIDDEN:80 HTTP/1.1\r\nHost: HIDDEN:80\r\n\r\n" + hidden, nil, false},
		"CONNECT to an open path":          {"CONNECT /open/a HTTP/1.1\r\n" + host + "\r\n" + hidden, nil, false},
		"dots out of the open route":       {"GET /open/../HIDDEN HTTP/1.1\r\n" + host + "\r\n", nil, false},
		"escaped dots":                     {"GET /open/%2e%2e/HIDDEN HTTP/1.1\r\n" + host + "\r\n", nil, false},
		"an escaped slash":                 {"GET /open/..%2fHIDDEN HTTP/1.1\r\n" + host + "\r\n", nil, false},
		"a backslash":                      {"GET /open/..\\HIDDEN HTTP/1.1\r\n" + host + "\r\n", nil, false},
		"an escaped line end":              {"GET /open/a%0d%0aX-Watchword-Caller:%20b HTTP/1.1\r\n" + host + "\r\n", []string{"/open/a\r\nX-Watchword-Caller: b"}, false},
		"a WebSocket with a request in it": {"GET /open/a HTTP/1.1\r\n" + host + "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 43\r\n\r\n" + hidden, nil, false},
		"HTTP/1.0 keep-alive":              {"GET /open/a HTTP/1.0\r\n" + host + "Connection: keep-alive, x-watchword-caller\r\n" + forged + "\r\n", []string{"/open/a"}, false},
		"expect":                           {"POST /open/a HTTP/1.1\r\n" + host + "Expect: 100-continue\r\nContent-Length: 43\r\n\r\n", []string{"/open/a"}, false},
	} {
		got := raw(t, inbound, c.text)
		wire, seen := w.take()
		var paths []string
		for _, r := range seen {
			paths = append(paths, r.URL.Path)
			callers := append(slices.Clone(r.Header["X-Watchword-Caller"]), r.Trailer["X-Watchword-Caller"]...)
			if want := map[bool]string{true: "[spiffe://mesh.local/shop]", false: "[]"}[c.named]; fmt.Sprint(callers) != want {
				t.Errorf("%s:\n%q\nthe service is told that %v calls, want %s", what, c.text, callers, want)
			}
		}
		if strings.Contains(wire, "HIDDEN") {
			t.Errorf("%s:\n%q\nthe service got\n%q", what, c.text, wire)
		}
		if len(paths) > len(c.served) || !slices.Equal(paths, c.served[:len(paths)]) {
			t.Errorf("%s:\n%q\nthe service served %q, want at most %q", what, c.text, paths, c.served)
		}
		status, _, _ := strings.Cut(got, "\r\n")
		t.Logf("%-34s %q, served %q", what, status, paths)
	}
}
