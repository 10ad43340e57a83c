package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// program is a service behind a sidecar, over HTTP/1.1, h2c and gRPC.
type program struct {
	address string
	hold    chan struct{} // what /hold waits for
	held    chan struct{} // /hold is there
}

func startProgram(t *testing.T, l net.Listener) *program {
	t.Helper()
	p := &program{address: l.Addr().String(), hold: make(chan struct{}), held: make(chan struct{}, 16)}
	calls := grpc.NewServer()
	testpb.RegisterTestServiceServer(calls, echoCalls{})
	mux := http.NewServeMux()
	mux.HandleFunc("/hold", func(w http.ResponseWriter, _ *http.Request) {
		p.held <- struct{}{}
		<-p.hold
		_, _ = io.WriteString(w, "held")
	})
	mux.HandleFunc("/sum", func(w http.ResponseWriter, r *http.Request) {
		sum := sha256.New()
		n, err := io.Copy(sum, r.Body)
		_, _ = fmt.Fprintf(w, "%d %x %v", n, sum.Sum(nil), err)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
			calls.ServeHTTP(w, r)
			return
		}
		if r.Header.Get("Upgrade") == "websocket" {
			echoWebSocket(w)
			return
		}
		_, _ = fmt.Fprintf(w, "%s %s caller=%s authorization=%q", r.Proto, r.URL.Path, r.Header.Get("X-Watchword-Caller"), r.Header.Get("Authorization"))
	})
	srv := &http.Server{Handler: mux, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done; calls.Stop() })
	return p
}

func newProgram(t *testing.T) *program {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startProgram(t, l)
}

// echoWebSocket takes the upgrade and echoes bytes, whatever their frames.
func echoWebSocket(w http.ResponseWriter) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	_ = rw.Flush()
	_, _ = io.Copy(conn, rw)
}

// echoCalls answers with what it gets, and says in the trailer who called.
type echoCalls struct {
	testpb.UnimplementedTestServiceServer
}

func (echoCalls) FullDuplexCall(stream testpb.TestService_FullDuplexCallServer) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	stream.SetTrailer(metadata.Pairs("seen-caller", strings.Join(md.Get("x-watchword-caller"), ",")))
	for {
		req, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&testpb.StreamingOutputCallResponse{Payload: req.GetPayload()}); err != nil {
			return err
		}
	}
}

// A program that knows nothing of tokens and TLS calls another, through the sidecars
// of both: HTTP/1.1, h2c, gRPC with trailers, a WebSocket, and a large body.
func TestSidecarToSidecar(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	inbound, outbound, orders := meshtest.FreeAddress(t), meshtest.FreeAddress(t), newProgram(t)
	m.Apply(t, goService("orders", inbound, orders.address)+
		resource("Service", "reports", "{dataPlanes: [GO], outbound: {port: "+portOf(outbound)+"}, calls: [{service: orders}]}"))
	sidecar := m.newSidecar(t, "reports")
	sidecar.Start(t)
	m.startSidecar(t, "orders")
	sidecar.WaitReady(t)
	client := through(t, outbound)
	meshtest.Eventually(t, func() error { return call(client, "http://orders/a") })

	const caller = `caller=spiffe://mesh.local/reports authorization=""`
	if code, body := fetch(t, client, "http://orders/a"); code != 200 || body != "HTTP/1.1 /a "+caller {
		t.Errorf("HTTP/1.1: %d %q, want %q", code, body, "HTTP/1.1 /a "+caller)
	}
	h2 := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, outbound)
	}}
	h2.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(h2.CloseIdleConnections)
	if code, body := fetch(t, &http.Client{Transport: h2}, "http://orders/b"); code != 200 || body != "HTTP/2.0 /b "+caller {
		t.Errorf("h2c: %d %q, want %q", code, body, "HTTP/2.0 /b "+caller)
	}
	if code, body := fetch(t, client, "http://stranger/a"); code != 403 || !strings.Contains(body, "callee_unknown") {
		t.Errorf("a host that is no callee: %d %q, want 403 callee_unknown", code, body)
	}
	t.Run("gRPC", func(t *testing.T) { callGRPC(t, outbound) })
	t.Run("WebSocket", func(t *testing.T) { callWebSocket(t, outbound) })
	t.Run("large body", func(t *testing.T) {
		const size = 64 << 20
		sum := sha256.New()
		body := io.TeeReader(io.LimitReader(endless{}, size), sum)
		res, err := client.Post("http://orders/sum", "application/octet-stream", body)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		got, _ := io.ReadAll(res.Body)
		if want := fmt.Sprintf("%d %x <nil>", size, sum.Sum(nil)); string(got) != want {
			t.Errorf("the service got %d %q, want %q", res.StatusCode, got, want)
		}
	})
}

// endless are bytes that differ.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i * 7)
	}
	return len(p), nil
}

func callGRPC(t *testing.T, outbound string) {
	conn, err := grpc.NewClient("passthrough:///"+outbound, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("orders"), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream, err := testpb.NewTestServiceClient(conn).FullDuplexCall(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		want := []byte(fmt.Sprintf("message %d", i))
		if err := stream.Send(&testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: want}}); err != nil {
			t.Fatal(err)
		}
		resp, err := stream.Recv()
		if err != nil || !bytes.Equal(resp.GetPayload().GetBody(), want) {
			t.Fatalf("sent %q, got %v, %v", want, resp, err)
		}
	}
	_ = stream.CloseSend()
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("the end of the stream: %v, want EOF", err)
	}
	if got := stream.Trailer().Get("seen-caller"); len(got) != 1 || got[0] != "spiffe://mesh.local/reports" {
		t.Errorf("the trailer says that %q called, want spiffe://mesh.local/reports", got)
	}
}

func callWebSocket(t *testing.T, outbound string) {
	conn, err := net.Dial("tcp", outbound)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = io.WriteString(conn, "GET http://orders/ws HTTP/1.1\r\nHost: orders\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
	br := bufio.NewReader(conn)
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("the upgrade: %v, %v, want 101", res, err)
	}
	for _, text := range []string{"\x81\x05hello", strings.Repeat("x", 100_000)} {
		go func() { _, _ = io.WriteString(conn, text) }()
		got := make([]byte, len(text))
		if _, err := io.ReadFull(br, got); err != nil || string(got) != text {
			t.Fatalf("sent %d bytes, got %d and %v back", len(text), len(got), err)
		}
	}
}

// The life of the process: nothing is let in before the first ruleset, listeners
// follow the Service, a request that is in flight at SIGTERM ends well, and a program
// behind a Unix socket is as good as another.
func TestSidecarProcess(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	ads := &meshtest.Link{To: m.Config.XDSListen}
	ads.Start(t)
	ads.Refuse(true)
	first, second, orders := meshtest.FreeAddress(t), meshtest.FreeAddress(t), newProgram(t)
	spec := func(listen, program string) string {
		return resource("Service", "orders", "dataPlanes: [GO]", fmt.Sprintf("inbound: {port: %s, localAddress: %q}", portOf(listen), program))
	}
	m.Apply(t, spec(first, orders.address)+resource("Service", "shop", "{calls: [{service: orders}]}"))
	token := m.Token(t, "shop", "orders")
	s := m.newSidecar(t, "orders")
	s.ADS = []string{ads.Address}
	s.Start(t)
	meshtest.Eventually(t, func() error {
		if code, text := s.Get("/livez"); code != 200 {
			return fmt.Errorf("livez: %d %s", code, text)
		}
		return nil
	})
	if code, text := s.Get("/readyz"); code != 503 {
		t.Errorf("readyz before the first ruleset: %d %s, want 503", code, text)
	}
	ads.Refuse(false)
	s.WaitReady(t)
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	send := func(address, path string) (int, string) {
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+address+path, nil)
		req.Header.Set("Authorization", "Bearer "+token)
		res, err := client.Do(req)
		if err != nil {
			return 0, err.Error()
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(body)
	}
	eventually := func(what, address string, want int) {
		t.Helper()
		meshtest.Eventually(t, func() error {
			if code, body := send(address, "/a"); code != want {
				return fmt.Errorf("%s: %d %s, want %d", what, code, body, want)
			}
			return nil
		})
	}
	eventually("first address", first, 200)
	inFlight := make(chan string, 1)
	hold := func(address string) {
		go func() { code, body := send(address, "/hold"); inFlight <- fmt.Sprint(code, " ", body) }()
		<-orders.held
	}
	hold(first)
	m.Apply(t, spec(second, orders.address))
	eventually("second address", second, 200)
	eventually("first address, later", first, 0)
	orders.hold <- struct{}{}
	if got := <-inFlight; got != "200 held" {
		t.Errorf("a request in flight when the listener moved: %q, want 200 held", got)
	}
	// The same address, with another program behind it.
	other := newProgram(t)
	hold(second)
	m.Apply(t, spec(second, other.address))
	time.Sleep(200 * time.Millisecond)
	eventually("same address", second, 200)
	orders.hold <- struct{}{}
	if got := <-inFlight; got != "200 held" {
		t.Errorf("a request in flight when the program moved: %q, want 200 held", got)
	}
	// An address that somebody has: the sidecar goes on, and takes it later.
	taken, err := net.Listen("tcp", meshtest.FreeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	m.Apply(t, spec(taken.Addr().String(), other.address))
	time.Sleep(300 * time.Millisecond)
	if code, text := s.Get("/livez"); code != 200 {
		t.Fatalf("after an address that is in use: livez is %d %s, want 200", code, text)
	}
	_ = taken.Close()
	eventually("address that was in use", taken.Addr().String(), 200)
	m.Apply(t, spec(second, other.address))
	eventually("second address again", second, 200)

	go func() { code, body := send(second, "/hold"); inFlight <- fmt.Sprint(code, " ", body) }()
	<-other.held
	s.Signal(t, syscall.SIGTERM)
	meshtest.Eventually(t, func() error {
		if code, text := s.Get("/readyz"); code != 503 || text != "draining\n" {
			return fmt.Errorf("readyz while it drains: %d %q, want 503", code, text)
		}
		return nil
	})
	close(other.hold)
	if got := <-inFlight; got != "200 held" {
		t.Errorf("a request in flight at SIGTERM: %q, want 200 held", got)
	}
	if code := s.Wait(t); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	for _, word := range []string{token, s.Join, "panic"} {
		if strings.Contains(s.Log.String(), word) {
			t.Errorf("%q is in the log at trace", word)
		}
	}
}

// Listeners by flags: before the first ruleset every request is refused, and a
// program may listen on a Unix socket.
func TestSidecarUnixSocket(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, resource("Service", "orders", "{dataPlanes: [GO]}")+resource("Service", "shop", "{calls: [{service: orders}]}"))
	socket, inbound := filepath.Join(meshtest.ShortDir(t), "orders.sock"), meshtest.FreeAddress(t)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	startProgram(t, l)
	ads := &meshtest.Link{To: m.Config.XDSListen}
	ads.Start(t)
	ads.Refuse(true)
	s := m.newSidecar(t, "orders", "--listen", inbound, "--upstream", "unix:"+socket)
	s.ADS = []string{ads.Address}
	s.Start(t)
	token := m.Token(t, "shop", "orders")
	ask := func(want int, words string) {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), "GET", "http://"+inbound+"/a", nil)
		req.Header.Set("Authorization", "Bearer "+token)
		meshtest.Eventually(t, func() error {
			res, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				return err
			}
			defer res.Body.Close()
			if body, _ := io.ReadAll(res.Body); res.StatusCode != want || !strings.Contains(string(body), words) {
				return fmt.Errorf("got %d %s, want %d %s", res.StatusCode, body, want, words)
			}
			return nil
		})
	}
	ask(503, "not_ready")
	ads.Refuse(false)
	ask(200, "caller=spiffe://mesh.local/shop")
	for _, name := range []string{
		"watchword_dataplane_requests_total", "watchword_dataplane_ruleset_accepted_timestamp_seconds", "watchword_dataplane_serving",
		"watchword_dataplane_lease_expires_timestamp_seconds", "watchword_dataplane_connected", "watchword_dataplane_updates_accepted_total",
		"watchword_dataplane_last_contact_timestamp_seconds", "watchword_dataplane_token_requests_total", "go_goroutines", "process_open_fds",
	} {
		if _, text := s.Get("/metrics"); !strings.Contains(text, "\n# TYPE "+name+" ") || strings.Contains(text, token) {
			t.Errorf("metrics have no %s, or a token", name)
		}
	}
	s.Stop(t)
}

// A join token that is not, or no longer, one ends the process with one clear line.
func TestSidecarBadJoinToken(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, resource("Service", "orders", "{dataPlanes: [GO]}"))
	good, made := m.JoinToken(t, "orders"), m.JoinToken(t, "orders")
	id, _, _ := strings.Cut(strings.TrimPrefix(made, "wwjt_"), ".")
	if _, err := m.Admin.RevokeJoinToken(t.Context(), &adminv1.RevokeJoinTokenRequest{Id: id}); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	parts[1] = flipped(parts[1])
	for what, token := range map[string]string{"no token at all": "hello", "revoked": made, "another secret": strings.Join(parts, "."), "none": ""} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			s := &meshtest.Sidecar{Binary: sidecarBinary, Service: "orders", ADS: []string{m.Config.XDSListen}, Join: token}
			s.Start(t)
			if code := s.Wait(t); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			text := s.Log.String()
			last := text[strings.LastIndex(strings.TrimSpace(text), "\n")+1:]
			t.Logf("%s: %s", what, last)
			if !strings.HasPrefix(last, "watchword-sidecar: ") || !strings.Contains(last, "token") && !strings.Contains(last, "the credential") || token != "" && strings.Contains(text, token) || strings.Contains(text, parts[1]) {
				t.Errorf("log:\n%s\nwant a last line that tells why, and no token", text)
			}
		})
	}
}

func flipped(s string) string {
	first := byte('A')
	if s[0] == first {
		first = 'B'
	}
	return string(first) + s[1:]
}
