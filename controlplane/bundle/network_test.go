package bundle

import (
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// Nothing but public addresses is reached unless the policy says so, in any of
// the forms that an address has.
func TestAddresses(t *testing.T) {
	for _, c := range []struct {
		allow   string
		address string
		ok      bool
	}{
		{"", "8.8.8.8", true},
		{"", "::ffff:8.8.8.8", true},
		{"", "2606:4700::1111", true},
		{"", "64:ff9b::808:808", true}, // 8.8.8.8 by NAT64

		{"", "127.0.0.1", false},
		{"", "127.255.255.254", false},
		{"", "::1", false},
		{"", "::ffff:127.0.0.1", false},
		{"", "::127.0.0.1", false},
		{"", "10.1.2.3", false},
		{"", "172.16.0.1", false},
		{"", "172.31.255.255", false},
		{"", "172.32.0.1", true},
		{"", "192.168.0.1", false},
		{"", "100.64.0.1", false},
		{"", "100.100.100.200", false}, // metadata service of Alibaba Cloud
		{"", "100.128.0.1", true},
		{"", "169.254.169.254", false}, // metadata service of AWS, GCP, Azure
		{"", "fd00:ec2::254", false},   // and of AWS by IPv6
		{"", "168.63.129.16", false},   // WireServer of Azure
		{"", "192.0.0.192", false},     // metadata service of Oracle Cloud
		{"", "fe80::1", false},
		{"", "fe80::1%eth0", false},
		{"", "fec0::1", false},
		{"", "fc00::1", false},
		{"", "224.0.0.1", false},
		{"", "ff02::1", false},
		{"", "0.0.0.0", false},
		{"", "::", false},
		{"", "255.255.255.255", false},
		{"", "240.0.0.1", false},
		{"", "198.18.0.1", false},
		{"", "192.0.2.1", false},
		{"", "2001:db8::1", false},
		{"", "3fff::1", false},
		{"", "2002:7f00:1::", false},   // 127.0.0.1 by 6to4
		{"", "2001:0:7f00:1::", false}, // Teredo
		{"", "64:ff9b::7f00:1", false}, // 127.0.0.1 by NAT64
		{"", "64:ff9b::a9fe:a9fe", false},
		{"", "64:ff9b:1::808:808", false}, // NAT64 of this network's own (RFC 8215)
		{"", "4000::1", false},            // not given out

		{"127.0.0.0/8", "127.0.0.1", true},
		{"127.0.0.0/8", "::ffff:127.0.0.1", true},
		{"127.0.0.0/8", "::1", false},
		{"127.0.0.1/32", "127.0.0.2", false},
		{"::1/128", "::1", true},
		{"::1/128 10.0.0.0/8", "10.0.0.1", true},
		{"10.9.9.9/8", "10.0.0.1", true}, // bits after the prefix do not count
		{"10.0.0.0/8", "64:ff9b::a00:1", true},
		{"64:ff9b::/96", "64:ff9b::a00:1", true},
		{"::ffff:10.0.0.0/104", "10.0.0.1", true},
		{"::/0", "10.0.0.1", false},
		{"0.0.0.0/0", "169.254.169.254", true},
		{"fe80::/10", "fe80::1%eth0", true},
		{"10.0.0.0/8", "8.8.8.8", true},

		// Over http the address must be named.
		{"only", "8.8.8.8", false},
		{"only 8.8.8.0/24", "8.8.8.8", true},
		{"only 8.8.8.0/24", "64:ff9b::808:808", true},
		{"only 10.0.0.0/8", "127.0.0.1", false},
	} {
		fields := strings.Fields(c.allow)
		only := len(fields) > 0 && fields[0] == "only"
		if only {
			fields = fields[1:]
		}
		n, err := parseNetworks(fields, only)
		if err != nil {
			t.Errorf("parseNetworks(%q): %v", c.allow, err)
			continue
		}
		err = n.check(netip.MustParseAddr(c.address))
		if (err == nil) != c.ok {
			t.Errorf("allowing %q, %s: %v; want allowed: %t", c.allow, c.address, err, c.ok)
		}
		if err != nil && !strings.Contains(err.Error(), "allowNetworks") {
			t.Errorf("allowing %q, %s: %q does not name the way out", c.allow, c.address, err)
		}
	}
	for _, bad := range []string{"", "10.0.0.1", "10.0.0.0/33", "example.com/8", "fe80::1%eth0/64"} {
		if _, err := parseNetworks([]string{bad}, false); err == nil || !strings.Contains(err.Error(), "allowNetworks") {
			t.Errorf("parseNetworks(%q) = %v, want an error that names the field", bad, err)
		}
	}
}

// What the standard library knows to be special is never public, as it is, and
// inside an IPv6 address that stands for it.
func TestSpecialAddressesAreNotPublic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address")
		a := netip.AddrFrom16([16]byte(bits))
		v4 := netip.AddrFrom4([4]byte(bits[:4]))
		for _, prefix := range []string{"64:ff9b::", "2002::", "::ffff:0:0", "::", "64:ff9b:1::"} {
			special := v4.IsLoopback() || v4.IsPrivate() || v4.IsLinkLocalUnicast() || v4.IsMulticast() || v4.IsUnspecified()
			long := netip.MustParseAddr(prefix).As16()
			copy(long[12:], bits[:4])
			if prefix == "2002::" {
				copy(long[2:], bits[:4])
			}
			if inside := netip.AddrFrom16(long); special && (networks{}).check(inside) == nil {
				t.Errorf("%s stands for %s and may be reached", inside, v4)
			}
		}
		if a = a.Unmap(); (a.IsLoopback() || a.IsPrivate() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.IsUnspecified()) && (networks{}).check(a) == nil {
			t.Errorf("%s may be reached", a)
		}
	})
}

// What a dialer may ask about, besides addresses: it fails closed.
func TestControl(t *testing.T) {
	var n networks
	for _, address := range []string{"", "localhost:80", "127.0.0.1:80", "[::1]:443", "/run/some.sock", "[fe80::1%lo]:443"} {
		if err := n.control("tcp", address, nil); err == nil {
			t.Errorf("control(%q) = nil, want a refusal", address)
		}
	}
	if err := n.control("tcp4", "8.8.8.8:443", nil); err != nil {
		t.Errorf("control of a public address: %v", err)
	}
}
