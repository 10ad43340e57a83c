package transport_test

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/watchword-mesh/watchword/controlplane/transport"
)

// A unary call works as before, and an interceptor can refuse it before its message
// was read, or has even come.
func TestUnreadUnary(t *testing.T) {
	var refuse atomic.Bool
	g := grpc.NewServer()
	before := func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		if !transport.IsUnary(info) {
			t.Errorf("%s is unary", info.FullMethod)
		}
		if refuse.Load() {
			return status.Error(codes.Unauthenticated, "no")
		}
		return next(srv, ss)
	}
	healthv1.RegisterHealthServer(transport.UnreadUnary(g, before), health.NewServer())
	pipe := bufconn.Listen(64 << 10)
	go func() { _ = g.Serve(pipe) }()
	defer g.Stop()
	conn, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	client := healthv1.NewHealthClient(conn)
	if resp, err := client.Check(ctx, &healthv1.HealthCheckRequest{}); err != nil || resp.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Errorf("Check: %v, %v; want SERVING", resp, err)
	}
	if _, err := client.Check(ctx, &healthv1.HealthCheckRequest{Service: "unknown"}); status.Code(err) != codes.NotFound {
		t.Errorf("Check of an unknown service: %v, want NotFound", err)
	}
	refuse.Store(true)
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, healthv1.Health_Check_FullMethodName)
	if err != nil {
		t.Fatal(err)
	}
	// No message is sent: the answer does not wait for one.
	if err := stream.RecvMsg(&healthv1.HealthCheckResponse{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a call that is refused: %v, want Unauthenticated", err)
	}
}
