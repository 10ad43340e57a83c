package enrolment

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"slices"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Identity is what a process is in the mesh: an instance of a service, with a
// key and its certificate of the moment. It is safe for concurrent use.
type Identity struct {
	config  Config
	key     *keyPair
	current atomic.Pointer[granted]
	changed chan struct{}
}

// String names the instance.
func (i *Identity) String() string { return i.Service() + "/" + i.Instance() }

// GoString is String.
func (i *Identity) GoString() string { return i.String() }

// Service that the process is an instance of.
func (i *Identity) Service() string { return i.config.Service }

// Instance is its name, made from the key.
func (i *Identity) Instance() string { return i.key.instance }

// Issuer is the `iss` of the built-in issuer, where its metadata are.
func (i *Identity) Issuer() string { return i.current.Load().issuer }

// TrustDomain is the SPIFFE trust domain of the mesh.
func (i *Identity) TrustDomain() string { return i.current.Load().trustDomain }

// Expires is when the certificate of now ends.
func (i *Identity) Expires() time.Time { return i.current.Load().leaf.NotAfter }

// Certificate gives the certificates (DER, the instance's own first) and the
// private key of now, for who terminates TLS itself.
func (i *Identity) Certificate() (chain [][]byte, key crypto.Signer) {
	return slices.Clone(i.current.Load().chain), i.key.private
}

// Authorities are the CAs that the control plane is known by now.
func (i *Identity) Authorities() []*x509.Certificate {
	return slices.Clone(i.current.Load().authorities)
}

// Changed has a value when Certificate or Authorities give something new since
// Enrol, or since the last one was taken. It is for one reader.
func (i *Identity) Changed() <-chan struct{} { return i.changed }

// Assertion makes a client assertion (RFC 7523 section 3), by which the issuer
// knows the process: the `client_assertion` of one request for a token. It is
// valid for a minute from now, and once.
func (i *Identity) Assertion(now time.Time) (string, error) {
	return i.key.assertion(i.config.Service, i.Issuer(), now)
}

// TLSConfig is for connections to the control plane, with the certificate and
// the CAs of the moment at which each is made.
func (i *Identity) TLSConfig() *tls.Config {
	config := clientTLS("the control plane", func(shown []*x509.Certificate) error {
		_, err := i.current.Load().trust().server(shown, i.config.Now())
		return err
	})
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return i.certificate(), nil
	}
	return config
}

// certificate is that of now, as crypto/tls wants it.
func (i *Identity) certificate() *tls.Certificate {
	g := i.current.Load()
	return &tls.Certificate{Certificate: g.chain, PrivateKey: i.key.private, Leaf: g.leaf}
}

// take makes g the certificate of now. That it can't be kept in the key file is
// no reason not to use it.
func (i *Identity) take(g *granted) {
	i.current.Store(g)
	if i.config.KeyFile == "" {
		return
	}
	if err := writeKeyFile(i.config.KeyFile, i.key, g); err != nil {
		i.log().Error("the certificate is not kept over a restart", "error", err)
	}
}

func (i *Identity) log() hclog.Logger { return i.config.Logger }
