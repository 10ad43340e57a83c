package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/transport"
	"github.com/watchword-mesh/watchword/issuer/ca"
)

// serverLifetime is that of a replica's own certificate. It is in memory, and is
// made anew at half of it.
const serverLifetime = 24 * time.Hour

// doors are the TLS configurations of a replica's listeners.
type doors struct {
	authority func() *ca.Authority
	// issued is the certificate of the small CA: that of ADS always, since data
	// planes pin this CA, and that of the others unless there are files.
	issued *transport.Issued
	files  *transport.Files // nil without own files
	// people is the CA of client certificates of people and machines at the admin
	// API; nil if there is none.
	people []*x509.Certificate
}

// newDoors reads the files that the configuration names. The names are those of
// certificates of the small CA.
func newDoors(c Config, authority func() *ca.Authority, names certificateNames) (*doors, error) {
	d := &doors{authority: authority}
	d.issued = &transport.Issued{Now: time.Now, Issue: func(now time.Time) (*tls.Certificate, error) {
		return issueServer(authority(), names, now)
	}}
	var err error
	// Now rather than at the first handshake.
	if own, err := d.issued.Certificate(); err != nil {
		return nil, err
	} else if _, err := own.Leaf.Verify(x509.VerifyOptions{Roots: authority().Pool()}); err != nil {
		return nil, fmt.Errorf("the certificate of this replica can't be verified: %w", err)
	}
	if c.TLSCertFile != "" {
		if d.files, err = transport.LoadFiles(c.TLSCertFile, c.TLSKeyFile, c.Logger.Named("tls"), time.Now); err != nil {
			return nil, err
		}
	}
	if c.AdminClientCAFile != "" {
		if d.people, err = readCertificates(c.AdminClientCAFile); err != nil {
			return nil, fmt.Errorf("--admin-client-ca-file: %w", err)
		}
	}
	return d, nil
}

func readCertificates(path string) ([]*x509.Certificate, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var list []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue // such as its key
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		list = append(list, c)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s has no certificate in PEM", path)
	}
	return list, nil
}

func issueServer(authority *ca.Authority, names certificateNames, now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	chain, err := authority.IssueServer(ca.Server{TrustDomain: authority.TrustDomain(), DNSNames: names.dns, IPs: names.ips}, &key.PublicKey, now, serverLifetime)
	if err != nil {
		return nil, fmt.Errorf("issuing the certificate of this replica: %w", err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: leaf}, nil
}

// dataPlanes is the door of data planes: those that are enrolled show their
// certificate; who is to enrol has none yet.
func (d *doors) dataPlanes() *tls.Config {
	c := server(d.issued.Certificate, func() *x509.CertPool { return d.authority().Pool() })
	c.MinVersion = tls.VersionTLS13
	return c
}

// admin is the door of operators and their scripts.
func (d *doors) admin() *tls.Config {
	return server(d.certificate, func() *x509.CertPool {
		pool := d.authority().Pool()
		for _, c := range d.people {
			pool.AddCert(c)
		}
		return pool
	})
}

// public is the door of those who show no certificate.
func (d *doors) public() *tls.Config { return server(d.certificate, nil) }

// certificate is that of the doors for which there may be own files.
func (d *doors) certificate() (*tls.Certificate, error) {
	if d.files != nil {
		return d.files.Certificate()
	}
	return d.issued.Certificate()
}

// server is a configuration that looks the certificate and the CAs of clients up
// at each handshake, so that both can be replaced. There are no session tickets: a
// resumed session would be of a client whose certificate was looked at long ago.
func server(certificate func() (*tls.Certificate, error), clients func() *x509.CertPool) *tls.Config {
	c := &tls.Config{
		MinVersion:             tls.VersionTLS12,
		NextProtos:             []string{"h2", "http/1.1"},
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate() },
	}
	if clients == nil {
		return c
	}
	c.ClientAuth = tls.VerifyClientCertIfGiven
	c.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		now := c.Clone()
		now.ClientCAs, now.GetConfigForClient = clients(), nil
		return now, nil
	}
	return c
}

// certificateNames are what clients may call a replica that go by names and
// addresses.
type certificateNames struct {
	dns []string
	ips []net.IP
}

// hostName is what a certificate can name (RFC 1123 section 2.1), and what Go can
// verify against the constraint of the CA.
var hostName = regexp.MustCompile(`^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\.)*[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// add says whether the name can be in a certificate; "" and an address that stands
// for all are none, and no fault.
func (n *certificateNames) add(name string) bool {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	if ip, err := netip.ParseAddr(name); err == nil {
		at := net.IP(ip.WithZone("").AsSlice())
		if !ip.IsUnspecified() && !slices.ContainsFunc(n.ips, at.Equal) {
			n.ips = append(n.ips, at)
		}
		return true
	}
	if name == "" || slices.Contains(n.dns, name) {
		return true
	}
	if len(name) > 253 || !hostName.MatchString(name) {
		return false
	}
	n.dns = append(n.dns, name)
	return true
}

// names are those of the listeners, of this host, of the issuer, and those that
// the operator adds.
func (l *listeners) names(c Config, issuer string) (certificateNames, error) {
	var n certificateNames
	for _, name := range append([]string{"localhost", "127.0.0.1", "::1"}, c.TLSNames...) {
		n.add(name)
	}
	if host, err := os.Hostname(); err == nil && !n.add(host) {
		c.Logger.Warn("the name of this host can't be in a certificate", "name", host)
	}
	for _, at := range []net.Listener{l.admin, l.xds, l.sts, l.ops} {
		n.add(at.Addr().(*net.TCPAddr).AddrPort().Addr().Unmap().String())
	}
	u, err := url.Parse(issuer)
	if err != nil {
		return n, errors.New("the issuer is not a URL")
	}
	if !n.add(u.Hostname()) {
		c.Logger.Warn("the host of the issuer can't be in a certificate", "issuer", issuer)
	}
	return n, nil
}
