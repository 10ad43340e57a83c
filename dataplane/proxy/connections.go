package proxy

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// connections is a listener that knows which of its connections are open, also
// those that the server has given away.
type connections struct {
	net.Listener
	max          int
	writeTimeout time.Duration
	open         prometheus.Gauge
	refused      prometheus.Counter

	mu     sync.Mutex
	all    map[*serverConn]struct{}
	closed bool
}

func newConnections(l net.Listener, c ServerConfig) *connections {
	labels := prometheus.Labels{"listener": c.Name}
	out := &connections{
		Listener: l, max: c.MaxConnections, writeTimeout: c.WriteTimeout, all: map[*serverConn]struct{}{},
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "watchword_proxy_listener_connections", ConstLabels: labels, Help: "Connections of callers that are open.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "watchword_proxy_listener_refused_total", ConstLabels: labels, Help: "Connections that were closed when they were accepted, since there were too many.",
		}),
	}
	out.open, out.refused = shared(c.Registerer, out.open), shared(c.Registerer, out.refused)
	return out
}

// Accept implements net.Listener.
func (l *connections) Accept() (net.Conn, error) {
	for {
		raw, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		c := &serverConn{Conn: raw, list: l}
		if l.add(c) {
			return c, nil
		}
		l.refused.Inc()
		_ = raw.Close()
	}
}

func (l *connections) add(c *serverConn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.max >= 0 && len(l.all) >= l.max {
		return false
	}
	l.all[c] = struct{}{}
	l.open.Inc()
	return true
}

func (l *connections) remove(c *serverConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.all[c]; ok {
		delete(l.all, c)
		l.open.Dec()
	}
}

// closeAll closes every connection that is open or will be.
func (l *connections) closeAll() {
	l.mu.Lock()
	l.closed = true
	var all []*serverConn
	for c := range l.all {
		all = append(all, c)
	}
	l.mu.Unlock()
	for _, c := range all {
		_ = c.Close()
	}
}

// serverConn is a connection whose peer must take what is written to it.
type serverConn struct {
	net.Conn
	list *connections
}

func (c *serverConn) Write(p []byte) (int, error) {
	if c.list.writeTimeout > 0 {
		if err := c.SetWriteDeadline(time.Now().Add(c.list.writeTimeout)); err != nil {
			return 0, err
		}
	}
	return c.Conn.Write(p)
}

// CloseWrite ends one direction.
func (c *serverConn) CloseWrite() error { return closeWrite(c.Conn) }

// Close implements net.Conn.
func (c *serverConn) Close() error {
	c.list.remove(c)
	return c.Conn.Close()
}

// active counts the requests that a handler is at.
type active struct {
	next http.Handler

	mu    sync.Mutex
	n     int
	over  bool
	ended chan struct{} // closed at the next 0; nil if nobody waits
}

func newActive(next http.Handler) *active { return &active{next: next} }

func (a *active) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !a.enter() {
		panic(http.ErrAbortHandler)
	}
	defer a.leave()
	a.next.ServeHTTP(w, r)
}

func (a *active) enter() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.over {
		a.n++
	}
	return !a.over
}

// end takes no more requests.
func (a *active) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.over = true
}

func (a *active) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n--
	if a.n == 0 && a.ended != nil {
		close(a.ended)
		a.ended = nil
	}
}

func (a *active) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.n
}

// wait waits until there is no request.
func (a *active) wait(ctx context.Context) error {
	a.mu.Lock()
	if a.n == 0 {
		a.mu.Unlock()
		return nil
	}
	if a.ended == nil {
		a.ended = make(chan struct{})
	}
	ended := a.ended
	a.mu.Unlock()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
