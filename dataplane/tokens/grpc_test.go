package tokens

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/dataplane/reason"
)

// rpcCallee is a service behind a data plane that refuses over gRPC.
type rpcCallee struct {
	testpb.UnimplementedTestServiceServer
	address string
	pool    *x509.CertPool

	mu     sync.Mutex
	got    []string
	refuse func(n int) reason.Word
}

func newRPCCallee(tb testing.TB, secure bool, refuse func(int) reason.Word) *rpcCallee {
	tb.Helper()
	c := &rpcCallee{refuse: refuse}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	c.address = l.Addr().String()
	opts := []grpc.ServerOption{grpc.ChainStreamInterceptor(func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		if err := c.admit(ss.Context(), ss.SetTrailer); err != nil {
			return err
		}
		return handle(srv, ss)
	}), grpc.ChainUnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		if err := c.admit(ctx, func(md metadata.MD) { _ = grpc.SetTrailer(ctx, md) }); err != nil {
			return nil, err
		}
		return handle(ctx, req)
	})}
	if secure {
		cert := newCertificate(tb)
		c.pool = x509.NewCertPool()
		c.pool.AddCert(cert.Leaf)
		opts = append(opts, grpc.Creds(credentials.NewServerTLSFromCert(&cert)))
	}
	server := grpc.NewServer(opts...)
	testpb.RegisterTestServiceServer(server, c)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l)
	}()
	tb.Cleanup(func() {
		server.Stop()
		<-done
	})
	return c
}

func newCertificate(tb testing.TB) tls.Certificate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		tb.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// admit refuses as dataplane/ruleset does.
func (c *rpcCallee) admit(ctx context.Context, trailer func(metadata.MD)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	md, _ := metadata.FromIncomingContext(ctx)
	c.got = append(c.got, strings.Join(md.Get("authorization"), ","))
	if c.refuse == nil {
		return nil
	}
	word := c.refuse(len(c.got))
	if word == "" {
		return nil
	}
	trailer(metadata.Pairs(reason.Header, string(word)))
	if word.Status() == http.StatusUnauthorized {
		return status.Error(codes.Unauthenticated, string(word))
	}
	return status.Error(codes.PermissionDenied, string(word))
}

func (c *rpcCallee) taken() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	got := c.got
	c.got = nil
	return got
}

func (c *rpcCallee) UnaryCall(_ context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Payload: r.GetPayload()}, nil
}

func (c *rpcCallee) StreamingOutputCall(r *testpb.StreamingOutputCallRequest, s grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	for range 3 {
		if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: r.GetPayload()}); err != nil {
			return err
		}
	}
	return nil
}

func (c *rpcCallee) FullDuplexCall(s grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	for {
		r, err := s.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: r.GetPayload()}); err != nil {
			return err
		}
	}
}

// dial connects with g's interceptors, or as opts say.
func (c *rpcCallee) dial(tb testing.TB, target string, opts ...grpc.DialOption) testpb.TestServiceClient {
	tb.Helper()
	transport := insecure.NewCredentials()
	if c.pool != nil {
		transport = credentials.NewTLS(&tls.Config{RootCAs: c.pool, MinVersion: tls.VersionTLS13})
	}
	conn, err := grpc.NewClient(target, append([]grpc.DialOption{grpc.WithTransportCredentials(transport)}, opts...)...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	return testpb.NewTestServiceClient(conn)
}

func intercepted(g GRPC) []grpc.DialOption {
	return []grpc.DialOption{grpc.WithUnaryInterceptor(g.UnaryInterceptor()), grpc.WithStreamInterceptor(g.StreamInterceptor())}
}

var ping = &testpb.Payload{Body: []byte("ping")}

// Calls over TLS carry a token, by credentials or interceptors; what the caller has
// set itself stays.
func TestGRPCAttaches(t *testing.T) {
	s := newSTS(t).source(t)
	defer s.Close()
	want := mustToken(t, s, "orders").authorization()
	g := GRPC{Tokens: s, Audience: "orders"}
	callee := newRPCCallee(t, true, nil)
	for name, opts := range map[string][]grpc.DialOption{
		"credentials":  {grpc.WithPerRPCCredentials(g.PerRPCCredentials())},
		"interceptors": intercepted(g),
	} {
		client := callee.dial(t, callee.address, opts...)
		reply, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{Payload: ping})
		if got := callee.taken(); err != nil || string(reply.GetPayload().GetBody()) != "ping" || len(got) != 1 || got[0] != want {
			t.Errorf("%s: %v; the callee got %d calls, want one with the token", name, err, len(got))
		}
		own := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Basic x")
		if _, err := client.UnaryCall(own, &testpb.SimpleRequest{}); err != nil || callee.taken()[0] != "Basic x" {
			t.Errorf("%s: %v; the caller's authorization was replaced", name, err)
		}
	}
	client := callee.dial(t, callee.address, intercepted(g)...)
	stock := grpc.PerRPCCredentials(GRPC{Tokens: s, Audience: "stock"}.PerRPCCredentials())
	want = mustToken(t, s, "stock").authorization()
	if _, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{}, stock); err != nil || callee.taken()[0] != want {
		t.Errorf("%v; the credentials of the call were replaced", err)
	}
	if stream, err := client.FullDuplexCall(t.Context(), stock); err != nil || stream.CloseSend() != nil {
		t.Errorf("FullDuplexCall: %v", err)
	} else if _, err := stream.Recv(); err != io.EOF || callee.taken()[0] != want {
		t.Errorf("%v; the credentials of the stream were replaced", err)
	}
}

// Without TLS no token goes out, unless both the connection and the authority are
// loopback and it was allowed.
func TestGRPCPlainText(t *testing.T) {
	sts := newSTS(t)
	s := sts.source(t)
	defer s.Close()
	callee := newRPCCallee(t, false, nil)
	for _, c := range []struct {
		name    string
		allowed bool
		opts    []grpc.DialOption
		ok      bool
	}{
		{"not allowed", false, nil, false},
		{"allowed on loopback", true, nil, true},
		{"allowed, but for another host through something on loopback", true, []grpc.DialOption{grpc.WithAuthority("orders.test")}, false},
	} {
		g := GRPC{Tokens: s, Audience: "orders", LoopbackPlaintext: c.allowed}
		client := callee.dial(t, callee.address, append(intercepted(g), c.opts...)...)
		_, err := client.UnaryCall(t.Context(), &testpb.SimpleRequest{})
		got := callee.taken()
		if (err == nil) != c.ok || (tokensIn(got) == 1) != c.ok || !c.ok && status.Code(err) != codes.Unauthenticated {
			t.Errorf("%s: %v, %d tokens arrived; want success: %v", c.name, err, tokensIn(got), c.ok)
		}
	}
	// The peer isn't on this host.
	private := &attempt{grpc: GRPC{Tokens: s, LoopbackPlaintext: true}}
	if md, err := private.GetRequestMetadata(t.Context(), "https://127.0.0.1/x"); err == nil || md != nil {
		t.Errorf("without a connection: %d entries, %v; want an error", len(md), err)
	}
}

// A call that is refused for its token is made once more with another, if that can
// help.
func TestGRPCTriesAgain(t *testing.T) {
	for _, c := range []struct {
		name   string
		refuse func(int) reason.Word
		code   codes.Code
		calls  int
	}{
		{"expired", rpcOnce(reason.TokenExpired), codes.OK, 2},
		{"always", func(int) reason.Word { return reason.Revoked }, codes.Unauthenticated, 2},
		{"no help", rpcOnce(reason.TypeNotAllowed), codes.Unauthenticated, 1},
		{"denied", rpcOnce(reason.ConsumerDenied), codes.PermissionDenied, 1},
	} {
		for name, call := range map[string]func(context.Context, testpb.TestServiceClient) error{"unary": unary, "server stream": serverStream} {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				s := newSTS(t).source(t)
				defer s.Close()
				callee := newRPCCallee(t, true, c.refuse)
				client := callee.dial(t, callee.address, intercepted(GRPC{Tokens: s, Audience: "orders"})...)
				err := call(t.Context(), client)
				got := callee.taken()
				if status.Code(err) != c.code || len(got) != c.calls || len(got) == 2 && got[0] == got[1] {
					t.Errorf("%v after %d calls; want %v after %d, each with another token", err, len(got), c.code, c.calls)
				}
			})
		}
	}
}

func rpcOnce(word reason.Word) func(int) reason.Word {
	return func(n int) reason.Word { return once(word)(n, "") }
}

func unary(ctx context.Context, client testpb.TestServiceClient) error {
	_, err := client.UnaryCall(ctx, &testpb.SimpleRequest{})
	return err
}

func serverStream(ctx context.Context, client testpb.TestServiceClient) error {
	s, err := client.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{Payload: ping})
	if err != nil {
		return err
	}
	for range 3 {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		if string(m.GetPayload().GetBody()) != "ping" {
			return status.Errorf(codes.DataLoss, "got %v", m)
		}
	}
	if _, err := s.Recv(); err != io.EOF {
		return err
	}
	return nil
}

// A stream on which the caller sends is not made again, but the next one has
// another token; also if the caller looks at the header first.
func TestGRPCBidirectionalStream(t *testing.T) {
	for _, header := range []bool{false, true} {
		s := newSTS(t).source(t)
		defer s.Close()
		callee := newRPCCallee(t, true, rpcOnce(reason.KeyUnknown))
		client := callee.dial(t, callee.address, intercepted(GRPC{Tokens: s, Audience: "orders"})...)
		talk := func() error {
			stream, err := client.FullDuplexCall(t.Context())
			if err != nil {
				return err
			}
			if err := stream.Send(&testpb.StreamingOutputCallRequest{Payload: ping}); err != nil && err != io.EOF {
				return err
			}
			if _, err := stream.Recv(); err != nil {
				return err
			}
			if err := stream.CloseSend(); err != nil {
				return err
			}
			if _, err := stream.Recv(); err != io.EOF {
				return err
			}
			return nil
		}
		if header {
			talk = headerFirst(t, client)
		}
		first, second := talk(), talk()
		got := callee.taken()
		if status.Code(first) != codes.Unauthenticated || second != nil || len(got) != 2 || got[0] == got[1] {
			t.Errorf("header first %v: %v, then %v, %d streams; want a refusal, then none, with another token", header, first, second, len(got))
		}
	}
}

func headerFirst(t *testing.T, client testpb.TestServiceClient) func() error {
	return func() error {
		stream, err := client.FullDuplexCall(t.Context())
		if err != nil {
			return err
		}
		_ = stream.Send(&testpb.StreamingOutputCallRequest{Payload: ping})
		_, _ = stream.Header()
		if _, err := stream.Recv(); err != nil {
			return err
		}
		return stream.CloseSend()
	}
}

// Who gets no token learns by the status whether to try again.
func TestGRPCWithoutToken(t *testing.T) {
	for want, change := range map[codes.Code]func(*fakeSTS){
		codes.Unavailable: func(f *fakeSTS) { f.away = true },
		codes.Unauthenticated: func(f *fakeSTS) {
			f.answer = func(string) (int, http.Header, string) { return 400, nil, `{"error":"invalid_target"}` }
		},
	} {
		sts := newSTS(t)
		change(sts)
		s := sts.source(t)
		defer s.Close()
		callee := newRPCCallee(t, true, nil)
		client := callee.dial(t, callee.address, intercepted(GRPC{Tokens: s, Audience: "orders"})...)
		if err := unary(t.Context(), client); status.Code(err) != want || len(callee.taken()) != 0 {
			t.Errorf("%v; want %v, and no call", err, want)
		}
	}
}
