package xdsclient

import (
	"context"
	"net"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

const (
	// connectTimeout is for TCP, TLS and the first words of HTTP/2.
	connectTimeout = 5 * time.Second
	// A connection on which nothing is heard for pingTime is asked, and given up
	// after pingTimeout. gRPC asks no more often than that; the control plane allows
	// once a second.
	pingTime    = 10 * time.Second
	pingTimeout = 5 * time.Second
	// maxMessage is the largest response, in bytes: a ruleset may have thousands of
	// credentials.
	maxMessage = 64 << 20
)

// dialTCP also lets the kernel ask whether the other host is there: it may do so more
// often than gRPC, and notices after 10 s that nobody answers.
func dialTCP(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 4 * time.Second, Interval: 2 * time.Second, Count: 3}}
	return d.DialContext(ctx, "tcp", address)
}

// connection is for one attempt: gRPC would make a new one by itself when it is lost,
// but when and to whom is up to run.
func (c *client) connection(address string) (*grpc.ClientConn, error) {
	// Past any resolver and proxy: the control plane is in the mesh.
	return grpc.NewClient("passthrough:///"+address,
		grpc.WithNoProxy(),
		grpc.WithContextDialer(func(ctx context.Context, address string) (net.Conn, error) {
			conn, err := c.dial(ctx, address)
			if err != nil {
				return nil, err
			}
			return heard{conn, c.metrics.heard}, nil
		}),
		grpc.WithTransportCredentials(credentials.NewTLS(c.TLS)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingTime, Timeout: pingTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{
			MinConnectTimeout: connectTimeout,
			Backoff:           grpcbackoff.Config{BaseDelay: time.Hour, MaxDelay: time.Hour, Multiplier: 1},
		}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
	)
}

// heard notes when something was read: also an answer to a ping, of which gRPC says
// nothing.
type heard struct {
	net.Conn
	note func()
}

func (h heard) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	if n > 0 {
		h.note()
	}
	return n, err
}
