package transport

import (
	"net"
	"sync"

	"github.com/watchword-mesh/watchword/internal/failures"
)

// Limits bound the open connections of a listener.
type Limits struct {
	// Total of all sources.
	Total int
	// PerSource is that of one address, or one /64 of IPv6, so that one host
	// can't take the place of all others. Loopback has Total alone: there, all
	// come from one address.
	PerSource int
}

// Limit closes connections beyond the limits as soon as they are accepted, before
// anything is read. Refused is told of each; it must not block.
func Limit(l net.Listener, limits Limits, refused func()) net.Listener {
	return &limited{Listener: l, limits: limits, refused: refused, open: map[string]int{}}
}

type limited struct {
	net.Listener
	limits  Limits
	refused func()

	mu    sync.Mutex
	total int
	open  map[string]int // by source
}

// Accept returns the next connection within the limits.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		source := sourceOf(c.RemoteAddr())
		if l.take(source) {
			return &counted{Conn: c, leave: sync.OnceFunc(func() { l.release(source) })}, nil
		}
		l.refused()
		_ = c.Close()
	}
}

func (l *limited) take(source string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.total >= l.limits.Total || source != "" && l.open[source] >= l.limits.PerSource {
		return false
	}
	l.total++
	l.open[source]++
	return true
}

func (l *limited) release(source string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total--
	if l.open[source]--; l.open[source] == 0 {
		delete(l.open, source)
	}
}

// counted is a connection that gives its place back.
type counted struct {
	net.Conn
	leave func()
}

// NetConn is the connection itself.
func (c *counted) NetConn() net.Conn { return c.Conn }

// Close closes the connection and gives its place back, once.
func (c *counted) Close() error {
	err := c.Conn.Close()
	c.leave()
	return err
}

// sourceOf is what connections are counted by; empty for those that only Total
// bounds.
func sourceOf(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return ""
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	if ip.IsLoopback() {
		return ""
	}
	return failures.Key(ip.String())
}
