package transport

import (
	"context"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Peer is the process at the other end of a Unix socket, as the kernel saw it
// when it connected.
type Peer struct {
	UID uint32
	PID int32
}

// PeerOf asks the kernel who is at the other end.
func PeerOf(c *net.UnixConn) (Peer, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return Peer{}, fmt.Errorf("asking who is at the other end of the socket: %w", err)
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return Peer{}, fmt.Errorf("asking who is at the other end of the socket: %w", err)
	}
	return Peer{UID: cred.Uid, PID: cred.Pid}, nil
}

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
