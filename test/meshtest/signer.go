package meshtest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha512" // the hashes of the algorithms
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"math/big"
	"strings"
	"testing"
	"time"
)

// Signer is a key of an issuer that is not ours.
type Signer struct {
	// Alg is one of Algorithms.
	Alg string
	// KID of the key; empty: neither the key nor its tokens have one.
	KID string
	// Secret of an HS key.
	Secret []byte
	// Private is the key otherwise.
	Private crypto.Signer
}

// Algorithms are all that there are (RFC 7518 section 3.1, RFC 8037).
var Algorithms = []string{
	"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512",
}

var hashes = map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}

// hash of the algorithm; 0 for EdDSA, which hashes by itself.
func (s *Signer) hash() crypto.Hash { return hashes[strings.TrimLeft(s.Alg, "EHPRS")] }

// NewSigner makes a key.
func NewSigner(t testing.TB, alg string) *Signer {
	t.Helper()
	s := &Signer{Alg: alg, KID: rand.Text()}
	var err error
	switch alg {
	case "HS256", "HS384", "HS512":
		s.Secret = make([]byte, s.hash().Size())
		_, _ = rand.Read(s.Secret) // never fails
	case "ES256", "ES384", "ES512":
		curve := map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}[alg]
		s.Private, err = ecdsa.GenerateKey(curve, rand.Reader)
	case "EdDSA":
		_, s.Private, err = ed25519.GenerateKey(rand.Reader)
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		s.Private, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		t.Fatalf("there is no algorithm %q", alg)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Use is the same key, for another algorithm that fits it.
func (s *Signer) Use(alg string) *Signer {
	out := *s
	out.Alg = alg
	return &out
}

// JWK is the key as verifiers need it.
func (s *Signer) JWK() string {
	members := map[string]string{"alg": s.Alg}
	if s.KID != "" {
		members["kid"] = s.KID
	}
	text := base64.RawURLEncoding.EncodeToString
	switch k := s.Private.(type) {
	case nil:
		members["kty"], members["k"] = "oct", s.SecretText()
	case *rsa.PrivateKey:
		members["kty"], members["n"], members["e"] = "RSA", text(k.N.Bytes()), text(big.NewInt(int64(k.E)).Bytes())
	case *ecdsa.PrivateKey:
		point, _ := k.PublicKey.Bytes() // of a curve that is known
		half := (len(point) - 1) / 2
		members["kty"], members["crv"] = "EC", k.Params().Name
		members["x"], members["y"] = text(point[1:1+half]), text(point[1+half:])
	case ed25519.PrivateKey:
		members["kty"], members["crv"], members["x"] = "OKP", "Ed25519", text(k.Public().(ed25519.PublicKey))
	}
	return encode(members)
}

// SecretText is the secret as a JWK has it.
func (s *Signer) SecretText() string { return base64.RawURLEncoding.EncodeToString(s.Secret) }

// PEM is the public key of an asymmetric Signer (RFC 7468 section 13).
func (s *Signer) PEM(t testing.TB) string {
	t.Helper()
	public, err := x509.MarshalPKIXPublicKey(s.Private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
}

// Token signs the claims.
func (s *Signer) Token(t testing.TB, claims Claims) string {
	t.Helper()
	header := map[string]any{"alg": s.Alg, "typ": "JWT"}
	if s.KID != "" {
		header["kid"] = s.KID
	}
	return s.Sign(t, header, claims)
}

// Sign makes a token of any JOSE header, also one that says of the key what is
// not true.
func (s *Signer) Sign(t testing.TB, header map[string]any, claims Claims) string {
	t.Helper()
	b64 := base64.RawURLEncoding
	return s.Resign(t, b64.EncodeToString([]byte(encode(header)))+"."+b64.EncodeToString([]byte(encode(claims)))+".")
}

// Resign is the token with another signature, which must be of the algorithm
// that its header has.
func (s *Signer) Resign(t testing.TB, token string) string {
	t.Helper()
	input := token[:strings.LastIndex(token, ".")]
	signature, err := s.signature([]byte(input))
	if err != nil {
		t.Fatal(err)
	}
	return input + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func (s *Signer) signature(input []byte) ([]byte, error) {
	if s.Private == nil {
		mac := hmac.New(s.hash().New, s.Secret)
		mac.Write(input)
		return mac.Sum(nil), nil
	}
	var opts crypto.SignerOpts = s.hash()
	if s.hash() != 0 {
		h := s.hash().New()
		h.Write(input)
		input = h.Sum(nil)
	}
	if k, ok := s.Private.(*ecdsa.PrivateKey); ok {
		return signECDSA(k, input)
	}
	if strings.HasPrefix(s.Alg, "PS") {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: s.hash()}
	}
	return s.Private.Sign(rand.Reader, input, opts)
}

// signECDSA is r||s, each as long as the curve's order (RFC 7518 section 3.4).
func signECDSA(k *ecdsa.PrivateKey, digest []byte) ([]byte, error) {
	r, s, err := ecdsa.Sign(rand.Reader, k, digest)
	if err != nil {
		return nil, err
	}
	size := (k.Params().BitSize + 7) / 8
	out := make([]byte, 2*size)
	r.FillBytes(out[:size])
	s.FillBytes(out[size:])
	return out, nil
}

// SignHS256 makes a token with any bytes as secret, also those of a public key.
func SignHS256(secret []byte, kid string, claims Claims) string {
	header := encode(map[string]any{"alg": "HS256", "kid": kid, "typ": "JWT"})
	b64 := base64.RawURLEncoding
	input := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(encode(claims)))
	signature, _ := (&Signer{Alg: "HS256", Secret: secret}).signature([]byte(input)) // an HMAC never fails
	return input + "." + b64.EncodeToString(signature)
}

// JWKS is a JSON Web Key Set of the keys, on one line.
func JWKS(signers ...*Signer) string {
	var keys []string
	for _, s := range signers {
		keys = append(keys, s.JWK())
	}
	return `{"keys":[` + strings.Join(keys, ",") + `]}`
}

// Claims of a token.
type Claims map[string]any

// NewClaims are those of a token that is good for five minutes.
func NewClaims(iss, sub, aud string) Claims {
	now := time.Now()
	return Claims{"iss": iss, "sub": sub, "aud": aud, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix()}
}

// With is a copy with one claim changed, or removed if the value is nil.
func (c Claims) With(name string, value any) Claims {
	out := maps.Clone(c)
	if out[name] = value; value == nil {
		delete(out, name)
	}
	return out
}

func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // claims are literals of a test
	}
	return string(text)
}
