package enrolment

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/watchword-mesh/watchword/internal/identity"
	"github.com/watchword-mesh/watchword/internal/jointoken"
)

// trust is what the control plane is known by.
type trust struct {
	// roots are its CAs; if there are none, pin is that of one.
	roots []*x509.Certificate
	pin   string
	// trustDomain, if it is known already.
	trustDomain string
}

// server verifies the certificates that a server has shown, and gives its
// trust domain. A certificate of a service is no certificate of the control
// plane, whatever signed it: its name decides.
func (t trust) server(shown []*x509.Certificate, now time.Time) (trustDomain string, err error) {
	if len(shown) == 0 {
		return "", errors.New("it has shown no certificate")
	}
	roots := t.roots
	if len(roots) == 0 {
		if roots, err = pinned(shown, t.pin); err != nil {
			return "", err
		}
	}
	_, err = shown[0].Verify(x509.VerifyOptions{
		Roots: pool(roots), Intermediates: pool(shown[1:]), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return "", err
	}
	return t.named(shown[0])
}

// named gives the trust domain whose control plane a certificate names.
func (t trust) named(leaf *x509.Certificate) (string, error) {
	if len(leaf.URIs) != 1 {
		return "", fmt.Errorf("its certificate has %d URIs as names, not the one of the control plane", len(leaf.URIs))
	}
	name := leaf.URIs[0].String()
	trustDomain := leaf.URIs[0].Host
	if t.trustDomain != "" {
		trustDomain = t.trustDomain
	}
	if trustDomain == "" || name != identity.ControlPlane(trustDomain) {
		return "", fmt.Errorf("its certificate is of %s, not of %s", name, identity.ControlPlane(trustDomain))
	}
	return trustDomain, nil
}

// pinned finds the CA with this pin among the certificates that were shown.
// The pin covers its key; its own signature covers the rest.
func pinned(shown []*x509.Certificate, pin string) ([]*x509.Certificate, error) {
	for _, c := range shown {
		if pin != "" && jointoken.PinOf(c) == pin && c.CheckSignatureFrom(c) == nil {
			return []*x509.Certificate{c}, nil
		}
	}
	return nil, errors.New("it has not shown the CA that the pin is of: this is another mesh, or somebody in between, or the CA was replaced since the pin was made")
}

func pool(certificates []*x509.Certificate) *x509.CertPool {
	p := x509.NewCertPool()
	for _, c := range certificates {
		p.AddCert(c)
	}
	return p
}

// clientTLS is a connection to a server that check takes for who it has to be. crypto/tls would
// compare host names, which ours don't go by; so it verifies nothing itself,
// and VerifyConnection does, which also sees connections that are resumed.
func clientTLS(who string, check func([]*x509.Certificate) error) *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			if err := check(state.PeerCertificates); err != nil {
				return fmt.Errorf("the server is not %s: %w", who, err)
			}
			return nil
		},
	}
}
