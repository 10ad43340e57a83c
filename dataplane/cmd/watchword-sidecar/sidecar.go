package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/watchword-mesh/watchword/dataplane"
	"github.com/watchword-mesh/watchword/dataplane/proxy"
	"github.com/watchword-mesh/watchword/dataplane/tokens"
)

// sidecar is what runs.
type sidecar struct {
	flags    *flags
	log      hclog.Logger
	config   dataplane.Config
	registry *prometheus.Registry
	plane    *dataplane.DataPlane
	// open has the address of each listener that is open, by its name.
	open sync.Map
}

// run serves until ctx ends, and then drains.
func (s *sidecar) run(ctx context.Context) error {
	s.registry = prometheus.NewRegistry()
	s.config.Registerer = s.registry
	// Requests that drain are decided on, and get tokens, to the end.
	plane, err := dataplane.Open(context.WithoutCancel(ctx), s.config)
	if err != nil {
		return err
	}
	defer plane.Close()
	s.plane = plane
	g, ctx := errgroup.WithContext(ctx)
	if s.flags.opsListen != "" {
		ops, err := s.openOps(ctx)
		if err != nil {
			return err
		}
		defer ops.close() // last, so that probes see the drain
	}
	g.Go(func() error { return follow(ctx, plane, s.inbound, s.serveInbound) })
	g.Go(func() error { return follow(ctx, plane, s.outbound, s.serveOutbound) })
	g.Go(func() error { return s.refused(ctx) })
	return g.Wait()
}

// refused ends the sidecar where there will be no ruleset, as the control plane has
// said no, or a key file can't be used: whoever has started it sees that, and not a
// sidecar that is never ready.
func (s *sidecar) refused(ctx context.Context) error {
	if err := s.plane.Ready(ctx); ctx.Err() == nil {
		return err
	}
	return nil
}

// inbound is what is listened on now; the zero value is nothing.
func (s *sidecar) inbound(l dataplane.Listeners) dataplane.Inbound {
	switch {
	case s.flags.listen != "":
		return dataplane.Inbound{Address: s.flags.listen, Upstream: s.flags.upstream, Protocol: int(protocols[s.flags.protocol]), TLS: s.flags.tls == "mesh"}
	case l.Inbound != nil:
		return *l.Inbound
	}
	return dataplane.Inbound{}
}

func (s *sidecar) outbound(l dataplane.Listeners) string {
	if s.flags.outboundListen != "" {
		return s.flags.outboundListen
	}
	return l.Outbound
}

// follow serves what choose gives, and another one when it changes: what is served
// then drains while the next one is there already.
func follow[T comparable](ctx context.Context, plane *dataplane.DataPlane, choose func(dataplane.Listeners) T, serve func(context.Context, T) error) error {
	var none T
	g, all := errgroup.WithContext(ctx)
	for {
		l, changed := plane.Listeners()
		now := choose(l)
		current, cancel := context.WithCancel(all)
		if now != none {
			g.Go(func() error { return serve(current, now) })
		}
		for choose(l) == now && all.Err() == nil {
			select {
			case <-changed:
				l, changed = plane.Listeners()
			case <-all.Done():
			}
		}
		cancel()
		if all.Err() != nil {
			return g.Wait()
		}
	}
}

func (s *sidecar) serveInbound(ctx context.Context, in dataplane.Inbound) error {
	config := s.serverConfig("inbound")
	if in.TLS {
		instance, err := s.plane.Identity(ctx)
		if err != nil {
			return stopped(ctx, err)
		}
		config.TLS = instance.ServerTLS()
	}
	to, err := proxy.New(proxy.Config{
		Upstream: in.Upstream, Protocol: proxy.Protocol(in.Protocol), MaxBodyBytes: s.flags.maxBody,
		Timeouts: proxy.Timeouts{ResponseHeader: s.flags.upstreamTimeout}, Logger: s.log.Named("inbound"), Registerer: s.registry,
	})
	if err != nil {
		return err
	}
	defer to.Close()
	l, err := s.listen(ctx, in.Address, config)
	if err != nil {
		return stopped(ctx, err)
	}
	return proxy.Serve(ctx, l, s.plane.Middleware(to), config)
}

func (s *sidecar) serveOutbound(ctx context.Context, address string) error {
	config := s.serverConfig("outbound")
	l, err := s.listen(ctx, address, config)
	if err != nil {
		return stopped(ctx, err)
	}
	egress := proxy.NewEgress(proxy.EgressConfig{
		Callee: (&calleeFinder{plane: s.plane}).find, Tokens: bearer{s.plane}, PassUnknown: s.flags.passUnknown,
		Self: []net.Addr{l.Addr()}, Logger: s.log.Named("outbound"), Registerer: s.registry,
	})
	defer egress.Close()
	return proxy.Serve(ctx, l, egress, config)
}

func (s *sidecar) serverConfig(name string) proxy.ServerConfig {
	return proxy.ServerConfig{
		Name: name, BodyTimeout: s.flags.clientTimeout, WriteTimeout: s.flags.clientTimeout,
		MaxConnections: s.flags.maxConnections, DrainTimeout: s.flags.drain, Logger: s.log.Named(name), Registerer: s.registry,
	}
}

func (s *sidecar) listen(ctx context.Context, address string, config proxy.ServerConfig) (net.Listener, error) {
	l, err := s.take(ctx, config.Name, address)
	if err != nil {
		return nil, err
	}
	s.open.Store(config.Name, address)
	s.log.Info("listening", "for", config.Name, "address", address, "tls", config.TLS != nil)
	return l, nil
}

// retake is how often an address is tried that can't be had.
const retake = 200 * time.Millisecond

// take listens. An address that flags name is an error if it can't be had. One that
// the Service names is waited for: what listened there before may be about to go, and
// a fault in the Service must not end what else runs here.
func (s *sidecar) take(ctx context.Context, name, address string) (net.Listener, error) {
	var last string
	for {
		l, err := listen(address)
		if err == nil {
			return l, nil
		}
		err = fmt.Errorf("%s listener: %w", name, err)
		if address == s.flags.listen || address == s.flags.outboundListen {
			return nil, err
		}
		if err.Error() != last {
			last = err.Error()
			s.log.Error("can't listen where the Service says; trying again", "service", s.flags.service, "error", err)
		}
		select {
		case <-time.After(retake):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// listen takes HOST:PORT or unix:PATH. A socket that an earlier process has left is
// removed; one that somebody listens on is not.
func listen(address string) (net.Listener, error) {
	path, unix := strings.CutPrefix(address, "unix:")
	if !unix {
		return net.Listen("tcp", address)
	}
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("another process listens on %s", path)
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		_ = os.Remove(path)
	}
	return net.Listen("unix", path)
}

func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// bearer gives the proxy tokens as texts.
type bearer struct{ plane *dataplane.DataPlane }

func (b bearer) Token(ctx context.Context, audience string) (string, error) {
	t, err := b.plane.Token(ctx, audience)
	return t.Value, err
}

func (b bearer) Refused(audience, value string) {
	_ = b.plane.Refused(audience, tokens.Token{Value: value})
}

// calleeFinder finds callees, with one TLS configuration for each.
type calleeFinder struct {
	plane *dataplane.DataPlane
	tls   sync.Map // *tls.Config, by SPIFFE ID
}

func (f *calleeFinder) find(host string) (proxy.Callee, bool) {
	c, ok := f.plane.Callee(host)
	if !ok {
		return proxy.Callee{}, false
	}
	out := proxy.Callee{Service: c.Service, Audience: c.Audience, Endpoints: c.Endpoints}
	if c.SPIFFEID != "" {
		out.TLS = f.tlsOf(c)
	}
	return out, true
}

func (f *calleeFinder) tlsOf(c dataplane.Callee) *tls.Config {
	if config, ok := f.tls.Load(c.SPIFFEID); ok {
		return config.(*tls.Config)
	}
	if !f.plane.Enrolled() {
		return f.plane.CalleeTLS(c) // which refuses
	}
	config, _ := f.tls.LoadOrStore(c.SPIFFEID, f.plane.CalleeTLS(c))
	return config.(*tls.Config)
}
