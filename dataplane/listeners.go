package dataplane

import (
	"net"
	"net/netip"
	"strconv"
	"sync"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// Listeners is where a sidecar of the service listens, as its Service says: it has a
// managed Envoy do the same.
type Listeners struct {
	// Inbound is nil where the Service says nothing of it.
	Inbound *Inbound
	// Outbound is HOST:PORT on loopback; empty where the Service says nothing of it.
	Outbound string
}

// Inbound is where a sidecar takes requests, and what it forwards them to.
type Inbound struct {
	// Address and Upstream are HOST:PORT.
	Address, Upstream string
	// Protocol that the service itself speaks: 0 what the caller does, 1 HTTP/1.1, 2
	// HTTP/2.
	Protocol int
	// TLS of the mesh.
	TLS bool
}

// listening is what the resources say of Listeners.
type listening struct {
	mu      sync.Mutex
	now     Listeners
	changed chan struct{}
}

// Listeners gives the ones of now, and a channel that is closed when there may be
// others.
func (d *DataPlane) Listeners() (now Listeners, changed <-chan struct{}) {
	l := &d.listening
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changed == nil {
		l.changed = make(chan struct{})
	}
	return l.now, l.changed
}

func (l *listening) put(change func(*Listeners)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.now)
	if l.changed != nil {
		close(l.changed)
	}
	l.changed = nil
}

func (l *listening) inbound(in *dataplanev1.Inbound) {
	l.put(func(now *Listeners) {
		if now.Inbound = nil; in != nil {
			now.Inbound = &Inbound{
				Address: hostPort(in.GetAddress(), in.GetPort()), Upstream: hostPort(in.GetLocalIp(), in.GetLocalPort()),
				Protocol: int(in.GetProtocol()), TLS: in.GetTls(),
			}
		}
	})
}

// outbound takes no address but one of loopback, whatever the control plane says:
// whoever reaches it is the service.
func (l *listening) outbound(o *dataplanev1.OutboundListener) {
	l.put(func(now *Listeners) {
		now.Outbound = ""
		if a, err := netip.ParseAddr(o.GetAddress()); err == nil && a.IsLoopback() {
			now.Outbound = hostPort(o.GetAddress(), o.GetPort())
		}
	})
}

func hostPort(host string, port uint32) string {
	return net.JoinHostPort(host, strconv.FormatUint(uint64(port), 10))
}

// Callee is a service that may be called.
type Callee struct {
	// Service is its name, and Audience what a token for it names.
	Service, Audience string
	// Endpoints of its data planes, HOST:PORT; none: the host that is called.
	Endpoints []string
	// SPIFFEID is what its data planes are known by in TLS of the mesh; empty if they
	// speak none.
	SPIFFEID string
}

// Callee finds the service that a host stands for, if it may be called: a name or an
// address without port, as of url.URL.Hostname.
func (d *DataPlane) Callee(host string) (Callee, bool) {
	c := d.callee(host)
	return Callee{c.GetService(), c.GetAudience(), c.GetEndpoints(), c.GetSpiffeId()}, c != nil
}
