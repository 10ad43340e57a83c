package transport

import (
	"net"
	"sync"
	"time"

	"github.com/watchword-mesh/watchword/internal/failures"
	"github.com/watchword-mesh/watchword/internal/quota"
)

// Limits bound the open connections of a listener.
type Limits struct {
	// Total of all sources.
	Total int
	// PerSource is that of one address, or one /64 of IPv6, so that one host
	// can't take the place of all others. Loopback has Total alone: there, all
	// come from one address.
	PerSource int
	// PerSecond is how many new ones a source may open in a second, after a burst of
	// PerSource: a handshake costs us more than its client. 0 is no bound.
	PerSecond int
}

// Limit closes connections beyond the limits as soon as they are accepted, before
// anything is read. Refused is told of each; it must not block.
func Limit(l net.Listener, limits Limits, refused func()) net.Listener {
	out := &limited{Listener: l, places: quota.NewPlaces(limits.Total, limits.PerSource), refused: refused}
	if limits.PerSecond > 0 {
		out.pace = quota.NewPace(float64(limits.PerSecond), limits.PerSource)
	}
	return out
}

type limited struct {
	net.Listener
	places  *quota.Places
	pace    *quota.Pace // nil without a bound
	refused func()
}

// Accept returns the next connection within the limits.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if leave, ok := l.take(SourceOf(c.RemoteAddr())); ok {
			return &counted{Conn: c, leave: []func(){leave}}, nil
		}
		l.refused()
		_ = c.Close()
	}
}

func (l *limited) take(source string) (leave func(), ok bool) {
	leave, ok = l.places.Take(source)
	if ok && source != "" && l.pace != nil && l.pace.Take(source, 1, time.Now()) > 0 {
		leave()
		return nil, false
	}
	return leave, ok
}

// counted is a connection that gives its places back.
type counted struct {
	net.Conn

	mu     sync.Mutex
	leave  []func()
	closed bool
}

// NetConn is the connection itself.
func (c *counted) NetConn() net.Conn { return c.Conn }

// Close closes the connection and gives its places back, once.
func (c *counted) Close() error {
	err := c.Conn.Close()
	c.mu.Lock()
	leave := c.leave
	c.leave, c.closed = nil, true
	c.mu.Unlock()
	for _, l := range leave {
		l()
	}
	return err
}

// hold has a place given back at Close.
func (c *counted) hold(leave func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		leave()
		return
	}
	c.leave = append(c.leave, leave)
}

// SourceOf is what connections are counted by: the address, or its /64; empty for
// loopback and sockets, which only a total bounds.
func SourceOf(a net.Addr) string {
	if _, ok := a.(*net.TCPAddr); !ok {
		return ""
	}
	return failures.RemoteKey(a.String())
}
