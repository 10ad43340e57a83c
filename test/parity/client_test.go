package parity

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// forwarded is a request as the service got it.
type forwarded struct {
	Method, Path, Body string
	Header             http.Header
}

// echo is the service.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(forwarded{r.Method, r.RequestURI, string(body), r.Header}.each(runes))
})

func serveEcho(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(echo)
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

// outcome is what is compared.
type outcome struct {
	Allowed   bool
	Reason    reason.Word
	Observed  reason.Word
	Status    int
	Body      string
	Type      string // of the body
	Challenge string
	Forward   *forwarded
}

// client is a caller of one data plane.
type client struct {
	name    string // of the data plane
	address string
	conn    net.Conn
	reader  *bufio.Reader
}

func newClient(t *testing.T, name, address string) *client {
	c := &client{name: name, address: address}
	t.Cleanup(c.hangUp)
	return c
}

func (c *client) hangUp() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// send is request, for a test that ends if there is no answer.
func (c *client) send(t testing.TB, req ruleset.Request) outcome {
	t.Helper()
	o, err := c.request(req)
	if err != nil {
		t.Fatalf("%v\nrequest:\n%s", err, show(req))
	}
	return o
}

// request sends a request as it is, on a connection that stays open.
func (c *client) request(req ruleset.Request) (outcome, error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", req.Method, req.Path, req.Authority)
	for _, f := range req.Header {
		fmt.Fprintf(&b, "%s: %s\r\n", f.Name, f.Value)
	}
	if len(req.Body) > 0 || req.Method == http.MethodPost {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(req.Body))
	}
	b.WriteString("\r\n")
	b.Write(req.Body)
	for try := 0; ; try++ {
		o, err := c.try(req.Method, b.Bytes())
		if err == nil {
			return o, nil
		}
		c.hangUp()
		if try == 2 {
			return o, fmt.Errorf("%s: %w", c.name, err)
		}
	}
}

func (c *client) try(method string, request []byte) (outcome, error) {
	if c.conn == nil {
		conn, err := net.Dial("tcp", c.address)
		if err != nil {
			return outcome{}, err
		}
		c.conn, c.reader = conn, bufio.NewReader(conn)
	}
	_ = c.conn.SetDeadline(time.Now().Add(meshtest.Patience))
	if _, err := c.conn.Write(request); err != nil {
		return outcome{}, err
	}
	res, err := http.ReadResponse(c.reader, &http.Request{Method: method})
	if err != nil {
		return outcome{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return outcome{}, err
	}
	if res.Close {
		c.hangUp()
	}
	return outcomeOf(res, body)
}

func outcomeOf(res *http.Response, body []byte) (outcome, error) {
	o := outcome{
		Reason:   reason.Word(res.Header.Get(reason.Header)),
		Observed: reason.Word(res.Header.Get(reason.ObservedHeader)),
		Status:   res.StatusCode,
	}
	if o.Reason != "" {
		o.Body, o.Type, o.Challenge = string(body), res.Header.Get("content-type"), res.Header.Get("www-authenticate")
		return o, nil
	}
	o.Allowed = res.StatusCode == http.StatusOK
	if o.Allowed {
		var saw forwarded
		if err := json.Unmarshal(body, &saw); err != nil {
			return o, err
		}
		saw = saw.each(unrunes)
		o.Forward = &saw
		for _, own := range []string{"X-Forwarded-Proto", "X-Request-Id", "X-Envoy-Expected-Rq-Timeout-Ms", "X-Envoy-Original-Path", "Content-Length", "X-Forwarded-For", "Transfer-Encoding"} {
			delete(o.Forward.Header, own)
		}
	}
	return o, nil
}

// evaluated is what the reference says.
func evaluated(d ruleset.Decision) outcome {
	o := outcome{Allowed: d.Allowed, Reason: d.Reason, Observed: d.Observed, Status: http.StatusOK}
	if !d.Allowed {
		o.Observed, o.Status, o.Body, o.Type, o.Challenge = "", d.Status, d.Body, d.ContentType, d.WWWAuthenticate
		return o
	}
	o.Forward = &forwarded{Method: d.Forward.Method, Path: d.Forward.Path, Body: string(d.Forward.Body), Header: http.Header{}}
	for _, f := range d.Forward.Header {
		o.Forward.Header.Add(f.Name, f.Value)
	}
	delete(o.Forward.Header, "Content-Length")
	return o
}

// each applies f to all that is not a method.
func (f forwarded) each(change func(string) string) forwarded {
	out := forwarded{f.Method, change(f.Path), change(f.Body), http.Header{}}
	for name, values := range f.Header {
		for _, v := range values {
			out.Header[name] = append(out.Header[name], change(v))
		}
	}
	return out
}

// runes has a rune for each byte: JSON has no bytes that are not UTF-8.
func runes(s string) string {
	out := make([]rune, len(s))
	for i := range len(s) {
		out[i] = rune(s[i])
	}
	return string(out)
}

// unrunes undoes runes.
func unrunes(s string) string {
	var out []byte
	for _, r := range s {
		out = append(out, byte(r))
	}
	return string(out)
}
