package meshtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// Protocol of a Conn.
type Protocol string

// The protocols that callers speak, without TLS.
const (
	HTTP1 Protocol = "HTTP/1.1"
	HTTP2 Protocol = "HTTP/2.0" // with prior knowledge, RFC 9113 section 3.3
)

// Conn is a caller with one connection that stays open over all its requests.
// A request that would need another connection fails the test.
type Conn struct {
	// Address of the server.
	Address string
	// Protocol; default HTTP1.
	Protocol Protocol

	client *http.Client
	dials  atomic.Int32
}

// Call is a request. The zero value is GET / without a token.
type Call struct {
	Method, Path, Host string
	// Token goes into Authorization, after "Bearer ".
	Token string
	// Header is sent beside it.
	Header http.Header
	Body   string
}

// String shows the call without its token.
func (c Call) String() string {
	return fmt.Sprintf("%s %s (host %q, token %t, header %v)", c.method(), c.Path, c.Host, c.Token != "", c.Header)
}

func (c Call) method() string {
	if c.Method == "" {
		return http.MethodGet
	}
	return c.Method
}

// Answer is what came back.
type Answer struct {
	Status int
	Header http.Header
	Body   string
	// Seen is what the service got; nil if the request did not reach it.
	Seen *Seen
}

// errDialled is what a request gets that would need a second connection.
var errDialled = errors.New("the connection that was to stay open is gone")

// Open prepares the connection, which the first request makes.
func (c *Conn) Open(t testing.TB) {
	t.Helper()
	transport := &http.Transport{
		MaxConnsPerHost: 1, MaxIdleConnsPerHost: 1, DisableCompression: true,
		Protocols: new(http.Protocols),
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			if c.dials.Add(1) > 1 {
				return nil, errDialled
			}
			var d net.Dialer
			return d.DialContext(ctx, network, c.Address)
		},
	}
	transport.Protocols.SetHTTP1(c.Protocol != HTTP2)
	transport.Protocols.SetUnencryptedHTTP2(c.Protocol == HTTP2)
	c.client = &http.Client{
		Transport:     transport,
		Timeout:       Patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(transport.CloseIdleConnections)
}

// Do sends a request on the connection.
func (c *Conn) Do(t testing.TB, call Call) Answer {
	t.Helper()
	if c.client == nil {
		c.Open(t)
	}
	req, err := http.NewRequestWithContext(t.Context(), call.method(), "http://"+c.Address+"/"+strings.TrimPrefix(call.Path, "/"), strings.NewReader(call.Body))
	if err != nil {
		t.Fatal(err)
	}
	if call.Header != nil {
		req.Header = call.Header.Clone()
	}
	req.Host = call.Host
	if call.Token != "" {
		req.Header.Set("Authorization", "Bearer "+call.Token)
	}
	res, err := c.client.Do(req)
	if err != nil {
		t.Fatalf("%s over %s: %v", call, c.Protocol, err)
	}
	defer res.Body.Close()
	return answer(t, res)
}

func answer(t testing.TB, res *http.Response) Answer {
	t.Helper()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	a := Answer{Status: res.StatusCode, Header: res.Header, Body: string(body)}
	if res.StatusCode == http.StatusOK {
		a.Seen = new(Seen)
		if err := json.Unmarshal(body, a.Seen); err != nil {
			t.Fatalf("the service answers with what it saw, not %q", body)
		}
	}
	return a
}

// Send makes a request on a connection of its own. Waits while nobody listens
// there yet: an Envoy is ready before each worker has taken up a new listener.
func Send(t testing.TB, address string, call Call) Answer {
	t.Helper()
	Eventually(t, func() error {
		c, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err
	})
	c := &Conn{Address: address}
	c.Open(t)
	return c.Do(t, call)
}
