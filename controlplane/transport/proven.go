package transport

import (
	"crypto/tls"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/watchword-mesh/watchword/internal/quota"
)

// Peers bounds the connections of a gRPC server by who is at the other end, which
// is known when the handshake is done.
type Peers struct {
	// Known names who a peer is, such as an instance; false if it has proved
	// nothing.
	Known func(tls.ConnectionState) (name string, ok bool)
	// Strangers bounds the connections of peers that are not known; each is closed
	// after StrangerLife, whatever it does.
	Strangers    Limits
	StrangerLife time.Duration
	// PerPeer is how many connections one that is known may have.
	PerPeer int
	// Refused is told of each connection beyond the limits; it must not block.
	Refused func()
}

// ByPeer keeps connections, of [Closable] credentials on a listener of [Limit],
// within the limits of their peers. Places of strangers are counted apart, so that
// they can't take those of who is known.
func ByPeer(inner credentials.TransportCredentials, p Peers) credentials.TransportCredentials {
	return &byPeer{TransportCredentials: inner, Peers: p,
		strangers: quota.NewPlaces(p.Strangers.Total, p.Strangers.PerSource),
		// Their total is what the listener allows.
		known: quota.NewPlaces(1<<30, p.PerPeer),
	}
}

type byPeer struct {
	credentials.TransportCredentials
	Peers
	strangers, known *quota.Places
}

var errNoPlace = errors.New("no place for a connection of this peer")

// ServerHandshake implements credentials.TransportCredentials. The places are held
// by the connection below: gRPC closes that one alone when a peer is gone before
// its first frame.
func (b *byPeer) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	below, ok := raw.(*counted)
	if !ok {
		return nil, nil, errors.New("the listener is not one of Limit")
	}
	c, info, err := b.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	if !b.admit(below, info) {
		b.Refused()
		_ = c.Close()
		return nil, nil, errNoPlace
	}
	return c, info, nil
}

func (b *byPeer) admit(below *counted, info credentials.AuthInfo) bool {
	if conn, ok := info.(Connection); ok {
		if name, known := b.Known(conn.State); known {
			leave, ok := b.known.Take(name)
			if ok {
				below.hold(leave)
			}
			return ok
		}
	}
	leave, ok := b.strangers.Take(SourceOf(below.RemoteAddr()))
	if !ok {
		return false
	}
	below.hold(leave)
	end := time.AfterFunc(b.StrangerLife, func() { _ = below.Close() })
	below.hold(func() { end.Stop() })
	return true
}

// Clone implements credentials.TransportCredentials. The copy shares the places.
func (b *byPeer) Clone() credentials.TransportCredentials {
	c := *b
	c.TransportCredentials = b.TransportCredentials.Clone()
	return &c
}
