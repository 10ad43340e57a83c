package dataplane

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/watchword-mesh/watchword/dataplane/tokens"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// outbound is what the service calls others with.
type outbound struct {
	callees atomic.Pointer[callees]

	mu     sync.Mutex
	source *tokens.Source // nil until the instance is enrolled
	keys   []string       // signing keys that count; nil: not known
	idle   []func()       // closes connections of a transport that nothing uses
}

// callees are the services that may be called, by host.
type callees map[string]*dataplanev1.Callee

// put takes what the control plane says; nil is that it has nothing for us.
func (o *outbound) put(m *dataplanev1.Outbound) {
	next := callees{}
	for _, c := range m.GetCallees() {
		for _, h := range c.GetHosts() {
			next[h] = c
		}
	}
	o.callees.Store(&next)
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, closeIdle := range o.idle {
		closeIdle() // they may lead to who is no callee any more
	}
	if o.keys = m.GetSigningKeys(); len(o.keys) > 0 && o.source != nil {
		o.source.Keep(o.keys)
	}
}

func (o *outbound) start(s *tokens.Source) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.source = s; len(o.keys) > 0 {
		s.Keep(o.keys)
	}
}

func (o *outbound) dropAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.source != nil {
		o.source.DropAll()
	}
}

func (o *outbound) close() {
	o.mu.Lock()
	s := o.source
	o.mu.Unlock()
	if s != nil {
		s.Close()
	}
}

// callee of a host without port, nor brackets around an address.
func (o *outbound) callee(host string) *dataplanev1.Callee {
	all := o.callees.Load()
	if all == nil {
		return nil
	}
	return (*all)[strings.ToLower(strings.TrimSuffix(host, "."))]
}

// calleeAt is the callee of HOST:PORT.
func (o *outbound) calleeAt(address string) *dataplanev1.Callee {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil
	}
	return o.callee(host)
}

// Token gives a token of this service for an audience, from memory if it can. It waits
// for the instance to be enrolled, and for the STS, until ctx ends.
func (d *DataPlane) Token(ctx context.Context, audience string) (tokens.Token, error) {
	if d.config.Tokens != nil {
		return d.config.Tokens.Token(ctx, audience)
	}
	if _, err := d.Identity(ctx); err != nil {
		return tokens.Token{}, err
	}
	return d.source.Token(ctx, audience)
}

// Refused says that a callee has not accepted a token, which is then not given out any
// more: see tokens.Tokens.
func (d *DataPlane) Refused(audience string, refused tokens.Token) (again bool) {
	switch {
	case d.config.Tokens != nil:
		return d.config.Tokens.Refused(audience, refused)
	case d.Enrolled():
		return d.source.Refused(audience, refused)
	}
	return false
}

// Transport makes requests to the services that this one may call, each with a token:
// it knows them by their hosts. Requests to other hosts go out as they are. base makes
// the requests; nil is one that finds the data planes of the callee by its endpoints
// and speaks TLS of the mesh with them, where the callee has such.
func (d *DataPlane) Transport(base http.RoundTripper) http.RoundTripper {
	if base == nil {
		base = d.meshTransport()
	}
	return &tokens.Transport{Base: base, Tokens: d, Audience: func(r *http.Request) (string, bool) {
		c := d.callee(r.URL.Hostname())
		return c.GetAudience(), c != nil
	}}
}

// GRPC makes calls to one service, each with a token for its audience: give a
// grpc.ClientConn its interceptors.
func (d *DataPlane) GRPC(audience string) tokens.GRPC {
	return tokens.GRPC{Tokens: d, Audience: audience}
}

// CalleeTLS is for connections to the data planes of a callee: TLS of the mesh, if it
// has a SPIFFE ID, else nil. Before the instance has enrolled, each handshake fails.
func (d *DataPlane) CalleeTLS(c Callee) *tls.Config {
	if c.SPIFFEID == "" {
		return nil
	}
	if d.Enrolled() {
		return d.instance.CalleeTLS(c.SPIFFEID)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, VerifyConnection: func(tls.ConnectionState) error {
		return fmt.Errorf("service %q is not enrolled yet, so it does not know whom it calls; try again", d.config.Service)
	}}
}
