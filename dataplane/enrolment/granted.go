package enrolment

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/watchword-mesh/watchword/internal/identity"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

// granted is a certificate with all that came with it. It doesn't change.
type granted struct {
	service, trustDomain, issuer string
	// chain has the instance's own certificate first.
	chain       [][]byte
	leaf        *x509.Certificate
	authorities []*x509.Certificate
	renew       time.Time
}

// instance is the name of the instance that it was given to.
func (g *granted) instance() string { return identity.InstanceOf(g.leaf.RawSubjectPublicKeyInfo) }

// newGranted reads what the control plane gave for a key. A fault in it is found
// here, where it can be named, and not when the next connection fails.
func newGranted(m *enrolmentv1.Identity, service string, key *keyPair) (*granted, error) {
	g := &granted{service: m.GetService(), trustDomain: m.GetTrustDomain(), issuer: m.GetIssuer(), chain: m.GetCertificates(), renew: m.GetRenew().AsTime()}
	if g.service != service || m.GetInstance() != key.instance {
		return nil, fmt.Errorf("the certificate is of instance %q of service %q; asked was for %q of %q", m.GetInstance(), g.service, key.instance, service)
	}
	if len(g.chain) == 0 || len(m.GetAuthorities()) == 0 {
		return nil, errors.New("there is no certificate, or none of the CA")
	}
	for _, der := range m.GetAuthorities() {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("the certificate of the CA: %w", err)
		}
		g.authorities = append(g.authorities, c)
	}
	var err error
	if g.leaf, err = x509.ParseCertificate(g.chain[0]); err != nil {
		return nil, fmt.Errorf("the certificate: %w", err)
	}
	return g, g.check(key)
}

func (g *granted) check(key *keyPair) error {
	want := identity.ID{TrustDomain: g.trustDomain, Service: g.service, Instance: key.instance}
	if _, err := identity.Parse(want.String()); err != nil {
		return fmt.Errorf("the certificate: %w", err)
	}
	if len(g.leaf.URIs) != 1 || g.leaf.URIs[0].String() != want.String() {
		return fmt.Errorf("the certificate is of %v, not of %s", g.leaf.URIs, want)
	}
	if !bytes.Equal(g.leaf.RawSubjectPublicKeyInfo, key.spki) {
		return errors.New("the certificate is for another key")
	}
	intermediates := x509.NewCertPool()
	for _, der := range g.chain[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			intermediates.AddCert(c)
		}
	}
	// At its own time: whether it is valid now is asked where it is used.
	_, err := g.leaf.Verify(x509.VerifyOptions{
		Roots: pool(g.authorities), Intermediates: intermediates, CurrentTime: g.leaf.NotAfter,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return fmt.Errorf("the certificate is not of the CA that came with it: %w", err)
	}
	// A time that makes no sense is replaced by the half of what there is.
	if g.renew.Before(g.leaf.NotBefore) || !g.renew.Before(g.leaf.NotAfter) {
		g.renew = g.leaf.NotBefore.Add(g.leaf.NotAfter.Sub(g.leaf.NotBefore) / 2)
	}
	return nil
}

// valid says whether the certificate can still be shown. A connection takes a
// moment to make.
func (g *granted) valid(now time.Time) bool {
	const moment = 5 * time.Second
	return now.Add(moment).Before(g.leaf.NotAfter)
}

// trust is what the control plane is known by from now on.
func (g *granted) trust() trust { return trust{roots: g.authorities, trustDomain: g.trustDomain} }
