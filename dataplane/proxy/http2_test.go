package proxy

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// grpcServer is a health service over h2c.
func grpcServer(t *testing.T, opts ...grpc.ServerOption) (address string, checks *health.Server) {
	t.Helper()
	l := listen(t)
	g := grpc.NewServer(opts...)
	checks = health.NewServer()
	healthv1.RegisterHealthServer(g, checks)
	done := make(chan error)
	go func() { done <- g.Serve(l) }()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
	return l.Addr().String(), checks
}

func grpcClient(t *testing.T, address string, opts ...grpc.DialOption) healthv1.HealthClient {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+address, append(opts, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return healthv1.NewHealthClient(c)
}

// TestGRPC proves that gRPC passes: a call, an error, which is in trailers, and a
// stream of which each message comes before the next is sent.
func TestGRPC(t *testing.T) {
	address, checks := grpcServer(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	client := grpcClient(t, front(t, Config{Upstream: address}))
	if resp, err := client.Check(ctx, &healthv1.HealthCheckRequest{}); err != nil || resp.Status != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("Check: %v, %v", resp, err)
	}
	if _, err := client.Check(ctx, &healthv1.HealthCheckRequest{Service: "none"}); status.Code(err) != codes.NotFound {
		t.Errorf("Check of none: %v, want NotFound", err)
	}
	watch, err := client.Watch(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []healthv1.HealthCheckResponse_ServingStatus{1, 2, 1} {
		checks.SetServingStatus("", want)
		got, err := watch.Recv()
		if err != nil || got.Status != want {
			t.Fatalf("Watch: %v, %v, want %v", got, err, want)
		}
	}
}

// TestBidirectional proves that messages of an open HTTP/2 request pass while its
// body is open, without an end.
func TestBidirectional(t *testing.T) {
	back := serve(t, listen(t), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		control := http.NewResponseController(w)
		b := make([]byte, 1)
		for {
			if _, err := io.ReadFull(r.Body, b); err != nil {
				return
			}
			_, _ = w.Write(b)
			_ = control.Flush()
		}
	}), ServerConfig{})
	at := front(t, Config{Upstream: back.address})
	tr := &http.Transport{Protocols: new(http.Protocols)}
	tr.Protocols.SetUnencryptedHTTP2(true)
	defer tr.CloseIdleConnections()
	body, send := io.Pipe()
	req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+at+"/", body)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = send.Write([]byte("a")) }()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b := make([]byte, 1)
	for _, want := range "abc" {
		if want != 'a' {
			if _, err := send.Write([]byte(string(want))); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.ReadFull(resp.Body, b); err != nil || b[0] != byte(want) {
			t.Fatalf("got %q, %v, want %q", b, err, want)
		}
	}
	send.Close()
	if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
		t.Errorf("got %q, %v at the end", rest, err)
	}
}

// echoWebSocket answers a handshake (RFC 6455 section 4.2.2) and returns the bytes
// that it gets.
func echoWebSocket(c *peer) {
	head := c.head()
	_, key, _ := strings.Cut(head, "\nSec-Websocket-Key: ")
	key, _, _ = strings.Cut(key, "\n")
	if !strings.Contains(head, "\nConnection: Upgrade\n") || !strings.Contains(head, "\nUpgrade: websocket") {
		c.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
		return
	}
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	c.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\nhi", base64.StdEncoding.EncodeToString(sum[:]))
	_, _ = io.Copy(c, c.br)
}

const handshake = "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n" +
	"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// shake begins a WebSocket, with bytes that come with the handshake both ways.
func shake(t *testing.T, at string) *peer {
	t.Helper()
	c := dial(t, at)
	c.send("%s", handshake+"first")
	want := "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nSec-Websocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\nUpgrade: websocket"
	if got := c.head(); got != want {
		t.Fatalf("got %q, want %q", got, want)
	}
	c.want("hifirst")
	return c
}

// TestWebSocket proves that bytes pass both ways after a handshake, that one
// direction may end before the other, and that an upstream may say no.
func TestWebSocket(t *testing.T) {
	u := newUpstream(t, func(_ int, c *peer) { echoWebSocket(c) })
	at := front(t, Config{Upstream: u.address, Protocol: HTTP2}) // WebSockets are HTTP/1.1 all the same
	c := shake(t, at)
	for _, s := range []string{"a", "bc"} {
		c.send("%s", s)
		c.want(s)
	}
	if err := closeWrite(c.Conn); err != nil {
		t.Fatal(err)
	}
	if !c.closed() {
		t.Error("the end did not pass")
	}

	no := newUpstream(t, func(_ int, c *peer) {
		c.head()
		c.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
	})
	c = dial(t, front(t, Config{Upstream: no.address}))
	c.send("%s", handshake)
	if got := c.status(); got != "HTTP/1.1 403 Forbidden" {
		t.Errorf("got %q, want 403", got)
	}
	c.want("no")
}
