package jose

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"sync"
)

// Key is one verification key for exactly one algorithm. It is immutable and safe for
// concurrent use. The zero Key has no algorithm and verifies nothing.
type Key struct {
	data hidden[keyData]
}

type keyData struct {
	id   string
	alg  *algorithm
	mat  material
	json string
	// macs are hashes that hold the secret of an oct key.
	macs sync.Pool
}

func newKey(id string, alg *algorithm, mat material) Key {
	members := map[string]string{"alg": alg.name, "use": "sig"}
	if id != "" {
		members["kid"] = id
	}
	for name, v := range mat.members {
		members[name] = v
	}
	return Key{hide(&keyData{id: id, alg: alg, mat: mat, json: canonical(members)})}
}

// ID is the kid, empty if the key has none.
func (k Key) ID() string {
	if d := k.data.get(); d != nil {
		return d.id
	}
	return ""
}

// Algorithm is the one JWS algorithm the key verifies ("ES256"); empty only for the zero Key.
func (k Key) Algorithm() string {
	if d := k.data.get(); d != nil {
		return d.alg.name
	}
	return ""
}

// Symmetric tells whether the key is a shared secret (HS256, HS384, HS512), so that who
// verifies could also sign, and JWK must be kept secret.
func (k Key) Symmetric() bool { d := k.data.get(); return d != nil && d.mat.kty == ktyOct }

// JWK is the key as canonical JSON (RFC 7517): members sorted, no white space, only kty
// with its public members (k for oct), alg, kid if any, and use. It is secret if Symmetric.
func (k Key) JWK() string {
	if d := k.data.get(); d != nil {
		return d.json
	}
	return ""
}

// Thumbprint is the RFC 7638 SHA-256 thumbprint in base64url, equal for equal key
// material whatever kid and alg say. Of a Symmetric key it is a hash of the secret: keep it as secret.
func (k Key) Thumbprint() string {
	if d := k.data.get(); d != nil {
		return d.mat.thumbprint()
	}
	return ""
}

// Equal tells whether both are the same material with the same kid and algorithm.
func (k Key) Equal(other Key) bool {
	return k.data.p == other.data.p || hmac.Equal([]byte(k.JWK()), []byte(other.JWK()))
}

// String names the key without showing it.
func (k Key) String() string { return fmt.Sprintf("jose.Key(kid %q, %s)", k.ID(), k.Algorithm()) }

// Format prints String for every verb, so that no format shows a secret.
func (k Key) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) }

// material is a checked key: its type, the Go key, and its JWK members.
type material struct {
	kty, crv string
	// *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey or []byte (oct)
	raw any
	// members that define the key (RFC 7638, section 3.2), in their one canonical encoding
	members map[string]string
}

func (m material) thumbprint() string {
	sum := sha256.Sum256([]byte(canonical(m.members)))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// canonical is JSON with sorted members and without white space.
func canonical(members map[string]string) string {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	// Strings in a map cannot fail to encode.
	_ = enc.Encode(members)
	return string(bytes.TrimRight(out.Bytes(), "\n"))
}

// The smallest and largest RSA modulus, in bits: RFC 7518, section 3.3, and what
// BoringSSL, and so Envoy, still computes with.
const (
	minRSABits = 2048
	// what Go still verifies with
	minWeakRSABits = 1024
	maxRSABits     = 8192
)

const largeExponent = "RSA exponent e is 2^31 or more; use 65537 (AQAB)"

// newMaterial checks what every source of keys must: strength and, for points, the curve.
func newMaterial(raw any, weak bool) (material, error) {
	switch k := raw.(type) {
	case *rsa.PublicKey:
		return rsaMaterial(k, weak)
	case *ecdsa.PublicKey:
		return ecMaterial(k)
	case ed25519.PublicKey:
		return edMaterial(k)
	case []byte:
		return material{kty: ktyOct, raw: k, members: map[string]string{"kty": ktyOct, "k": encode(k)}}, nil
	}
	return material{}, fmt.Errorf("a key of type %T cannot sign tokens; use RSA, EC (P-256, P-384, P-521) or Ed25519", raw)
}

func rsaMaterial(k *rsa.PublicKey, weak bool) (material, error) {
	least := minRSABits
	if weak {
		least = minWeakRSABits
	}
	if bits := k.N.BitLen(); bits < least || bits > maxRSABits {
		return material{}, fmt.Errorf("RSA key of %d bits; use %d to %d", bits, least, maxRSABits)
	}
	if k.N.Bit(0) == 0 {
		return material{}, errors.New("RSA modulus n is even, so it is not a product of two primes; generate a new key")
	}
	if k.E < 3 || k.E%2 == 0 {
		return material{}, fmt.Errorf("RSA exponent e is %d; it must be odd and at least 3, usually 65537 (AQAB)", k.E)
	}
	// Go and Envoy compute with no larger e; PEM may hold one.
	if k.E > math.MaxInt32 {
		return material{}, errors.New(largeExponent)
	}
	return material{kty: ktyRSA, raw: k, members: map[string]string{
		"kty": ktyRSA, "n": encode(k.N.Bytes()), "e": encode(big.NewInt(int64(k.E)).Bytes()),
	}}, nil
}

func ecMaterial(k *ecdsa.PublicKey) (material, error) {
	crv := k.Curve.Params().Name
	if coordinateSize[crv] == 0 {
		return material{}, fmt.Errorf("curve %s is not supported; use P-256, P-384 or P-521", crv)
	}
	// jwx reads any two numbers as a point; ECDH refuses what is not on the curve.
	if _, err := k.ECDH(); err != nil {
		return material{}, fmt.Errorf("x and y are not a point on %s", crv)
	}
	point, err := k.Bytes() // 4, x, y
	if err != nil {
		return material{}, fmt.Errorf("x and y are not a point on %s", crv)
	}
	x, y := point[1:1+coordinateSize[crv]], point[1+coordinateSize[crv]:]
	return material{kty: ktyEC, crv: crv, raw: k, members: map[string]string{
		"kty": ktyEC, "crv": crv, "x": encode(x), "y": encode(y),
	}}, nil
}

func edMaterial(k ed25519.PublicKey) (material, error) {
	if err := checkEd25519(k); err != nil {
		return material{}, err
	}
	return material{kty: ktyOKP, crv: "Ed25519", raw: k, members: map[string]string{
		"kty": ktyOKP, "crv": "Ed25519", "x": encode(k),
	}}, nil
}

// coordinateSize in bytes: RFC 7518, section 6.2.1.2; Ed25519: RFC 8037.
var coordinateSize = map[string]int{"P-256": 32, "P-384": 48, "P-521": 66, "Ed25519": 32}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }
