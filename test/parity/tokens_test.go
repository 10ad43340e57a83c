package parity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha512" // the hashes of the algorithms
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// signer makes tokens as strangers do, right or wrong.
type signer struct {
	alg, kid string
	secret   []byte
	private  crypto.Signer
	jwk      string
}

var b64 = base64.RawURLEncoding

func newSigner(alg, kid string) *signer {
	s := &signer{alg: alg, kid: kid}
	members := map[string]string{"alg": alg}
	if kid != "" {
		members["kid"] = kid
	}
	var err error
	switch alg {
	case "HS256", "HS384", "HS512":
		s.secret = make([]byte, 64)
		_, _ = rand.Read(s.secret)
		members["kty"], members["k"] = "oct", b64.EncodeToString(s.secret)
	case "EdDSA":
		_, s.private, err = generateEd25519()
		members["kty"], members["crv"] = "OKP", "Ed25519"
		members["x"] = b64.EncodeToString(s.private.Public().(ed25519.PublicKey))
	case "ES256", "ES384", "ES512":
		curve := map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()}[alg]
		var k *ecdsa.PrivateKey
		k, err = ecdsa.GenerateKey(curve, rand.Reader)
		s.private = k
		point, _ := k.PublicKey.Bytes()
		half := (len(point) - 1) / 2
		members["kty"], members["crv"] = "EC", curve.Params().Name
		members["x"], members["y"] = b64.EncodeToString(point[1:1+half]), b64.EncodeToString(point[1+half:])
	default:
		var k *rsa.PrivateKey
		k, err = rsa.GenerateKey(rand.Reader, 2048)
		s.private = k
		members["kty"], members["n"], members["e"] = "RSA", b64.EncodeToString(k.N.Bytes()), "AQAB"
	}
	if err != nil {
		panic(err)
	}
	text, _ := json.Marshal(members)
	s.jwk = string(text)
	return s
}

func generateEd25519() (ed25519.PublicKey, crypto.Signer, error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	return pub, priv, err
}

func (s *signer) key() *dataplanev1.Key {
	return &dataplanev1.Key{Kid: s.kid, Algorithm: s.alg, Jwk: s.jwk, Symmetric: s.secret != nil}
}

var hashes = map[string]crypto.Hash{
	"HS256": crypto.SHA256, "HS384": crypto.SHA384, "HS512": crypto.SHA512,
	"RS256": crypto.SHA256, "RS384": crypto.SHA384, "RS512": crypto.SHA512,
	"PS256": crypto.SHA256, "PS384": crypto.SHA384, "PS512": crypto.SHA512,
	"ES256": crypto.SHA256, "ES384": crypto.SHA384, "ES512": crypto.SHA512,
}

// token signs any header and any text as claims.
func (s *signer) token(header map[string]any, claims []byte) string {
	h, _ := json.Marshal(header)
	input := b64.EncodeToString(h) + "." + b64.EncodeToString(claims)
	return input + "." + b64.EncodeToString(s.signature([]byte(input)))
}

func (s *signer) signature(input []byte) []byte {
	hash := hashes[s.alg]
	if s.secret != nil {
		mac := hmac.New(hash.New, s.secret)
		mac.Write(input)
		return mac.Sum(nil)
	}
	message, opts := input, crypto.SignerOpts(crypto.Hash(0))
	if s.alg != "EdDSA" {
		h := hash.New()
		h.Write(input)
		message, opts = h.Sum(nil), hash
	}
	switch k := s.private.(type) {
	case *ecdsa.PrivateKey:
		r, v, err := ecdsa.Sign(rand.Reader, k, message)
		if err != nil {
			panic(err)
		}
		return fixed(k, r, v)
	case *rsa.PrivateKey:
		if s.alg[0] == 'P' {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: hash}
		}
	}
	sig, err := s.private.Sign(rand.Reader, message, opts)
	if err != nil {
		panic(fmt.Sprint(s.alg, err))
	}
	return sig
}

func fixed(k *ecdsa.PrivateKey, r, v *big.Int) []byte {
	size := (k.Params().BitSize + 7) / 8
	out := make([]byte, 2*size)
	r.FillBytes(out[:size])
	v.FillBytes(out[size:])
	return out
}
