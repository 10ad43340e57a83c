package ca

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/watchword-mesh/watchword/internal/identity"
)

// Server is what the certificate of a replica is for.
type Server struct {
	TrustDomain string
	// DNSNames and IPs are of its listeners, for clients that go by those.
	// Data planes go by the SPIFFE ID of the control plane.
	DNSNames []string
	IPs      []net.IP
}

// IssueInstance makes a certificate (DER, as a chain that leaves out the CA)
// for an instance of a service, valid from a minute before now for lifetime
// after it, but no longer than the CA. It is good for a TLS client, and for a server
// of the mesh that is known by the SPIFFE ID: it has no host name. The ID must name
// the instance of that key.
func (a *Authority) IssueInstance(id identity.ID, publicKey crypto.PublicKey, now time.Time, lifetime time.Duration) (chain [][]byte, err error) {
	spki, err := x509.MarshalPKIXPublicKey(publicKey)
	if err != nil {
		return nil, fmt.Errorf("signing for %s: %w", id, err)
	}
	if _, err := identity.Parse(id.String()); err != nil || id.Instance == "" || id.Instance != identity.InstanceOf(spki) {
		return nil, fmt.Errorf("signing for %s: that is not the instance with this key, %s", id, identity.InstanceOf(spki))
	}
	if id.TrustDomain != a.trustDomain {
		return nil, fmt.Errorf("signing for %s: the CA is of the trust domain %q", id, a.trustDomain)
	}
	leaf, err := a.issue(&x509.Certificate{
		URIs:        []*url.URL{{Scheme: "spiffe", Host: id.TrustDomain, Path: "/" + id.Service + "/" + id.Instance}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}, publicKey, now, lifetime)
	if err != nil {
		return nil, fmt.Errorf("signing for %s: %w", id, err)
	}
	return [][]byte{leaf}, nil
}

// IssueServer makes a certificate (DER) for a replica of the control plane,
// good for a TLS server alone, valid as one of IssueInstance. The chain has the
// CA as well: who has a pin and nothing else finds it there.
func (a *Authority) IssueServer(s Server, publicKey crypto.PublicKey, now time.Time, lifetime time.Duration) (chain [][]byte, err error) {
	if s.TrustDomain != a.trustDomain {
		return nil, fmt.Errorf("signing for a server of the trust domain %q: the CA is of %q", s.TrustDomain, a.trustDomain)
	}
	name, err := url.Parse(identity.ControlPlane(s.TrustDomain))
	if err != nil {
		return nil, fmt.Errorf("signing for a server: %w", err)
	}
	leaf, err := a.issue(&x509.Certificate{
		URIs:        []*url.URL{name},
		DNSNames:    s.DNSNames,
		IPAddresses: s.IPs,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, publicKey, now, lifetime)
	if err != nil {
		return nil, fmt.Errorf("signing for a server: %w", err)
	}
	return [][]byte{leaf, a.active.certificate.Raw}, nil
}

// issue fills in what all leaves have in common, and signs. They have no
// subject: who they are for is in the SAN, which is critical then (RFC 5280
// section 4.2.1.6).
func (a *Authority) issue(template *x509.Certificate, publicKey crypto.PublicKey, now time.Time, lifetime time.Duration) ([]byte, error) {
	if lifetime <= 0 {
		return nil, fmt.Errorf("a certificate that is valid for %v is none", lifetime)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	parent := a.active.certificate
	template.SerialNumber = serial
	template.NotBefore, template.NotAfter = now.Add(-backdated), now.Add(lifetime)
	// Nothing below a CA is valid when it isn't, so it should not say so.
	if template.NotAfter.After(parent.NotAfter) {
		template.NotAfter = parent.NotAfter
	}
	if !now.Before(parent.NotAfter) {
		return nil, fmt.Errorf("the CA ended on %s; a new one has to be made", parent.NotAfter.Format(time.DateOnly))
	}
	template.KeyUsage = x509.KeyUsageDigitalSignature
	template.BasicConstraintsValid = true
	return x509.CreateCertificate(rand.Reader, template, parent, publicKey, a.active.private)
}
