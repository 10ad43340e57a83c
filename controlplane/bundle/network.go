package bundle

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
)

// AddressError says that an address may not be reached.
type AddressError struct {
	Address netip.Addr
	why     string
}

// Error names the way out.
func (e *AddressError) Error() string {
	return fmt.Sprintf("%s %s; if the keys are meant to come from there, name its network in keySet.jwksUri.allowNetworks", e.Address, e.why)
}

// The prefixes that are not global unicast, or that nobody publishes keys in:
// the IANA special-purpose address registries (RFC 6890 and its updates).
var (
	globalIPv6 = netip.MustParsePrefix("2000::/3") // RFC 4291 section 2.4; all that IANA has given out
	nat64      = netip.MustParsePrefix("64:ff9b::/96")
	// wireServer answers only virtual machines of Azure, with their secrets,
	// although its address is a public one.
	notPublic = prefixes(`
		0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12
		192.0.0.0/24 192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15
		198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
		168.63.129.16/32
		2001::/23 2001:db8::/32 2002::/16 3fff::/20`)
)

func prefixes(text string) []netip.Prefix {
	var out []netip.Prefix
	for _, field := range strings.Fields(text) {
		out = append(out, netip.MustParsePrefix(field))
	}
	return out
}

// networks says which addresses may be reached.
type networks struct {
	allowed []netip.Prefix
	// only the allowed ones, public or not: for http, where nothing but the
	// network protects the keys.
	only bool
}

func parseNetworks(list []string, only bool) (networks, error) {
	n := networks{only: only}
	for _, text := range list {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return n, fmt.Errorf("allowNetworks: %q is not an address range such as 10.0.0.0/8", clip(text))
		}
		if p.Addr().Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		n.allowed = append(n.allowed, p.Masked())
	}
	return n, nil
}

// check returns an *AddressError for an address that may not be reached.
func (n networks) check(a netip.Addr) error {
	// A mapped address is the IPv4 address, and a zone names an interface of
	// ours, not another address.
	a = a.Unmap().WithZone("")
	if n.allows(a) {
		return nil
	}
	target := a
	if nat64.Contains(a) {
		b := a.As16()
		target = netip.AddrFrom4([4]byte(b[12:]))
		if n.allows(target) {
			return nil
		}
	}
	switch {
	case !public(target):
		return &AddressError{a, "is not a public address"}
	case n.only:
		return &AddressError{a, "would be asked by http, without protection"}
	}
	return nil
}

func (n networks) allows(a netip.Addr) bool {
	for _, p := range n.allowed {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// everything says that all addresses are allowed, in both families.
func (n networks) everything() bool {
	var v4, v6 bool
	for _, p := range n.allowed {
		v4 = v4 || p.Bits() == 0 && p.Addr().Is4()
		v6 = v6 || p.Bits() == 0 && p.Addr().Is6()
	}
	return v4 && v6
}

func public(a netip.Addr) bool {
	if !a.IsValid() || a.Is6() && !globalIPv6.Contains(a) {
		return false
	}
	for _, p := range notPublic {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// control is for net.Dialer.Control: it sees the address that the connection
// goes to, after all names were resolved, so that a name that changes its
// address between a check and the dial (DNS rebinding) gains nothing.
func (n networks) control(_, address string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("%q is not an IP address", clip(address))
	}
	return n.check(a.Addr())
}

// clip bounds text of others in messages.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..."
	}
	return s
}
