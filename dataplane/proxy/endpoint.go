package proxy

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// dialOptions are how an endpoint's connections are opened and used.
type dialOptions struct {
	timeouts  Timeouts
	maxHeader int
	tls       *tls.Config // nil: plain text
	opened    prometheus.Counter
	// control sees each address before it is connected to, as net.Dialer.Control.
	control func(network, address string, c syscall.RawConn) error
}

// endpoint is one address that requests are sent to, with its connections.
type endpoint struct {
	address address
	options dialOptions
	pool    *pool // HTTP/1.1

	once  sync.Once
	http2 *http.Transport
}

func newEndpoint(addr address, o dialOptions) *endpoint {
	return &endpoint{address: addr, options: o, pool: newPool(o.timeouts.Idle)}
}

// roundTrip implements the type roundTrip.
func (e *endpoint) roundTrip(ctx context.Context, o *outgoing) (*http.Response, error) {
	if o.http2 && !o.websocket {
		return e.roundTrip2(ctx, o)
	}
	return e.roundTrip1(ctx, o)
}

// roundTrip1 speaks HTTP/1.1. A connection that was idle may have been closed by
// the upstream at the same time; then there is one more attempt, over a new one,
// if nothing can have been done twice.
func (e *endpoint) roundTrip1(ctx context.Context, o *outgoing) (*http.Response, error) {
	if c := e.pool.get(); c != nil {
		resp, err := c.exchange(ctx, o)
		if err == nil || !c.unseen(o) || ctx.Err() != nil {
			return resp, err
		}
	}
	c, err := e.connect(ctx)
	if err != nil {
		return nil, err
	}
	return c.exchange(ctx, o)
}

func (e *endpoint) connect(ctx context.Context) (*conn, error) {
	ctx, cancel := withTimeout(ctx, e.options.timeouts.Dial)
	defer cancel()
	raw, err := e.dial(ctx)
	if err != nil {
		return nil, err
	}
	if e.options.tls == nil {
		return newConn(raw, raw, e), nil
	}
	secure, err := e.secure(ctx, raw, "http/1.1")
	if err != nil {
		return nil, err
	}
	return newConn(secure, raw, e), nil
}

func (e *endpoint) dial(ctx context.Context) (net.Conn, error) {
	d := net.Dialer{Control: e.options.control}
	c, err := d.DialContext(ctx, e.address.network, e.address.name)
	if err != nil {
		return nil, &connectError{e.address, err}
	}
	e.options.opened.Inc()
	return c, nil
}

// secure begins TLS for one protocol.
func (e *endpoint) secure(ctx context.Context, raw net.Conn, alpn string) (*tls.Conn, error) {
	c := e.options.tls.Clone()
	c.NextProtos = []string{alpn}
	if c.ServerName == "" {
		c.ServerName = e.address.host()
	}
	secure := tls.Client(raw, c)
	if err := secure.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, &connectError{e.address, err}
	}
	return secure, nil
}

func withTimeout(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, d)
}
