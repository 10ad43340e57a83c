package policy

import (
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/watchword-mesh/watchword/internal/identity"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Hosts returns the host names that callers reach a Service by: its own list, or
// its name.
func Hosts(name string, spec *policyv1.ServiceSpec) []string {
	if len(spec.GetHosts()) > 0 {
		return spec.GetHosts()
	}
	return []string{name}
}

// serviceHosts: a request for one service must not go to another, with a token
// for that.
func (c *checker) serviceHosts(s *policyv1.ServiceSpec) {
	if len(s.GetHosts()) == 0 && !identity.IsName(c.key.Name) {
		return // a fault of the name alone
	}
	for i, host := range Hosts(c.key.Name, s) {
		field := "spec"
		if len(s.GetHosts()) > 0 {
			field = index("spec.hosts", i)
			if why := badHost(host); why != "" {
				c.fault(field, "%q is not a host of a service: %s", clip(host), why)
				continue
			}
		}
		switch owner := c.hosts[host]; {
		case owner == c.key.Name:
			c.fault(field, "%q is given twice", clip(host))
		case owner != "":
			c.fault(field, "the host %q belongs to Service %q already; callers could not tell which of the two a request is for", clip(host), owner)
		default:
			c.hosts[host] = c.key.Name
		}
	}
}

// endpoints checks where the data planes of a service listen.
func (c *checker) endpoints(list []string) {
	for i, e := range list {
		field := index("spec.endpoints", i)
		c.once("spec.endpoints", list, i)
		host, port, err := net.SplitHostPort(e)
		if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n == 0 || strconv.FormatUint(n, 10) != port {
			c.fault(field, `%q is not where a data plane listens: HOST:PORT, such as "10.0.0.7:8443" or "[fd00::7]:8443"`, clip(e))
			continue
		}
		if why := badHost(host); why != "" {
			c.fault(field, "%q: %q is not a host: %s", clip(e), clip(host), why)
		} else if a, err := netip.ParseAddr(host); err == nil && (a.IsUnspecified() || a.IsMulticast()) {
			c.fault(field, "%q: nobody can be reached at %s", clip(e), host)
		}
	}
}

var (
	hostLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`) // RFC 1123 section 2.1
	// What some readers take for a part of an IPv4 address (URL Standard, "ends in a number").
	numberLabel = regexp.MustCompile(`^([0-9]+|0x[0-9a-f]*)$`)
)

// badHost says why a text is not a host in its one spelling, or returns "".
func badHost(host string) string {
	if a, err := netip.ParseAddr(host); err == nil {
		switch {
		case a.Zone() != "" || a.Is4In6():
			return "an address has no zone, and one of IPv4 is written as such"
		case a.String() != host:
			return "write the address as " + a.String()
		}
		return ""
	}
	labels := strings.Split(host, ".")
	switch {
	case strings.Contains(host, "*"):
		return "a wildcard is not allowed; name each host"
	case len(host) > 253 || slices.ContainsFunc(labels, func(l string) bool { return !hostLabel.MatchString(l) }):
		return `want a DNS name in lower case, or an IP address, without port and brackets, such as "orders.example.com"`
	case len(labels) > 1 && numberLabel.MatchString(labels[len(labels)-1]):
		return "it ends like an IP address, and is none"
	}
	return ""
}

// outbound checks where the data plane takes the service's own requests. Who can
// connect there is the service, so nobody from outside may.
func (c *checker) outbound(out *policyv1.Outbound, in *policyv1.Inbound) {
	if out == nil {
		return
	}
	text := out.GetAddress()
	if text == "" {
		text = "127.0.0.1"
	}
	address, err := netip.ParseAddr(text)
	if err != nil || !address.IsLoopback() || address.Is4In6() || address.Zone() != "" {
		c.fault("spec.outbound.address", `%q is not a loopback address, such as "127.0.0.1" or "::1": whoever reaches the listener gets tokens of the service`, clip(text))
	}
	port := out.GetPort()
	if port == 0 || port > 65535 {
		c.fault("spec.outbound.port", "wants a port from 1 to 65535")
		return
	}
	if in == nil || err != nil {
		return
	}
	if in.GetPort() == port && samePlace(in.GetAddress(), address) {
		c.fault("spec.outbound", "listens where spec.inbound does: give another port")
	}
	if local, err := netip.ParseAddrPort(in.GetLocalAddress()); err == nil && uint32(local.Port()) == port && samePlace(local.Addr().String(), address) {
		c.fault("spec.outbound", "listens where the service itself does (spec.inbound.localAddress): give another port")
	}
}

// samePlace says whether a listener at an address, "" for the default, takes what
// one at a loopback address would; if not always, then on some systems.
func samePlace(text string, loopback netip.Addr) bool {
	if text == "" {
		text = "127.0.0.1"
	}
	a, err := netip.ParseAddr(text)
	return err == nil && (a.Unmap() == loopback.Unmap() || a.IsUnspecified())
}
