package dataplane

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// BenchmarkMiddleware is a request over a connection that stays open, to a server with
// the middleware and to the same without it, in turns; x-off is what the first is of
// the second. The token is one that was seen before.
func BenchmarkMiddleware(b *testing.B) {
	d := plane(b, nil)
	enforce(b, d, rulesetWith(strict("")))
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") })
	request := "GET /orders/7 HTTP/1.1\r\nHost: orders\r\n" + joinLines([]string{"User-Agent: bench", "Accept: */*", "Authorization: Bearer " + jwt("exp", time.Now().Add(time.Hour).Unix())}) + "\r\n"
	on, off := newCaller(b, d.Middleware(handler)), newCaller(b, handler)
	var with, without time.Duration
	for b.Loop() {
		start := time.Now()
		on.ask(b, request)
		middle := time.Now()
		off.ask(b, request)
		with += middle.Sub(start)
		without += time.Since(middle)
	}
	b.ReportMetric(float64(with.Nanoseconds())/float64(b.N)/1e3, "us/on")
	b.ReportMetric(float64(without.Nanoseconds())/float64(b.N)/1e3, "us/off")
	b.ReportMetric(float64(with)/float64(without), "x-off")
	b.ReportMetric(0, "ns/op")
}

type caller struct {
	conn net.Conn
	r    *bufio.Reader
}

func newCaller(b *testing.B, h http.Handler) *caller {
	s := httptest.NewServer(h)
	b.Cleanup(s.Close)
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Close() })
	return &caller{c, bufio.NewReader(c)}
}

func (c *caller) ask(b *testing.B, request string) {
	if _, err := io.WriteString(c.conn, request); err != nil {
		b.Fatal(err)
	}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
		b.Fatalf("status %d, %v", res.StatusCode, err)
	}
}
