// Package transport is what stands between the network and the servers of a
// replica: TLS with certificates that are replaced while they are in use, limits
// on connections, and who is at the other end of a Unix socket.
package transport

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// Address is where to listen, as an operator writes it: HOST:PORT with TLS, or
// http://HOST:PORT without, which only loopback may have.
type Address struct {
	HostPort string
	Plain    bool
}

// ParseAddress reads an address. The error says what would be right.
func ParseAddress(text string) (Address, error) {
	rest, plain := strings.CutPrefix(text, "http://")
	rest = strings.TrimPrefix(rest, "https://")
	a := Address{HostPort: rest, Plain: plain}
	host, _, err := net.SplitHostPort(rest)
	if err != nil {
		return a, fmt.Errorf("%q is not HOST:PORT: %w", text, err)
	}
	if plain && !Loopback(host) {
		return a, fmt.Errorf("%q has no TLS, which only a loopback address may go without, such as http://127.0.0.1:7402; leave http:// out to have TLS", text)
	}
	return a, nil
}

// Loopback says whether a host, as a name or an address, is this machine alone.
func Loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// Listen opens the address. A name such as localhost that turns out to be another
// host's is refused where there would be no TLS.
func (a Address) Listen() (net.Listener, error) {
	l, err := net.Listen("tcp", a.HostPort)
	if err != nil {
		return nil, err
	}
	if at := l.Addr().(*net.TCPAddr); a.Plain && !at.IP.IsLoopback() {
		_ = l.Close()
		return nil, fmt.Errorf("it is %s here, which is not loopback", at)
	}
	return l, nil
}

// URL is the base of what is served at an address that a listener has.
func (a Address) URL(at net.Addr) string {
	if a.Plain {
		return "http://" + at.String()
	}
	return "https://" + at.String()
}
