package proxy

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/net/http/httpguts"
)

// replayRoom is how much of a body is kept for an attempt with another token.
const replayRoom = 64 << 10

// Tokens gives tokens for services that are called. It is used by many
// goroutines.
type Tokens interface {
	// Token returns a token for an audience that is valid for a while.
	Token(ctx context.Context, audience string) (value string, err error)
	// Refused says that a callee did not accept a token, so that Token gives another
	// one if there is one.
	Refused(audience, value string)
}

// Callee is a service that may be called.
type Callee struct {
	// Service is its name.
	Service string
	// Audience to ask a token for.
	Audience string
	// Endpoints are HOST:PORT or unix:PATH; they take turns, and the next one is
	// tried where a connection can't be opened. None: the host of the request.
	Endpoints []string
	// TLS for the endpoints: the same pointer as long as it is the same
	// configuration. Without a ServerName it is the host of the endpoint that is
	// verified. nil: plain text, which is for loopback addresses and Unix sockets
	// alone.
	TLS *tls.Config
}

// EgressConfig says whom a service may call, and how.
type EgressConfig struct {
	// Callee finds the callee of a host in lower case, without port and final dot.
	Callee func(host string) (Callee, bool)
	Tokens Tokens
	// PassUnknown has requests to other hosts forwarded, without a token. Else they
	// are refused.
	PassUnknown bool
	// Self are the addresses that the egress listens on, which it does not forward
	// to.
	Self     []net.Addr
	Timeouts Timeouts
	// MaxHeaderBytes bounds the header section of a response; 0 means 64 KiB.
	MaxHeaderBytes int
	// Logger: nil means none.
	Logger hclog.Logger
	// Registerer: nil means no metrics.
	Registerer prometheus.Registerer
}

// Egress forwards a service's own requests to others, with a token for each. A
// program uses it as its HTTP proxy (http_proxy), or sends requests with the
// callee's name as Host to its listener.
//
// Authorization that the program has set stays as it is, and then no token of ours
// is added: a request has one (RFC 9110 section 11.6.2). Identity headers
// (x-watchword-) of the program are removed.
type Egress struct {
	config EgressConfig
	forwarder
	options dialOptions

	mu        sync.Mutex
	endpoints map[endpointKey]*usedEndpoint
	uses      uint64
}

// NewEgress returns an Egress. It opens no connection before there is a request.
func NewEgress(c EgressConfig) *Egress {
	e := &Egress{config: c, forwarder: newForwarder(c.Logger, c.Registerer, "outbound"), endpoints: map[endpointKey]*usedEndpoint{}}
	e.options = dialOptions{timeouts: c.Timeouts.withDefaults(), maxHeader: cmp.Or(c.MaxHeaderBytes, defaultMaxHeaderBytes), opened: e.metrics.connections}
	return e
}

// ServeHTTP implements http.Handler. It aborts the handler (http.ErrAbortHandler)
// when an answer ends before it is whole.
func (e *Egress) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o := &outgoing{r: r, http2: r.ProtoMajor == 2, outbound: true}
	host := hostName(r.Host)
	callee, known := e.config.Callee(host)
	if !known {
		callee = Callee{}
	}
	if bad := e.permitted(r, host, known); bad != nil {
		e.fail(w, o, bad)
		return
	}
	if r.Method == http.MethodConnect {
		e.connect(w, o)
		return
	}
	c := &call{egress: e, callee: callee, known: known, adds: known && len(r.Header["Authorization"]) == 0}
	record := 0
	if c.adds {
		record = replayRoom
	}
	o.upload = newUpload(w, r, 0, record)
	e.forward(w, o, c.roundTrip)
}

// permitted says whether a request may go out at all.
func (e *Egress) permitted(r *http.Request, host string, known bool) *failure {
	connect := r.Method == http.MethodConnect
	switch {
	case host == "" || !httpguts.ValidHostHeader(r.Host):
		return malformed("the request names no host")
	case connect && (known || !e.config.PassUnknown):
		return &failure{status: http.StatusMethodNotAllowed, word: "connect_refused",
			text: "speak plain HTTP to the sidecar; it speaks TLS to the callee"}
	case !known && !e.config.PassUnknown:
		return &failure{status: http.StatusForbidden, word: "callee_unknown",
			text: "no service that may be called has this host; name it in `calls` of the Service"}
	case r.URL.Scheme != "" && r.URL.Scheme != "http":
		return malformed("speak plain HTTP to the sidecar: the scheme of the request is not http")
	}
	return nil
}

// hostName is a host as callees are found by it.
func hostName(hostport string) string {
	host, _ := splitHost(hostport)
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

// splitHost takes apart what a request names. The port may be missing.
func splitHost(hostport string) (host, port string) {
	if host, port, err := net.SplitHostPort(hostport); err == nil {
		return host, port
	}
	return strings.Trim(hostport, "[]"), ""
}

// Close closes the connections that nothing uses; those in use are closed when
// their request ends.
func (e *Egress) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, used := range e.endpoints {
		used.close()
		delete(e.endpoints, key)
	}
}
