package jose

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// Signer makes compact JWS (RFC 7515, section 7.1) with one key and one header. It is
// safe for concurrent use.
type Signer struct {
	key    hidden[crypto.Signer]
	alg    *algorithm
	kid    string
	prefix string // encoded header and its dot
}

// KeyID is the kid in the header of what it signs.
func (s *Signer) KeyID() string { return s.kid }

// Signer returns a Signer whose header is alg, kid and typ ("at+jwt"); empty: no typ.
func (p *PrivateKey) Signer(typ string) *Signer {
	header := map[string]string{"alg": p.Algorithm(), "kid": p.ID()}
	if typ != "" {
		header["typ"] = typ
	}
	d := p.data.get()
	return &Signer{key: hide(&d.signer), alg: d.alg, kid: p.ID(), prefix: encode([]byte(canonical(header))) + "."}
}

// Sign returns the token over claims, which the caller has marshalled to a JSON object.
func (s *Signer) Sign(claims []byte) (string, error) {
	size := len(s.prefix) + strictBase64.EncodedLen(len(claims))
	out := make([]byte, 0, size+1+strictBase64.EncodedLen(512))
	out = append(out, s.prefix...)
	out = strictBase64.AppendEncode(out, claims)
	sig, err := s.signature(out)
	if err != nil {
		return "", fmt.Errorf("signing a token with %s: %w", s.alg.name, err)
	}
	out = append(out, '.')
	return string(strictBase64.AppendEncode(out, sig)), nil
}

func (s *Signer) signature(input []byte) ([]byte, error) {
	var opts crypto.SignerOpts = s.alg.hash
	message := input
	if s.alg.family != familyEdDSA { // Ed25519 hashes by itself
		message = s.alg.digest(input)
	}
	if s.alg.family == familyPSS {
		opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: s.alg.hash}
	}
	sig, err := (*s.key.get()).Sign(rand.Reader, message, opts)
	if err != nil || s.alg.family != familyECDSA {
		return sig, err
	}
	return fixedSize(sig, s.alg.size)
}

// fixedSize turns the ASN.1 that every crypto.Signer returns into r||s (RFC 7518, section 3.4).
func fixedSize(der []byte, size int) ([]byte, error) {
	var sig struct{ R, S *big.Int }
	if rest, err := asn1.Unmarshal(der, &sig); err != nil || len(rest) > 0 {
		return nil, errors.New("the signer returned no ECDSA signature in ASN.1")
	}
	half := size / 2
	if sig.R.Sign() <= 0 || sig.S.Sign() <= 0 || sig.R.BitLen() > 8*half || sig.S.BitLen() > 8*half {
		return nil, errors.New("the signer returned an ECDSA signature of another curve")
	}
	out := make([]byte, size)
	sig.R.FillBytes(out[:half])
	sig.S.FillBytes(out[half:])
	return out, nil
}
