package xds

import (
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

// ServerOptions are the gRPC options that thousands of mostly quiet streams, one
// connection each, need.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		// Envoys ping their idle connections as often as their owner likes.
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second, PermitWithoutStream: true}),
		// A data plane that is gone without a word is noticed after 50 s.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 20 * time.Second,
			// A connection on which nothing runs is no data plane's ADS.
			MaxConnectionIdle: 10 * time.Minute}),
		// A response is a few KiB, a request less. A buffer is held while a
		// connection writes, and in a push many do at once; over TLS the read
		// buffer is held for the life of the connection.
		grpc.WriteBufferSize(8 << 10),
		grpc.ReadBufferSize(2 << 10),
		// Requests hold names and versions, and an Envoy's node once: tens of KiB.
		grpc.MaxRecvMsgSize(1 << 20),
		// The headers of a call are a few hundred bytes, and come before we know of
		// whom; without this it is 16 MiB.
		grpc.MaxHeaderListSize(16 << 10),
		// An Envoy without our ADS opens one stream per filter.
		grpc.MaxConcurrentStreams(128),
	}
}
