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
	"golang.org/x/net/http/httpguts"
)

// ServerConfig bounds what callers can take. A zero value is the default.
type ServerConfig struct {
	// Name of the listener, for logs and metrics.
	Name string
	// TLS: nil means plain text.
	TLS *tls.Config
	// HeaderTimeout is how long a header section may take; 10 s.
	HeaderTimeout time.Duration
	// IdleTimeout is how long a connection without a request stays open; 5 min.
	IdleTimeout time.Duration
	// BodyTimeout is how long a body of known length may give nothing; 30 s.
	// Negative: no bound.
	BodyTimeout time.Duration
	// StreamTimeout is the same for a body of unknown length, which may be a stream;
	// 5 min, as Envoy's stream_idle_timeout. Negative: no bound. There is none for
	// gRPC and WebSockets.
	StreamTimeout time.Duration
	// WriteTimeout is how long a caller may take nothing of what is written to it;
	// 30 s. Negative: no bound.
	WriteTimeout time.Duration
	// MaxHeaderBytes bounds a header section; 60 KiB, as in Envoy.
	MaxHeaderBytes int
	// MaxConnections are open at a time; 10,000. More are closed when they are
	// accepted. Negative: no bound.
	MaxConnections int
	// DrainTimeout is how long requests may take to end once ctx has ended; 30 s.
	// Negative: they are cut off.
	DrainTimeout time.Duration
	// Logger: nil means none.
	Logger hclog.Logger
	// Registerer: nil means no metrics.
	Registerer prometheus.Registerer
}

func (c ServerConfig) withDefaults() ServerConfig {
	c.HeaderTimeout = orDefault(c.HeaderTimeout, 10*time.Second)
	c.IdleTimeout = orDefault(c.IdleTimeout, 5*time.Minute)
	c.BodyTimeout = orDefault(c.BodyTimeout, 30*time.Second)
	c.StreamTimeout = orDefault(c.StreamTimeout, 5*time.Minute)
	c.WriteTimeout = orDefault(c.WriteTimeout, 30*time.Second)
	c.DrainTimeout = orDefault(c.DrainTimeout, 30*time.Second)
	c.MaxHeaderBytes = cmp.Or(c.MaxHeaderBytes, 60<<10)
	c.MaxConnections = cmp.Or(c.MaxConnections, 10_000)
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	return c
}

// Serve serves HTTP/1.1 and HTTP/2 (by ALPN or prior knowledge) on a listener,
// until ctx ends. Then it takes no more connections, tells those that are open that
// they end (Connection: close, GOAWAY), and waits for their requests and
// WebSockets up to the DrainTimeout. What is left then is closed. It returns when
// every handler has; nil if ctx was the cause.
func Serve(ctx context.Context, l net.Listener, handler http.Handler, c ServerConfig) error {
	c = c.withDefaults()
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	conns := newConnections(l, c)
	active := newActive(c.clean(handler))
	srv := c.server(active)
	srv.BaseContext = func(net.Listener) context.Context { return base }
	served := make(chan error, 1)
	go func() {
		if c.TLS != nil {
			served <- srv.ServeTLS(conns, "", "")
		} else {
			served <- srv.Serve(conns)
		}
	}()
	var err error
	select {
	case err = <-served:
		err = fmt.Errorf("serving %s on %s: %w", c.Name, l.Addr(), err)
	case <-ctx.Done():
		drain(base, srv, active, c)
		<-served
	}
	cancel() // what is left
	_ = srv.Close()
	conns.closeAll()
	active.end()
	active.wait(context.WithoutCancel(ctx))
	return err
}

// drain waits for requests to end, up to a bound.
func drain(ctx context.Context, srv *http.Server, active *active, c ServerConfig) {
	ctx, cancel := context.WithTimeout(ctx, c.DrainTimeout)
	defer cancel()
	err := srv.Shutdown(ctx)
	if err == nil {
		err = active.wait(ctx) // WebSockets are no longer the server's
	}
	if errors.Is(err, context.DeadlineExceeded) {
		c.Logger.Warn("requests were cut off at the end of the drain", "listener", c.Name, "after", c.DrainTimeout, "requests", active.count())
	}
}

func (c ServerConfig) server(h http.Handler) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(c.TLS == nil)
	if c.TLS != nil {
		c.TLS = c.TLS.Clone() // the server changes it
	}
	return &http.Server{
		Handler: h, Protocols: protocols, TLSConfig: c.TLS,
		ReadHeaderTimeout: c.HeaderTimeout, IdleTimeout: c.IdleTimeout, MaxHeaderBytes: c.MaxHeaderBytes,
		HTTP2:                        &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second, WriteByteTimeout: c.WriteTimeout},
		DisableGeneralOptionsHandler: true, // OPTIONS * is for the service
		ErrorLog:                     c.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
}

// clean is what every request goes through first. What Connection names is removed
// here, when the request holds nothing but what its caller has sent.
func (c ServerConfig) clean(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if bad := confused(r); bad != nil {
			http.Error(w, bad.text, bad.status)
			return
		}
		removeNamed(r.Header)
		r, g := guarded(w, r, c.BodyTimeout, c.StreamTimeout)
		if g != nil {
			defer g.left()
		}
		next.ServeHTTP(w, r)
	})
}

// removeNamed removes the headers that Connection names (RFC 9110 section 7.6.1),
// except what this package still looks at, and removes itself.
func removeNamed(h http.Header) {
	for _, v := range h["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			switch name = http.CanonicalHeaderKey(strings.Trim(name, " \t")); name {
			case "Upgrade", "Te", "Connection":
			default:
				if httpguts.ValidHeaderFieldName(name) {
					delete(h, name)
				}
			}
		}
	}
}
