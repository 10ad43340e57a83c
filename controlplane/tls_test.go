package controlplane

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/controlplane/transport"
	"github.com/watchword-mesh/watchword/issuer/ca"
)

// A certificate has what clients can go by, each once; what no certificate can have
// is told, since one such name would break every handshake.
func TestCertificateNames(t *testing.T) {
	var n certificateNames
	for name, ok := range map[string]bool{
		"localhost": true, "Control.Example.": true, "control.example": true, "a-b.example": true, "127.0.0.1": true, "::1": true, "fe80::1%eth0": true,
		"0.0.0.0": true, "::": true, "": true,
		"a..b": false, ".a": false, "a b": false, "exämple": false, "-a": false, "a_b": false, "*.example": false, strings.Repeat("a", 64): false,
	} {
		if got := n.add(name); got != ok {
			t.Errorf("add(%q) = %t, want %t", name, got, ok)
		}
	}
	record, err := ca.First("mesh.local", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	authority, err := ca.NewAuthority([]ca.Record{record})
	if err != nil {
		t.Fatal(err)
	}
	c := Config{}.withDefaults()
	d, err := newDoors(c, func() *ca.Authority { return authority }, n)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := d.certificate()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	for _, name := range cert.Leaf.DNSNames {
		got[name] = true
	}
	for _, ip := range cert.Leaf.IPAddresses {
		got[ip.String()] = true
	}
	want := map[string]bool{"localhost": true, "control.example": true, "a-b.example": true, "127.0.0.1": true, "::1": true, "fe80::1": true}
	if diff := cmp.Diff(want, got); diff != "" || len(got) != len(cert.Leaf.DNSNames)+len(cert.Leaf.IPAddresses) {
		t.Errorf("names of the certificate, each once (-want +got):\n%s", diff)
	}
}

// What can't work later is told at the first start, before anything is fixed.
func TestCheckFirst(t *testing.T) {
	for _, tt := range []struct{ issuer, domain, want string }{
		{"https://tokens.example:7402", "mesh.local", ""},
		{"", "mesh.local", "--issuer-url"},
		{"nonsense", "mesh.local", "--issuer-url nonsense"},
		{"https://tokens.example", "a..b", "--trust-domain a..b"},
		{"https://tokens.example", "UPPER", "--trust-domain UPPER"},
	} {
		err := (&replica{Config: Config{IssuerURL: tt.issuer, TrustDomain: tt.domain}}).checkFirst(time.Now())
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("--issuer-url %q --trust-domain %q: %v; want an error with %q", tt.issuer, tt.domain, err, tt.want)
		}
	}
}

// Only a socket that nobody listens at any more makes room for another.
func TestRemoveSocket(t *testing.T) {
	dir := t.TempDir()
	file, dead, live := filepath.Join(dir, "file"), filepath.Join(dir, "dead"), filepath.Join(dir, "live")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dead, live} {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
		if err != nil {
			t.Fatal(err)
		}
		l.SetUnlinkOnClose(false)
		if path == dead {
			_ = l.Close()
		} else {
			defer l.Close()
		}
	}
	for path, want := range map[string]string{filepath.Join(dir, "nothing"): "", dead: "", file: "is no socket", live: "somebody listens"} {
		err := removeSocket(path)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("removeSocket(%s): %v; want an error with %q", filepath.Base(path), err, want)
		}
		if _, there := os.Lstat(path); (there == nil) != (want != "") {
			t.Errorf("%s is there: %t", filepath.Base(path), there == nil)
		}
	}
}

// An issuer on this machine that is not where the token service listens is told of;
// another's address may be that of a proxy.
func TestElsewhere(t *testing.T) {
	at := func(plain bool) *listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return &listener{l, transport.Address{Plain: plain}}
	}
	tls, plain := at(false), at(true)
	for _, tt := range []struct {
		issuer string
		sts    *listener
		want   bool
	}{
		{tls.url(), tls, false}, {plain.url(), plain, false}, {plain.url(), tls, true},
		{"http://" + tls.Addr().String(), tls, true}, {"https://127.0.0.1:1", tls, true}, {"https://tokens.example", tls, false},
	} {
		if got := elsewhere(tt.issuer, tt.sts); got != tt.want {
			t.Errorf("issuer %s, listens %s: %t, want %t", tt.issuer, tt.sts.url(), got, tt.want)
		}
	}
}
