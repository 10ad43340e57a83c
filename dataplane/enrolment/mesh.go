package enrolment

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/watchword-mesh/watchword/internal/identity"
)

// ServerTLS is for data planes that take the requests of others by TLS of the mesh:
// TLS 1.3 with the certificate of the moment. Callers need no certificate.
func (i *Identity) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return i.certificate(), nil
		},
	}
}

// CalleeTLS is for connections to the data planes of a service of this mesh, given
// by its SPIFFE ID: any of its instances will do, and nobody else, whatever the host
// is called.
func (i *Identity) CalleeTLS(spiffeID string) *tls.Config {
	config := clientTLS("the service that is called", func(shown []*x509.Certificate) error {
		return ofService(shown, i.current.Load().authorities, spiffeID, i.config.Now())
	})
	config.NextProtos = []string{"h2", "http/1.1"}
	return config
}

// ofService verifies the certificates that a data plane has shown.
func ofService(shown, roots []*x509.Certificate, spiffeID string, now time.Time) error {
	if len(shown) == 0 {
		return errors.New("it has shown no certificate")
	}
	leaf := shown[0]
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: pool(roots), Intermediates: pool(shown[1:]), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return err
	}
	if len(leaf.URIs) != 1 {
		return fmt.Errorf("its certificate has %d URIs as names, not the one of an instance", len(leaf.URIs))
	}
	id, err := identity.Parse(leaf.URIs[0].String())
	if err != nil {
		return fmt.Errorf("its certificate: %w", err)
	}
	service := identity.ID{TrustDomain: id.TrustDomain, Service: id.Service}
	if id.Instance == "" || service.String() != spiffeID {
		return fmt.Errorf("its certificate is of %s, not of an instance of %s", id, spiffeID)
	}
	return nil
}
