package proxy

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
)

// maxEndpoints is how many addresses an Egress has connections to at a time.
const maxEndpoints = 512

// endpointKey is what endpoints differ by.
type endpointKey struct {
	address
	tls   *tls.Config
	local bool // tokens go over it in plain text
}

type usedEndpoint struct {
	*endpoint
	last uint64 // by the count of uses
}

// endpoint returns the endpoint of a key, with the connections that it has.
func (e *Egress) endpoint(key endpointKey) *endpoint {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.uses++
	used := e.endpoints[key]
	if used == nil {
		if len(e.endpoints) >= maxEndpoints {
			e.forgetOldest()
		}
		o := e.options
		o.tls, o.control = key.tls, e.control(key)
		used = &usedEndpoint{endpoint: newEndpoint(key.address, o)}
		e.endpoints[key] = used
	}
	used.last = e.uses
	return used.endpoint
}

func (e *Egress) forgetOldest() {
	var oldest endpointKey
	first := e.uses
	for key, used := range e.endpoints {
		if used.last < first {
			oldest, first = key, used.last
		}
	}
	if used := e.endpoints[oldest]; used != nil {
		used.close()
		delete(e.endpoints, oldest)
	}
}

// control refuses an address behind name resolution, before anything is sent to
// it: a name that leads elsewhere today is no way out.
func (e *Egress) control(key endpointKey) func(network, address string, _ syscall.RawConn) error {
	return func(_, address string, _ syscall.RawConn) error {
		to, err := netip.ParseAddrPort(address)
		if err != nil {
			return nil // a Unix socket
		}
		if key.local && !to.Addr().Unmap().IsLoopback() {
			return &failure{status: http.StatusBadGateway, word: "plaintext_refused",
				text: "the callee is reached without TLS, and a token goes over plain text to loopback addresses only; give it TLS or an endpoint on loopback"}
		}
		if slices.ContainsFunc(e.config.Self, func(self net.Addr) bool { return same(self, to) }) {
			return &failure{status: http.StatusLoopDetected, word: "loop",
				text: "the host of the request is the sidecar itself; name the callee"}
		}
		return nil
	}
}

// same says whether a listener takes connections to an address of this host.
func same(listener net.Addr, to netip.AddrPort) bool {
	host, port, err := net.SplitHostPort(listener.String())
	if err != nil || port != strconv.Itoa(int(to.Port())) {
		return false
	}
	at, err := netip.ParseAddr(host)
	if err != nil {
		return false
	}
	return at.Unmap() == to.Addr().Unmap() || at.IsUnspecified() && ours(to.Addr().Unmap())
}

func ours(a netip.Addr) bool {
	if a.IsLoopback() || a.IsUnspecified() {
		return true
	}
	own, err := net.InterfaceAddrs()
	if err != nil {
		return true // rather no way than a loop
	}
	return slices.ContainsFunc(own, func(n net.Addr) bool {
		p, err := netip.ParsePrefix(n.String())
		return err == nil && p.Addr().Unmap() == a
	})
}
