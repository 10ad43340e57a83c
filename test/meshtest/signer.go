package meshtest

import (
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/internal/jose"
)

// Signer is a key of an issuer that is not ours.
type Signer struct {
	// Alg is the algorithm: one that jose.GenerateKey knows, or HS256.
	Alg string
	// KID of the key.
	KID string
	// Secret of an HS256 key.
	Secret []byte

	private *jose.PrivateKey
	sign    *jose.Signer
}

// NewSigner makes a key.
func NewSigner(t testing.TB, alg string) *Signer {
	t.Helper()
	if alg == "HS256" {
		s := &Signer{Alg: alg, KID: rand.Text(), Secret: make([]byte, 32)}
		_, _ = rand.Read(s.Secret) // never fails
		return s
	}
	key, err := jose.GenerateKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	return &Signer{Alg: alg, KID: key.ID(), private: key, sign: key.Signer("JWT")}
}

// JWK is the key as verifiers need it.
func (s *Signer) JWK() string {
	if s.private != nil {
		return s.private.Public().JWK()
	}
	return encode(map[string]any{"kty": "oct", "alg": s.Alg, "kid": s.KID, "k": s.SecretText()})
}

// SecretText is the secret as a JWK has it.
func (s *Signer) SecretText() string { return base64.RawURLEncoding.EncodeToString(s.Secret) }

// PEM is the public key of an asymmetric Signer (RFC 7468 section 13).
func (s *Signer) PEM(t testing.TB) string {
	t.Helper()
	der, err := s.private.PKCS8()
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.(crypto.Signer).Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
}

// Token signs the claims.
func (s *Signer) Token(t testing.TB, claims Claims) string {
	t.Helper()
	if s.sign == nil {
		return SignHS256(s.Secret, s.KID, claims)
	}
	token, err := s.sign.Sign([]byte(encode(claims)))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// SignHS256 makes a token with any bytes as secret, also those of a public key.
func SignHS256(secret []byte, kid string, claims Claims) string {
	header := encode(map[string]any{"alg": "HS256", "kid": kid, "typ": "JWT"})
	b64 := base64.RawURLEncoding
	input := b64.EncodeToString([]byte(header)) + "." + b64.EncodeToString([]byte(encode(claims)))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(input))
	return input + "." + b64.EncodeToString(mac.Sum(nil))
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
