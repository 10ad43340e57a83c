// Package proxy forwards HTTP requests for a sidecar: inbound to the service
// beside it ([New]), outbound to other services ([NewEgress]), each behind a
// listener ([Serve]). It verifies no tokens: who is in front of the Proxy has
// judged the request and edited its headers, and what the request says then is
// what the service gets.
//
// There is one way for all of it. A request becomes an [outgoing], which knows
// what of it is written; an [endpoint] sends it and returns the response; forward
// gives that to the caller. Endpoints speak HTTP/1.1 over connections of their own
// (no goroutine per connection, no copy of the headers), and HTTP/2 over
// net/http's Transport. Responses are handed on as they come, and a body that is
// still being sent does not hold them up.
//
// # Headers
//
// Hop-by-hop headers (RFC 9110 section 7.6.1) go no further. Those that
// Connection names are removed by Serve, before anything else sees the request:
// later, they could be ones that were set for the service, so that a caller could
// have its own name removed. The Proxy itself goes by the fixed ones alone.
//
// X-Forwarded-For gets the peer's address at its end and X-Forwarded-Proto is set,
// as Envoy does with use_remote_address; Forwarded and X-Forwarded-Host are handed
// on as they are. Expect is answered here, as Envoy does: the body is asked for
// when there is a connection for it. WebSocket is the only Upgrade that passes. Any
// other is left out, so that the service answers as if there were none (RFC 9110
// section 7.8): "h2c" would open a connection whose requests nobody judges.
package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

// Protocol is what an upstream speaks.
type Protocol int

// The values are those of watchword.dataplane.v1.Inbound.Protocol.
const (
	// Auto is the same as the caller.
	Auto Protocol = iota
	// HTTP1 is HTTP/1.1.
	HTTP1
	// HTTP2 is HTTP/2 by prior knowledge (RFC 9113 section 3.3), or by ALPN over
	// TLS.
	HTTP2
)

// Timeouts of connections that the proxy opens. A zero value is the default, a
// negative one no timeout.
type Timeouts struct {
	// Dial is how long a connection may take to open, with TLS; 5 s.
	Dial time.Duration
	// ResponseHeader is how long an upstream may take to begin its answer, from when
	// it has the whole request; none, as Envoy's route timeout of 0.
	ResponseHeader time.Duration
	// Idle is how long a connection is kept that nothing uses; 1 min.
	Idle time.Duration
}

func (t Timeouts) withDefaults() Timeouts {
	t.Dial = orDefault(t.Dial, 5*time.Second)
	t.ResponseHeader = orDefault(t.ResponseHeader, -1)
	t.Idle = orDefault(t.Idle, time.Minute)
	return t
}

func orDefault(d, standard time.Duration) time.Duration {
	if d == 0 {
		d = standard
	}
	return max(d, 0)
}

// Config says what requests are forwarded to.
type Config struct {
	// Upstream is HOST:PORT, unix:PATH, or https://HOST:PORT.
	Upstream string
	// TLS for an https upstream; nil means the host's own trust.
	TLS *tls.Config
	// Protocol of the upstream.
	Protocol Protocol
	Timeouts Timeouts
	// MaxHeaderBytes bounds the header section of a response; 0 means 64 KiB.
	MaxHeaderBytes int
	// MaxBodyBytes bounds the body of a request; 0 means no bound.
	MaxBodyBytes int64
	// Logger: nil means none.
	Logger hclog.Logger
	// Registerer: nil means no metrics.
	Registerer prometheus.Registerer
}

const defaultMaxHeaderBytes = 64 << 10

// Proxy forwards requests to one upstream.
type Proxy struct {
	config   Config
	upstream *endpoint
	forwarder
}

// New returns a Proxy. It opens no connection before there is a request.
func New(c Config) (*Proxy, error) {
	addr, secure, err := parseUpstream(c.Upstream)
	if err != nil {
		return nil, err
	}
	if c.Protocol < Auto || c.Protocol > HTTP2 {
		return nil, fmt.Errorf("upstream %q: there is no protocol %d; use Auto, HTTP1 or HTTP2", c.Upstream, c.Protocol)
	}
	p := &Proxy{config: c, forwarder: newForwarder(c.Logger, c.Registerer, "inbound")}
	opts := dialOptions{timeouts: c.Timeouts.withDefaults(), maxHeader: cmp.Or(c.MaxHeaderBytes, defaultMaxHeaderBytes), opened: p.metrics.connections}
	if secure {
		opts.tls = c.TLS
		if opts.tls == nil {
			opts.tls = &tls.Config{}
		}
	}
	p.upstream = newEndpoint(addr, opts)
	return p, nil
}

// ServeHTTP implements http.Handler. It aborts the handler (http.ErrAbortHandler)
// when an answer ends before it is whole.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o := &outgoing{r: r, http2: p.config.Protocol == HTTP2 || p.config.Protocol == Auto && r.ProtoMajor == 2}
	o.forwardedFor, _, _ = net.SplitHostPort(r.RemoteAddr) // empty for a Unix socket
	o.forwardedProto = "http"
	if r.TLS != nil {
		o.forwardedProto = "https"
	}
	if r.Method == http.MethodConnect {
		p.fail(w, o, &failure{status: http.StatusMethodNotAllowed, word: "connect_refused", text: "this is no forward proxy"})
		return
	}
	o.upload = newUpload(w, r, p.config.MaxBodyBytes, 0)
	p.forward(w, o, p.upstream.roundTrip)
}

// Close closes the connections that nothing uses; those in use are closed when
// their request ends.
func (p *Proxy) Close() { p.upstream.close() }

// parseUpstream takes an upstream of a Config apart.
func parseUpstream(upstream string) (addr address, secure bool, err error) {
	rest, secure := strings.CutPrefix(upstream, "https://")
	addr, err = parseAddress(rest)
	if err == nil && secure && addr.network == "unix" {
		err = errors.New("TLS over a Unix socket is not supported")
	}
	if err != nil {
		return address{}, false, fmt.Errorf("upstream %q: %w; want HOST:PORT, unix:PATH or https://HOST:PORT", upstream, err)
	}
	return addr, secure, nil
}

// address is where a connection goes.
type address struct{ network, name string }

func parseAddress(s string) (address, error) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if path == "" {
			return address{}, errors.New("there is no path")
		}
		return address{"unix", path}, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return address{}, err
	}
	if host == "" || port == "" {
		return address{}, errors.New("host or port is empty")
	}
	return address{"tcp", s}, nil
}

// host is the name that a certificate is verified for.
func (a address) host() string {
	host, _, _ := net.SplitHostPort(a.name)
	return host
}

// roundTrip sends a request and returns the response, like http.RoundTripper.
type roundTrip func(context.Context, *outgoing) (*http.Response, error)
