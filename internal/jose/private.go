package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// PrivateKey signs with exactly one algorithm. It is immutable and safe for concurrent
// use. No way of printing or marshalling shows the key; only PKCS8 gives it away.
type PrivateKey struct {
	data hidden[privateData]
}

type privateData struct {
	signer crypto.Signer
	alg    *algorithm
	public Key
}

// GenerateKey makes a key for alg: any but HMAC; those of RSA are of 2048 bits.
func GenerateKey(alg string) (*PrivateKey, error) {
	signer, err := generate(alg)
	if err != nil {
		return nil, fmt.Errorf("generating a signing key: %w", err)
	}
	return newPrivateKey(signer, algorithmByName[alg])
}

func generate(alg string) (crypto.Signer, error) {
	switch alg {
	case "ES256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "EdDSA":
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		return rsa.GenerateKey(rand.Reader, minRSABits)
	}
	return nil, fmt.Errorf("alg %s cannot be generated; use ES256, ES384, ES512, EdDSA, or one of RS and PS with 256, 384 or 512", quote(alg))
}

// ParsePrivateKey reads a PKCS #8 key (DER, RFC 5208) for any asymmetric algorithm that
// Verify knows. It refuses a key that alg does not fit and one too weak to be published.
func ParsePrivateKey(pkcs8 []byte, alg string) (*PrivateKey, error) {
	a := algorithmByName[alg]
	if a == nil {
		return nil, fmt.Errorf("reading a signing key: %s", unknownAlgorithm(alg))
	}
	// x509 does not look behind the structure.
	if rest, err := asn1.Unmarshal(pkcs8, new(asn1.RawValue)); err != nil || len(rest) > 0 {
		return nil, errors.New("reading a signing key: not one PKCS #8 structure in DER; convert it with openssl pkcs8 -topk8 -nocrypt -outform DER")
	}
	key, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		// The cause may quote the input, so it is not passed on.
		return nil, errors.New("reading a signing key: not a PKCS #8 key that can be used; convert it with openssl pkcs8 -topk8 -nocrypt -outform DER")
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("reading a signing key: a key of type %T cannot sign; use RSA, EC or Ed25519", key)
	}
	return newPrivateKey(signer, a)
}

// NewPrivateKey uses a key that somebody else holds, such as a hardware module. It refuses
// what ParsePrivateKey would. For EC the signer returns ASN.1, as every crypto.Signer does.
func NewPrivateKey(signer crypto.Signer, alg string) (*PrivateKey, error) {
	a := algorithmByName[alg]
	if a == nil {
		return nil, fmt.Errorf("signing key: %s", unknownAlgorithm(alg))
	}
	if signer == nil {
		return nil, errors.New("signing key: there is none")
	}
	return newPrivateKey(signer, a)
}

func newPrivateKey(signer crypto.Signer, alg *algorithm) (*PrivateKey, error) {
	mat, err := newMaterial(signer.Public(), false)
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	if !alg.fits(mat) {
		return nil, fmt.Errorf("signing key: alg %s does not fit a key of type %s; use %s", alg.name, mat.typeName(), names(fitting(mat)))
	}
	public := newKey(mat.thumbprint(), alg, mat)
	return &PrivateKey{hide(&privateData{signer: signer, alg: alg, public: public})}, nil
}

// PKCS8 is the key in PKCS #8 DER, to be sealed and stored.
func (p *PrivateKey) PKCS8() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(p.data.get().signer)
	if err != nil {
		return nil, fmt.Errorf("encoding signing key %s: %w", p.ID(), err)
	}
	return der, nil
}

// WithID is the same key under another kid, for who is known by one.
func (p *PrivateKey) WithID(kid string) (*PrivateKey, error) {
	if wrong := checkKeyID(kid); wrong != "" {
		return nil, fmt.Errorf("signing key: %s", wrong)
	}
	d := *p.data.get()
	d.public = newKey(kid, d.alg, d.public.data.get().mat)
	return &PrivateKey{hide(&d)}, nil
}

// ID is the kid: the RFC 7638 SHA-256 thumbprint in base64url, unless WithID chose it.
func (p *PrivateKey) ID() string { return p.data.get().public.ID() }

// Algorithm is the one JWS algorithm the key signs with.
func (p *PrivateKey) Algorithm() string { return p.data.get().alg.name }

// Public is the verification key, with ID as its kid.
func (p *PrivateKey) Public() Key { return p.data.get().public }

// String names the key without showing it.
func (p PrivateKey) String() string {
	if p.data.get() == nil {
		return "jose.PrivateKey(none)"
	}
	return fmt.Sprintf("jose.PrivateKey(kid %q, %s)", p.ID(), p.Algorithm())
}

// GoString is String.
func (p PrivateKey) GoString() string { return p.String() }

// Format prints String for every verb.
func (p PrivateKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, p.String()) }

// MarshalJSON gives String: a key is stored by PKCS8 alone.
func (p PrivateKey) MarshalJSON() ([]byte, error) { return json.Marshal(p.String()) }
