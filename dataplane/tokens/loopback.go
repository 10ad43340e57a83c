package tokens

import (
	"net/netip"
	"strings"
)

// loopback tells whether a host is this one by what it is called: a loopback
// address as it stands, or localhost (RFC 6761 section 6.3). No name is resolved,
// since another answer may come when it is dialled.
func loopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
