package ca

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/watchword-mesh/watchword/internal/identity"
	"github.com/watchword-mesh/watchword/internal/jose"
)

// maxRequest is the largest request, in bytes. One with a P-256 key and a name
// has 300.
const maxRequest = 4 << 10

// ParseRequest reads a PKCS #10 request (RFC 2986, DER) of a stranger: the key
// in it, also as DER of SubjectPublicKeyInfo, which [identity.InstanceOf] takes.
// The signature shows that the sender has the key. Nothing else in it counts:
// names are ours to give. Keys are P-256 or Ed25519.
func ParseRequest(der []byte) (publicKey crypto.PublicKey, spki []byte, err error) {
	if len(der) > maxRequest {
		return nil, nil, fmt.Errorf("the certificate request has %d bytes; at most %d are read", len(der), maxRequest)
	}
	req, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, nil, fmt.Errorf("the certificate request is not PKCS #10: %w", err)
	}
	switch key := req.PublicKey.(type) {
	case *ecdsa.PublicKey:
		if key.Curve != elliptic.P256() {
			return nil, nil, fmt.Errorf("the certificate request is for a key on the curve %s; use P-256", key.Curve.Params().Name)
		}
	case ed25519.PublicKey:
	default:
		return nil, nil, errors.New("the certificate request is for a key of another kind; use P-256 or Ed25519")
	}
	// x509 takes SHA-1 here, for old tools; none of ours has to.
	if req.SignatureAlgorithm == x509.ECDSAWithSHA1 {
		return nil, nil, errors.New("the certificate request is signed with SHA-1; use SHA-256")
	}
	if err := req.CheckSignature(); err != nil {
		return nil, nil, fmt.Errorf("the certificate request is not signed with its own key: %w", err)
	}
	spki, err = x509.MarshalPKIXPublicKey(req.PublicKey)
	// An instance is named by these bytes, so there must be one spelling of them.
	if err != nil || !bytes.Equal(spki, req.RawSubjectPublicKeyInfo) {
		return nil, nil, errors.New("the certificate request has its key in another encoding than DER of SubjectPublicKeyInfo")
	}
	if _, err := InstanceKey(spki); err != nil {
		return nil, nil, fmt.Errorf("the certificate request: %w", err)
	}
	return req.PublicKey, spki, nil
}

// InstanceKey is the key of an instance (DER of SubjectPublicKeyInfo), as its
// client assertions are verified with: ES256 or EdDSA, the instance as `kid`.
func InstanceKey(spki []byte) (jose.Key, error) {
	text := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	keys, faults := jose.ParsePEM(string(text), identity.InstanceOf(spki), jose.SetOptions{Algorithms: []string{"ES256", "EdDSA"}})
	if len(faults) > 0 {
		return jose.Key{}, fmt.Errorf("the key of an instance: %w", faults[0])
	}
	if len(keys) != 1 {
		return jose.Key{}, errors.New("the key of an instance must be P-256 or Ed25519")
	}
	return keys[0], nil
}
