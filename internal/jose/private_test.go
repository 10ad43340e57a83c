package jose

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"io"
	"strings"
	"testing"
)

// A key under another kid signs with it, and the key that it is of stays as it was.
func TestWithID(t *testing.T) {
	key, err := GenerateKey("ES256")
	if err != nil {
		t.Fatal(err)
	}
	thumbprint := key.ID()
	named, err := key.WithID("instance")
	if err != nil {
		t.Fatalf("WithID: %v", err)
	}
	token, err := named.Signer("JWT").Sign([]byte(`{}`))
	if err != nil {
		t.Fatal(err)
	}
	got, err := Verify(token, []Key{named.Public()}, VerifyOptions{Types: []string{"JWT"}})
	if err != nil || got.Header.KeyID != "instance" || key.ID() != thumbprint || named.Public().Thumbprint() != thumbprint {
		t.Errorf("kid %q, %v; the key before is %q, want %q", got.Header.KeyID, err, key.ID(), thumbprint)
	}
	if _, err := key.WithID("a\nb"); err == nil {
		t.Error("WithID takes a control character")
	}
}

// remote is a key that shows its public half and signs, and nothing else.
type remote struct{ key crypto.Signer }

func (r remote) Public() crypto.PublicKey { return r.key.Public() }

func (r remote) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return r.key.Sign(random, digest, opts)
}

// A key that somebody else holds signs what its public half verifies.
func TestNewPrivateKeySigns(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, minRSABits)
	if err != nil {
		t.Fatal(err)
	}
	for alg, key := range map[string]crypto.Signer{"ES256": ec, "EdDSA": ed, "RS256": r, "PS512": r} {
		k, err := NewPrivateKey(remote{key}, alg)
		if err != nil {
			t.Errorf("NewPrivateKey(%s): %v", alg, err)
			continue
		}
		token, err := k.Signer("JWT").Sign([]byte(`{}`))
		if err != nil {
			t.Errorf("%s: Sign: %v", alg, err)
			continue
		}
		if _, err := Verify(token, []Key{k.Public()}, VerifyOptions{}); err != nil {
			t.Errorf("%s: Verify: %v", alg, err)
		}
	}
}

// What could not be verified is refused before it signs.
func TestNewPrivateKeyRefuses(t *testing.T) {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		key       crypto.Signer
		alg, want string
	}{
		{nil, "ES256", "there is none"},
		{ec, "RS256", "use ES256"},
		{ec, "HS256", "use ES256"},
		{ec, "none", "never accepted"},
		{ec, "ES999", "not known"},
	} {
		if _, err := NewPrivateKey(c.key, c.alg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("NewPrivateKey(%T, %s): %v; want an error with %q", c.key, c.alg, err, c.want)
		}
	}
}
