package dataplane

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// rpcs tells callers who they are.
type rpcs struct {
	grpc_testing.UnimplementedTestServiceServer
	ended chan error // what a stream's handler saw last
}

func (s *rpcs) UnaryCall(ctx context.Context, _ *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	c, _ := FromContext(ctx)
	md, _ := metadata.FromIncomingContext(ctx)
	return &grpc_testing.SimpleResponse{Username: c.Service + " " + strings.Join(md["x-watchword-caller"], ",") + " " + strings.Join(md["authorization"], ",")}, nil
}

func (s *rpcs) FullDuplexCall(stream grpc_testing.TestService_FullDuplexCallServer) error {
	for {
		if _, err := stream.Recv(); err != nil {
			s.ended <- err
			return err
		}
		c, _ := FromContext(stream.Context())
		if err := stream.Send(&grpc_testing.StreamingOutputCallResponse{Payload: &grpc_testing.Payload{Body: []byte(c.Service)}}); err != nil {
			s.ended <- err
			return err
		}
	}
}

func serveGRPC(t *testing.T, d *DataPlane) (grpc_testing.TestServiceClient, *rpcs) {
	t.Helper()
	g := grpc.NewServer(grpc.UnaryInterceptor(d.UnaryInterceptor()), grpc.StreamInterceptor(d.StreamInterceptor()))
	service := &rpcs{ended: make(chan error, 1)}
	grpc_testing.RegisterTestServiceServer(g, service)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- g.Serve(l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(); g.Stop(); <-served })
	return grpc_testing.NewTestServiceClient(conn), service
}

func bearing(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token, "x-watchword-caller", "evil")
}

// Calls over gRPC get the verdict, its reason and the caller.
func TestGRPC(t *testing.T) {
	d := plane(t, nil)
	client, _ := serveGRPC(t, d)
	call := func(ctx context.Context) (string, string, error) {
		var trailer metadata.MD
		r, err := client.UnaryCall(ctx, &grpc_testing.SimpleRequest{}, grpc.Trailer(&trailer))
		return r.GetUsername(), strings.Join(trailer["x-watchword-reason"], ","), err
	}
	expect := func(ctx context.Context, code codes.Code, word string) {
		t.Helper()
		_, reason, err := call(ctx)
		if status.Code(err) != code || status.Convert(err).Message() != word || reason != word {
			t.Errorf("got %v, reason %q; want %v, %s", err, reason, code, word)
		}
	}
	ctx := t.Context()
	expect(bearing(ctx, jwt()), codes.Unavailable, "not_ready")
	enforce(t, d, rulesetWith(`{"name":"unary","match":{"paths":["/grpc.testing.TestService/UnaryCall"]},"authentication":{"mode":"STRICT","rules":[`+rule("")+`]}},{"match":{},"authentication":{"mode":"STRICT","rules":[`+rule("")+`]},"authorization":{"restricted":true}}`))
	expect(ctx, codes.Unauthenticated, "token_missing")
	expect(bearing(ctx, jwt("aud", "x")), codes.PermissionDenied, "audience_mismatch")
	if got, _, err := call(bearing(ctx, jwt())); err != nil || got != "frontend spiffe://mesh.local/frontend " {
		t.Errorf("the handler saw %q, %v; want the caller and no token", got, err)
	}
	stream, err := client.FullDuplexCall(bearing(ctx, jwt()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("a stream that no rule allows: %v, want PermissionDenied", err)
	}
}

// openStream opens a stream that was let in and is in use.
func openStream(t *testing.T, client grpc_testing.TestServiceClient, token string) grpc_testing.TestService_FullDuplexCallClient {
	t.Helper()
	stream, err := client.FullDuplexCall(bearing(t.Context(), token))
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&grpc_testing.StreamingOutputCallRequest{}); err != nil {
		t.Fatal(err)
	}
	if r, err := stream.Recv(); err != nil || string(r.GetPayload().GetBody()) != "frontend" {
		t.Fatalf("the stream gives %v, %v", r, err)
	}
	return stream
}

// Streams end with their token, and when a ruleset comes that would not let them in;
// without the policy's word for it they go on.
func TestStreamsEnd(t *testing.T) {
	for _, tt := range []struct {
		name, more string
		life       time.Duration
		change     bool
		ends       bool
	}{
		{"expired", `,"endStreams":true`, 2 * time.Second, false, true},
		{"revoked", `,"endStreams":true`, time.Minute, true, true},
		{"not asked for", "", time.Minute, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			d := plane(t, nil)
			client, service := serveGRPC(t, d)
			enforce(t, d, rulesetWith(strict(tt.more)))
			stream := openStream(t, client, jwt("exp", time.Now().Add(tt.life).Unix()))
			if tt.change {
				enforce(t, d, strings.ReplaceAll(rulesetWith(strict(tt.more)), b64([]byte(secret)), b64([]byte("another secret of that length 32"))))
			}
			if tt.ends {
				if _, err := stream.Recv(); status.Code(err) != codes.Unauthenticated {
					t.Errorf("the stream ended with %v, want Unauthenticated", err)
				}
				if err := <-service.ended; err == nil {
					t.Error("the handler saw no error")
				}
				return
			}
			if err := stream.Send(&grpc_testing.StreamingOutputCallRequest{}); err != nil {
				t.Fatal(err)
			}
			if _, err := stream.Recv(); err != nil {
				t.Errorf("the stream ended with %v, want it to go on", err)
			}
			if err := stream.CloseSend(); err != nil {
				t.Fatal(err)
			}
			if err := <-service.ended; !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		})
	}
}

// A response that is cut does not look complete, also if its handler looks at nothing
// but its writes.
func TestResponsesEnd(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
		d := plane(t, nil)
		enforce(t, d, rulesetWith(strict(`,"endStreams":true`)))
		s := httptest.NewUnstartedServer(d.Middleware(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := io.WriteString(w, "tick\n"); err != nil {
					return
				}
				if http.NewResponseController(w).Flush() != nil {
					return
				}
				time.Sleep(5 * time.Millisecond) // so that the test reads more than one
			}
		})))
		s.Config.Protocols, s.Config.ErrorLog = new(http.Protocols), nil
		s.Config.Protocols.SetHTTP1(true)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
		s.Start()
		t.Cleanup(s.Close)
		client := &http.Transport{Protocols: new(http.Protocols)}
		client.Protocols.SetHTTP1(protocol == "HTTP/1.1")
		client.Protocols.SetUnencryptedHTTP2(protocol != "HTTP/1.1")
		t.Cleanup(client.CloseIdleConnections)
		req, _ := http.NewRequestWithContext(t.Context(), "GET", s.URL, nil)
		req.Header.Set("Authorization", "Bearer "+jwt())
		res, err := client.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		lines := bufio.NewReader(res.Body)
		if line, err := lines.ReadString('\n'); line != "tick\n" || res.Proto != protocol {
			t.Fatalf("%s: %q, %v", res.Proto, line, err)
		}
		if err := d.resources.Remove(rulesetType, "orders"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, lines); err == nil {
			t.Errorf("%s: the response ended as if it were complete", protocol)
		}
	}
}
