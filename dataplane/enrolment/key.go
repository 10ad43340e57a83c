package enrolment

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/watchword-mesh/watchword/internal/identity"
	"github.com/watchword-mesh/watchword/internal/jose"
)

// keyPair is the key of an instance, and what is made from it.
type keyPair struct {
	private  *ecdsa.PrivateKey
	pkcs8    []byte
	spki     []byte
	instance string
	// signer of client assertions.
	signer *jose.Signer
}

// String names the key without showing it.
func (k *keyPair) String() string { return "key of instance " + k.instance }

// GoString is String.
func (k *keyPair) GoString() string { return k.String() }

func newKeyPair() (*keyPair, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("encoding a key: %w", err)
	}
	return parseKeyPair(pkcs8)
}

func parseKeyPair(pkcs8 []byte) (*keyPair, error) {
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	private, ok := key.(*ecdsa.PrivateKey)
	if err != nil || !ok || private.Curve != elliptic.P256() {
		// The cause may quote the key.
		return nil, errors.New("the private key is not P-256 in PKCS #8")
	}
	spki, err := x509.MarshalPKIXPublicKey(private.Public())
	if err != nil {
		return nil, fmt.Errorf("encoding a public key: %w", err)
	}
	k := &keyPair{private: private, pkcs8: pkcs8, spki: spki, instance: identity.InstanceOf(spki)}
	signing, err := jose.ParsePrivateKey(pkcs8, "ES256")
	if err != nil {
		return nil, err
	}
	if signing, err = signing.WithID(k.instance); err != nil {
		return nil, err
	}
	k.signer = signing.Signer("JWT")
	return k, nil
}

// request is the PKCS #10 request for a certificate. It names nothing, since
// the control plane gives the name.
func (k *keyPair) request() ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, k.private)
	if err != nil {
		return nil, fmt.Errorf("making a certificate request: %w", err)
	}
	return der, nil
}
