// Package ca is the small certificate authority of a mesh. It signs two kinds
// of certificates and no others: those of enrolled instances, which name the
// instance, and those of the replicas of the control plane (servers).
//
// A certificate of an instance lives for an hour and proves one thing: that who
// shows it has the key that was enrolled. It proves that to the control plane, as a
// client, and to callers of the service, as a server. The name of an instance is
// made from that key, so a certificate can't name an instance with another.
//
// Both kinds are good for a TLS server, so the name alone tells them apart. One of
// an instance has a SPIFFE ID and nothing that a client could take for the host of
// the control plane; and its ID can't be that of the control plane, since no service
// has such a name.
//
// A mesh may have several authorities, so that one can be replaced: all are
// trusted, the newest signs. What is stored is a [Record], what signs and is
// trusted is an [Authority]. The package does no I/O and has no clock.
package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"regexp"
	"time"

	"github.com/watchword-mesh/watchword/internal/identity"
)

// lifetime of an authority. It is pinned in join tokens and in the files of
// data planes, so replacing one is work for people.
const lifetimeYears = 10

// backdated is how long before now certificates begin to be valid: the clock
// of who reads one may be behind that of who signed it.
const backdated = time.Minute

// String names the CA without showing its key.
func (r Record) String() string { return fmt.Sprintf("CA %s (%s)", r.ID, r.State) }

// GoString is String, so that no way of printing shows the private key.
func (r Record) GoString() string { return r.String() }

// First makes the first CA of a mesh: a new key and its self-signed
// certificate, active at once.
func First(trustDomain string, now time.Time) (Record, error) {
	if err := checkTrustDomain(trustDomain); err != nil {
		return Record{}, err
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Record{}, fmt.Errorf("generating the key of a CA: %w", err)
	}
	certificate, err := selfSigned(trustDomain, private, now)
	if err != nil {
		return Record{}, fmt.Errorf("making the certificate of a CA: %w", err)
	}
	// SPIFFE allows names, such as a..b, that no certificate can have.
	if _, err := x509.ParseCertificate(certificate); err != nil {
		return Record{}, fmt.Errorf("no certificate can be of the trust domain %q: %w", trustDomain, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return Record{}, fmt.Errorf("encoding the key of a CA: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return Record{}, fmt.Errorf("encoding the public key of a CA: %w", err)
	}
	return Record{ID: identity.InstanceOf(spki), State: Active, Created: now.UTC(), Certificate: certificate, PrivatePKCS8: pkcs8}, nil
}

// selfSigned makes the certificate of an authority. It names its trust domain
// by a SPIFFE ID without path (X509-SVID, section 3.1); MaxPathLen 0 keeps
// anybody from being an authority below it (RFC 5280 section 4.2.1.9).
//
// A name constraint (section 4.2.1.10) keeps it to its trust domain, also for
// who trusts it and doesn't look at names as we do. Other names than URIs are
// free: those of listeners are not ours to foresee.
func selfSigned(trustDomain string, private *ecdsa.PrivateKey, now time.Time) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "Watchword CA " + trustDomain},
		NotBefore:             now.Add(-backdated),
		NotAfter:              now.AddDate(lifetimeYears, 0, 0),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
		URIs:                  []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
	}
	if isHostName(trustDomain) {
		template.PermittedURIDomains, template.PermittedDNSDomainsCritical = []string{trustDomain}, true
	}
	return x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
}

var hostName = regexp.MustCompile(`^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*$`)

// isHostName tells whether a trust domain is one that verifiers can compare with
// a constraint. SPIFFE allows others, such as an address or my_mesh.
func isHostName(trustDomain string) bool {
	_, err := netip.ParseAddr(trustDomain)
	return err != nil && hostName.MatchString(trustDomain)
}

// newSerial is 128 random bits: never twice, and nothing to guess.
func newSerial() (*big.Int, error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return nil, fmt.Errorf("choosing a serial number: %w", err)
	}
	return new(big.Int).SetBytes(b), nil
}

// checkTrustDomain refuses what can't be in a SPIFFE ID.
func checkTrustDomain(trustDomain string) error {
	id := identity.ID{TrustDomain: trustDomain, Service: "a"}
	if got, err := identity.Parse(id.String()); err != nil || got != id {
		return fmt.Errorf("%q can't be a trust domain: it must have lower-case letters, digits, dots, dashes and underscores alone, up to 255 of them", trustDomain)
	}
	return nil
}
