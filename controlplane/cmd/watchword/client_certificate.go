package main

import (
	"crypto/tls"
	"sync/atomic"
)

// clientCertificate is shown to a control plane that asks for one of its CA, as
// crypto/tls does it (RFC 8446 section 4.2.4), and knows whether it was asked for.
type clientCertificate struct {
	certificate tls.Certificate
	asked       atomic.Bool
}

func (c *clientCertificate) get(info *tls.CertificateRequestInfo) (*tls.Certificate, error) {
	if info.SupportsCertificate(&c.certificate) != nil {
		return new(tls.Certificate), nil // none
	}
	c.asked.Store(true)
	return &c.certificate, nil
}

// kept says whether there is a certificate that nobody asked for.
func (c *clientCertificate) kept() bool { return c != nil && !c.asked.Load() }
