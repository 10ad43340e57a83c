package ca

import (
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/watchword-mesh/watchword/internal/identity"
)

// Instance is the instance that a leaf certificate is of. The caller has
// verified it, up to [Authority.Pool], as one of a TLS client. Another kind of
// certificate of ours, one of another trust domain, and one whose key isn't
// that of the instance that it names are refused.
func (a *Authority) Instance(leaf *x509.Certificate) (identity.ID, error) {
	if len(leaf.URIs) != 1 || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) != 0 {
		return identity.ID{}, errors.New("the certificate is not of an instance: it must have one URI as its name and no other")
	}
	id, err := identity.Parse(leaf.URIs[0].String())
	switch {
	case err != nil:
		return identity.ID{}, fmt.Errorf("the certificate is not of an instance: %w", err)
	case id.Instance == "":
		return identity.ID{}, fmt.Errorf("the certificate is of %s, a service; it must be of an instance", id)
	case id.TrustDomain != a.trustDomain:
		return identity.ID{}, fmt.Errorf("the certificate is of %s, which is not in the trust domain %s", id, a.trustDomain)
	case id.Instance != identity.InstanceOf(leaf.RawSubjectPublicKeyInfo):
		return identity.ID{}, fmt.Errorf("the certificate is of %s, but has not the key of that instance", id)
	}
	return id, nil
}
