package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// counter gives token-1, token-2 and so on: another one after each that was
// refused.
type counter struct {
	mu    sync.Mutex
	n     int
	stuck bool // there is no other
	err   error
}

func (c *counter) Token(_ context.Context, audience string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fmt.Sprintf("%s-%d", audience, c.n+1), c.err
}

func (c *counter) Refused(_, value string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stuck && strings.HasSuffix(value, fmt.Sprint("-", c.n+1)) {
		c.n++
	}
}

// only has one callee, under the host orders.
func only(c Callee) func(string) (Callee, bool) {
	return func(host string) (Callee, bool) { return c, host == "orders" }
}

func egress(t *testing.T, c EgressConfig) string {
	t.Helper()
	l := listen(t)
	c.Self = []net.Addr{l.Addr()}
	if c.Tokens == nil {
		c.Tokens = &counter{}
	}
	e := NewEgress(c)
	t.Cleanup(e.Close)
	return serve(t, l, e, ServerConfig{}).address
}

// TestEgressWire proves byte for byte what a callee gets of a program's request,
// and what goes nowhere.
func TestEgressWire(t *testing.T) {
	address, heads := recorder(t)
	callee := only(Callee{Service: "orders", Audience: "aud", Endpoints: []string{address}})
	at := egress(t, EgressConfig{Callee: callee})
	pass := egress(t, EgressConfig{Callee: callee, PassUnknown: true})
	for _, tt := range []struct{ name, at, in, want string }{
		{"origin form", at, "GET /a?b HTTP/1.1\r\nHost: Orders:8080\r\n\r\n", "GET /a?b HTTP/1.1\nAuthorization: Bearer aud-1\nHost: Orders:8080"},
		{"absolute form", at, "GET http://orders/a HTTP/1.1\r\nHost: x\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: x\r\n\r\n",
			"GET /a HTTP/1.1\nAuthorization: Bearer aud-1\nHost: orders"},
		{"final dot", at, "GET / HTTP/1.1\r\nHost: orders.\r\n\r\n", "GET / HTTP/1.1\nAuthorization: Bearer aud-1\nHost: orders."},
		{"own token", at, "GET / HTTP/1.1\r\nHost: orders\r\nAuthorization: Basic eA==\r\n\r\n", "GET / HTTP/1.1\nAuthorization: Basic eA==\nHost: orders"},
		{"own token, named", at, "GET / HTTP/1.1\r\nHost: orders\r\nAuthorization: Basic eA==\r\nConnection: authorization\r\n\r\n",
			"GET / HTTP/1.1\nAuthorization: Bearer aud-1\nHost: orders"},
		{"identity", at, "GET / HTTP/1.1\r\nHost: orders\r\nX-Watchword-Caller: a\r\nx_watchword_caller: a\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n",
			"GET / HTTP/1.1\nAuthorization: Bearer aud-1\nHost: orders\nX-Forwarded-For: 9.9.9.9"},
		{"passed", pass, "GET http://" + address + "/a HTTP/1.1\r\nHost: x\r\nX-Watchword-Caller: a\r\n\r\n", "GET /a HTTP/1.1\nHost: " + address},

		{"unknown", at, "GET http://" + address + "/ HTTP/1.1\r\nHost: x\r\n\r\n", "403 callee_unknown"},
		{"no host", at, "GET / HTTP/1.0\r\n\r\n", "400 request_malformed"},
		{"connect", at, "CONNECT orders:443 HTTP/1.1\r\nHost: orders:443\r\n\r\n", "405 speak plain HTTP to the sidecar"},
		{"connect to a callee", pass, "CONNECT orders:443 HTTP/1.1\r\nHost: orders:443\r\n\r\n", "405 speak plain HTTP to the sidecar"},
		{"https", at, "GET https://orders/ HTTP/1.1\r\nHost: orders\r\n\r\n", "400 the scheme"},
		{"itself", pass, "GET / HTTP/1.1\r\nHost: " + pass + "\r\n\r\n", "508 loop"},
		{"itself by name", pass, "GET / HTTP/1.1\r\nHost: localhost:" + pass[strings.LastIndex(pass, ":")+1:] + "\r\n\r\n", "50"},
		{"tunnel to itself", pass, "CONNECT " + pass + " HTTP/1.1\r\nHost: x\r\n\r\n", "508 loop"},
	} {
		c := dial(t, tt.at)
		c.send("%s", tt.in)
		resp, err := http.ReadResponse(c.br, nil)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		c.Close()
		if strings.Contains(tt.want, "HTTP/1.1") {
			if resp.StatusCode != 200 {
				t.Errorf("%s: %q: got %s %s", tt.name, tt.in, resp.Status, body)
			} else if got := <-heads; got != tt.want {
				t.Errorf("%s: %q reached the callee as\n%q, want\n%q", tt.name, tt.in, got, tt.want)
			}
			continue
		}
		code, text, _ := strings.Cut(tt.want, " ")
		if resp.StatusCode < 400 || !strings.HasPrefix(resp.Status, code) || !strings.Contains(string(body), text) {
			t.Errorf("%s: %q: got %s %s, want %s", tt.name, tt.in, resp.Status, body, tt.want)
		}
	}
}

// TestEgressRefuses proves that no token goes over plain text off loopback, whatever
// the name is, and that nothing goes out without one.
func TestEgressRefuses(t *testing.T) {
	for _, tt := range []struct {
		callee Callee
		tokens Tokens
		want   string
	}{
		{Callee{Service: "orders", Endpoints: []string{"192.0.2.1:80"}}, nil, "502 plaintext_refused"},
		{Callee{Service: "orders", Endpoints: []string{"[2001:db8::1]:80"}}, nil, "502 plaintext_refused"},
		{Callee{Service: "orders", Endpoints: []string{"0.0.0.0:1"}}, nil, "502 plaintext_refused"},
		{Callee{Service: "orders", Endpoints: []string{"bad"}}, nil, "503 upstream_unreachable"},
		{Callee{Service: "orders", Endpoints: []string{"127.0.0.1:1"}}, &counter{err: errors.New("secret")}, "503 token_unavailable"},
	} {
		c := dial(t, egress(t, EgressConfig{Callee: only(tt.callee), Tokens: tt.tokens}))
		c.send("GET / HTTP/1.1\r\nHost: orders\r\n\r\n")
		resp, err := http.ReadResponse(c.br, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		code, word, _ := strings.Cut(tt.want, " ")
		if !strings.HasPrefix(resp.Status, code) || !strings.Contains(string(body), `"reason":"`+word+`"`) || strings.Contains(string(body), "secret") {
			t.Errorf("%+v: got %s %s, want %s", tt.callee, resp.Status, body, tt.want)
		}
	}
}

// TestEndpoints proves that endpoints take turns, and that one that can't be reached
// is skipped.
func TestEndpoints(t *testing.T) {
	a, aHeads := recorder(t)
	b, bHeads := recorder(t)
	l := listen(t)
	down := l.Addr().String()
	l.Close()
	at := egress(t, EgressConfig{Callee: only(Callee{Endpoints: []string{a, down, b}})})
	c := dial(t, at)
	for i := range 6 {
		c.send("POST / HTTP/1.1\r\nHost: orders\r\nContent-Length: 5\r\n\r\nhello")
		if got := c.status(); got != "HTTP/1.1 200 OK" {
			t.Fatalf("request %d: got %q", i, got)
		}
		c.want("ok")
	}
	if len(aHeads) < 2 || len(bHeads) < 2 || len(aHeads)+len(bHeads) != 6 {
		t.Errorf("%d and %d requests, want a share for each of 6", len(aHeads), len(bHeads))
	}
}

// picky answers 401 to all but one token.
func picky(good, challenge string, read bool, bodies chan<- string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+good {
			if read {
				_, _ = io.Copy(io.Discard, r.Body)
			}
			w.Header().Set("WWW-Authenticate", challenge)
			w.WriteHeader(401)
			return
		}
		b, _ := io.ReadAll(r.Body)
		bodies <- string(b)
	})
}

// TestRetry proves that a request is sent once more with a fresh token when the
// callee did not accept one, with its whole body, and when it is not.
func TestRetry(t *testing.T) {
	const invalid = `Bearer realm="orders", error="invalid_token"`
	large := strings.Repeat("x", 40_000)
	for _, tt := range []struct {
		name, challenge, body string
		chunked               bool
		tokens                *counter
		want                  int
		again                 float64
	}{
		{"no body", invalid, "", false, &counter{}, 200, 1},
		{"small", invalid, "hello", false, &counter{}, 200, 1},
		{"large", invalid, large, false, &counter{}, 200, 1},
		{"chunked", invalid, large, true, &counter{}, 200, 1},
		{"too large", invalid, strings.Repeat(large, 20), true, &counter{}, 401, 0},
		{"no other token", invalid, "", false, &counter{stuck: true}, 401, 0},
		{"another reason", `Bearer error="insufficient_scope"`, "", false, &counter{}, 401, 0},
		{"refused again", invalid, "", false, &counter{n: 5}, 401, 1},
	} {
		for _, h2 := range []bool{false, true} {
			bodies := make(chan string, 1)
			back := serve(t, listen(t), picky("aud-2", tt.challenge, tt.name == "too large", bodies), ServerConfig{})
			reg := prometheus.NewRegistry()
			tokens := &counter{n: tt.tokens.n, stuck: tt.tokens.stuck}
			at := egress(t, EgressConfig{Callee: only(Callee{Audience: "aud", Endpoints: []string{back.address}}), Tokens: tokens, Registerer: reg})
			tr := &http.Transport{Protocols: new(http.Protocols)}
			tr.Protocols.SetHTTP1(!h2)
			tr.Protocols.SetUnencryptedHTTP2(h2)
			var body io.Reader = strings.NewReader(tt.body)
			if tt.chunked {
				body = struct{ io.Reader }{body}
			}
			req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+at+"/", body)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = "orders"
			resp, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatalf("%s, HTTP/2 %v: %v", tt.name, h2, err)
			}
			resp.Body.Close()
			tr.CloseIdleConnections()
			if resp.StatusCode != tt.want {
				t.Errorf("%s, HTTP/2 %v: got %s, want %d", tt.name, h2, resp.Status, tt.want)
				continue
			}
			if tt.want == 200 {
				if got := <-bodies; got != tt.body {
					t.Errorf("%s, HTTP/2 %v: the callee got %d bytes, want %d", tt.name, h2, len(got), len(tt.body))
				}
			}
			if got := counted(t, reg, "watchword_proxy_token_retries_total"); got != tt.again {
				t.Errorf("%s, HTTP/2 %v: %v attempts more, want %v", tt.name, h2, got, tt.again)
			}
		}
	}
}

// TestRetryWhileSending proves that a body of which some has come is sent from its
// beginning, and goes on with what comes later.
func TestRetryWhileSending(t *testing.T) {
	again := make(chan bool)
	u := newUpstream(t, func(n int, c *peer) {
		head := c.head()
		c.want("3\r\nabc\r\n")
		if n == 1 {
			c.send("HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer error=\"invalid_token\"\r\nContent-Length: 0\r\n\r\n")
			return
		}
		if !strings.Contains(head, "\nAuthorization: Bearer aud-2\n") {
			t.Errorf("got %q", head)
		}
		again <- true
		c.want("3\r\ndef\r\n0\r\n\r\n")
		c.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	})
	c := dial(t, egress(t, EgressConfig{Callee: only(Callee{Audience: "aud", Endpoints: []string{u.address}})}))
	c.send("POST / HTTP/1.1\r\nHost: orders\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
	<-again
	c.send("3\r\ndef\r\n0\r\n\r\n")
	if got := c.status(); got != "HTTP/1.1 200 OK" {
		t.Fatalf("got %q", got)
	}
	c.want("ok")
}

// TestEgressGRPC proves that gRPC passes with a token, over TLS, and that a refusal
// in gRPC's own form leads to another attempt.
func TestEgressGRPC(t *testing.T) {
	verify := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		if got := md.Get("authorization"); len(got) != 1 || got[0] != "Bearer aud-2" {
			_ = grpc.SetHeader(ctx, metadata.Pairs("www-authenticate", `Bearer realm="orders", error="invalid_token"`))
			return nil, status.Error(codes.Unauthenticated, "token_expired")
		}
		return next(ctx, req)
	}
	address, _ := grpcServer(t, grpc.UnaryInterceptor(verify))
	server, client := testTLS(t)
	back := serve(t, listen(t), newProxy(t, Config{Upstream: address}), ServerConfig{TLS: server})
	at := egress(t, EgressConfig{Callee: only(Callee{Audience: "aud", Endpoints: []string{back.address}, TLS: client})})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	calls := grpcClient(t, at, grpc.WithAuthority("orders"))
	for range 2 {
		if _, err := calls.Check(ctx, &healthv1.HealthCheckRequest{}); err != nil {
			t.Errorf("Check: %v", err)
		}
	}
	if _, err := grpcClient(t, at, grpc.WithAuthority("none")).Check(ctx, &healthv1.HealthCheckRequest{}); status.Code(err) != codes.PermissionDenied {
		t.Errorf("of an unknown service: %v, want PermissionDenied", err)
	}
}

// TestEgressTLS proves that a certificate that is not the callee's gets no request.
func TestEgressTLS(t *testing.T) {
	server, _ := testTLS(t)
	back := serve(t, listen(t), ok, ServerConfig{TLS: server})
	c := dial(t, egress(t, EgressConfig{Callee: only(Callee{Endpoints: []string{back.address}, TLS: &tls.Config{}})}))
	c.send("GET / HTTP/1.1\r\nHost: orders\r\n\r\n")
	if got := c.status(); !strings.Contains(got, " 503 ") {
		t.Errorf("got %q, want 503", got)
	}
}

// TestTunnels proves that WebSockets pass with a token, and CONNECT to a host that is
// not of the mesh.
func TestTunnels(t *testing.T) {
	u := newUpstream(t, func(_ int, c *peer) { echoWebSocket(c) })
	callee := func(string) (Callee, bool) { return Callee{Endpoints: []string{u.address}}, true }
	shake(t, egress(t, EgressConfig{Callee: callee}))

	echo := newUpstream(t, func(_ int, c *peer) { _, _ = io.Copy(c, c.br) })
	c := dial(t, egress(t, EgressConfig{Callee: only(Callee{}), PassUnknown: true}))
	c.send("CONNECT %s HTTP/1.1\r\nHost: x\r\n\r\n", echo.address)
	if got := c.status(); got != "HTTP/1.1 200 Connection established" {
		t.Fatalf("got %q", got)
	}
	c.send("hello")
	c.want("hello")
}

// TestManyHosts proves that connections to hosts that nobody asks for any more are
// not kept for ever.
func TestManyHosts(t *testing.T) {
	e := NewEgress(EgressConfig{Timeouts: Timeouts{Idle: time.Minute}})
	defer e.Close()
	for i := range 3 * maxEndpoints {
		e.endpoint(endpointKey{address: address{"tcp", fmt.Sprint("h:", i)}})
	}
	if got := len(e.endpoints); got != maxEndpoints {
		t.Errorf("%d endpoints, want %d", got, maxEndpoints)
	}
}
