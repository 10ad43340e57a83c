package transport

import (
	"context"
	"net"
)

type peerKey struct{}

// WithPeer notes the peer of a connection that is a Unix socket, for
// http.Server.ConnContext.
func WithPeer(ctx context.Context, c net.Conn) context.Context {
	if l, ok := c.(*counted); ok {
		c = l.NetConn()
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	p, err := PeerOf(u)
	if err != nil {
		return ctx // nobody
	}
	return context.WithValue(ctx, peerKey{}, p)
}

// PeerFrom is the peer that WithPeer has noted.
func PeerFrom(ctx context.Context) (Peer, bool) {
	p, ok := ctx.Value(peerKey{}).(Peer)
	return p, ok
}
