package jose

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"errors"
	"fmt"
	"math/big"
	"strings"
)

// What callers decide on; test with errors.Is. The text around them says more, and never
// shows the token.
var (
	// ErrMalformed: not a token as this package reads them, or of a type not accepted.
	ErrMalformed = errors.New("token is malformed")
	// ErrSignature: no candidate key verifies the signature.
	ErrSignature = errors.New("signature is invalid")
	// ErrKeyUnknown: no key has the token's kid.
	ErrKeyUnknown = errors.New("key is unknown")
	// ErrAlgorithm: alg is not known, or is not that of a key the token may use.
	ErrAlgorithm = errors.New("algorithm is not allowed")
	// ErrCritical is also ErrMalformed: the signature is right, and the header has an
	// extension that changes what it means.
	ErrCritical = errors.New("token has a critical extension")
)

// criticalError says which member of the header is refused.
type criticalError struct{ member string }

func (e criticalError) Error() string {
	return fmt.Sprintf("%v: header: %s is not accepted; sign without extensions", ErrMalformed, e.member)
}

func (criticalError) Is(target error) bool { return target == ErrMalformed || target == ErrCritical }

// The largest token as sent and its largest decoded header, in bytes.
const (
	maxTokenBytes  = 16 << 10
	maxHeaderBytes = 4 << 10
)

// Header is what this package reads of a JOSE header. jwk, jku, x5u and x5c are never used.
type Header struct {
	KeyID     string // kid; empty if the token has none
	Algorithm string
	Type      string // typ as sent
	Critical  bool   // it has crit or b64, with which Verify refuses it
}

// Token is a token whose signature has been verified. Nothing is known about its claims
// but that they are one JSON object without duplicate members.
type Token struct {
	Header Header
	Claims []byte // JSON as signed
	Key    Key    // the key that verified it
}

// VerifyOptions narrow what Verify accepts.
type VerifyOptions struct {
	// Types are the accepted typ, compared as RFC 7515, section 4.1.9, says: without case
	// and without "application/". "" accepts a token without typ. No entries: any typ.
	Types []string
}

// Verify reads a compact JWS and checks its signature with one of keys. Claims such as
// exp are not judged.
//
// Candidates are chosen as Envoy's jwt_authn does: a token with a kid may use keys with
// that kid and keys without one, a token without kid may use all; of these only keys of
// the token's alg are tried. An empty kid is no kid. A kid-less token can cost a signature
// check per key of its alg.
func Verify(token string, keys []Key, o VerifyOptions) (Token, error) {
	u, err := ParseUnverified(token)
	if err != nil {
		return Token{}, err
	}
	return u.Verify(keys, o)
}

// Unverified is a token that is well formed and proves nothing. It serves to choose whose
// keys to verify with, and to try several without reading the token again. It may have a
// critical extension, with which Verify refuses it.
type Unverified struct {
	header    Header
	alg       *algorithm
	members   []member // of the header
	critical  string   // the member that makes the header critical, if any
	claims    []byte
	input     string // what is signed
	signature []byte
}

// Header is what the token claims to be signed with.
func (u *Unverified) Header() Header { return u.header }

// HeaderText is a member of the header that is a string; ok is false if it is absent or
// anything else.
func (u *Unverified) HeaderText(name string) (s string, ok bool) {
	for _, m := range u.members {
		if m.name == name {
			return text(m.value)
		}
	}
	return "", false
}

// Claims is the JSON that anybody may have written.
func (u *Unverified) Claims() []byte { return u.claims }

// ParseUnverified reads a compact JWS. Errors wrap ErrMalformed, or ErrAlgorithm where the
// header could be read and alg is none that is verified.
func ParseUnverified(token string) (*Unverified, error) {
	u, err := parseToken(token)
	switch {
	case errors.Is(err, ErrAlgorithm):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	return u, nil
}

func parseToken(token string) (*Unverified, error) {
	if len(token) > maxTokenBytes {
		return nil, fmt.Errorf("%d bytes; at most %d are read", len(token), maxTokenBytes)
	}
	encodedHeader, rest, _ := strings.Cut(token, ".")
	encodedClaims, encodedSig, ok := strings.Cut(rest, ".")
	if !ok || strings.Contains(encodedSig, ".") {
		return nil, errors.New("not three segments joined by dots (compact JWS)")
	}
	u := &Unverified{input: token[:len(token)-len(encodedSig)-1]}
	header, err := segment("header", encodedHeader)
	if err != nil {
		return nil, err
	}
	if err := u.readHeader(header); errors.Is(err, ErrAlgorithm) {
		return nil, err
	} else if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	if u.claims, err = segment("claims", encodedClaims); err != nil {
		return nil, err
	}
	if _, err = object(u.claims); err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	u.signature, err = segment("signature", encodedSig)
	return u, err
}

func segment(name, s string) ([]byte, error) {
	b, err := decodeBase64(s)
	if err != nil {
		return nil, fmt.Errorf("%s is not canonical base64url without padding", name)
	}
	return b, nil
}

// readHeader judges alg first: a token that nobody here could verify is refused for that.
func (u *Unverified) readHeader(b []byte) (err error) {
	if len(b) > maxHeaderBytes {
		return fmt.Errorf("%d bytes; at most %d are read", len(b), maxHeaderBytes)
	}
	if u.members, err = object(b); err != nil {
		return err
	}
	named, err := u.headerString("alg", &u.header.Algorithm)
	if err != nil {
		return err
	}
	if !named {
		return errors.New("no alg")
	}
	if u.alg = algorithmByName[u.header.Algorithm]; u.alg == nil {
		return fmt.Errorf("%w: %s", ErrAlgorithm, unknownAlgorithm(u.header.Algorithm))
	}
	if _, err := u.headerString("kid", &u.header.KeyID); err != nil {
		return err
	}
	if _, err := u.headerString("typ", &u.header.Type); err != nil {
		return err
	}
	for _, m := range u.members {
		// A critical extension must be understood or refused (RFC 7515, section
		// 4.1.11), and we understand none; b64 (RFC 7797) is nothing without crit.
		if m.name == "crit" || m.name == "b64" {
			u.critical, u.header.Critical = m.name, true
		}
	}
	return nil
}

// headerString reads a member that must be a string if it is there.
func (u *Unverified) headerString(name string, into *string) (present bool, err error) {
	for _, m := range u.members {
		if m.name != name {
			continue
		}
		var ok bool
		if *into, ok = text(m.value); !ok {
			return true, fmt.Errorf("%s is not a string", name)
		}
		return true, nil
	}
	return false, nil
}

// Verify checks header and signature as the function Verify does. The error is
// ErrCritical only if a key verifies the signature.
func (u *Unverified) Verify(keys []Key, o VerifyOptions) (Token, error) {
	if !o.accepts(u.header.Type) {
		return Token{}, fmt.Errorf("%w: typ %s is not accepted; accepted: %q", ErrMalformed, quote(u.header.Type), o.Types)
	}
	candidates, tried := 0, 0
	for _, k := range keys {
		d := k.data.get()
		if d == nil || !u.mayUse(d) {
			continue
		}
		candidates++
		if d.alg != u.alg {
			continue
		}
		tried++
		if d.verify(u.input, u.signature) {
			if u.critical != "" {
				return Token{}, criticalError{u.critical}
			}
			return Token{Header: u.header, Claims: u.claims, Key: k}, nil
		}
	}
	return Token{}, u.refusal(candidates, tried)
}

func (u *Unverified) mayUse(d *keyData) bool {
	return u.header.KeyID == "" || d.id == "" || d.id == u.header.KeyID
}

func (u *Unverified) refusal(candidates, tried int) error {
	switch {
	case candidates == 0 && u.header.KeyID == "":
		return fmt.Errorf("%w: there are no keys", ErrKeyUnknown)
	case candidates == 0:
		return fmt.Errorf("%w: no key has kid %s", ErrKeyUnknown, quote(u.header.KeyID))
	case tried == 0:
		return fmt.Errorf("%w: no key that the token may use is for alg %s", ErrAlgorithm, u.header.Algorithm)
	}
	return fmt.Errorf("%w: none of %d keys verifies it (%s)", ErrSignature, tried, u.header.Algorithm)
}

func (o VerifyOptions) accepts(typ string) bool {
	if len(o.Types) == 0 {
		return true
	}
	for _, t := range o.Types {
		if strings.EqualFold(mediaType(t), mediaType(typ)) {
			return true
		}
	}
	return false
}

func mediaType(typ string) string {
	const prefix = "application/"
	if len(typ) > len(prefix) && strings.EqualFold(typ[:len(prefix)], prefix) {
		return typ[len(prefix):]
	}
	return typ
}

func (a *algorithm) digest(input []byte) []byte {
	h := a.hash.New()
	h.Write(input)
	return h.Sum(nil)
}

func (d *keyData) verify(signed string, sig []byte) bool {
	if d.alg.size != 0 && len(sig) != d.alg.size {
		return false
	}
	input := []byte(signed)
	switch d.alg.family {
	case familyHMAC:
		h := hmac.New(d.alg.hash.New, d.mat.raw.([]byte))
		h.Write(input)
		return hmac.Equal(h.Sum(nil), sig)
	case familyPKCS1:
		return rsa.VerifyPKCS1v15(d.mat.raw.(*rsa.PublicKey), d.alg.hash, d.alg.digest(input), sig) == nil
	case familyPSS:
		// RFC 7518, section 3.5: the salt is as long as the hash.
		opts := &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}
		return rsa.VerifyPSS(d.mat.raw.(*rsa.PublicKey), d.alg.hash, d.alg.digest(input), sig, opts) == nil
	case familyECDSA:
		half := len(sig) / 2
		r, s := new(big.Int).SetBytes(sig[:half]), new(big.Int).SetBytes(sig[half:])
		return ecdsa.Verify(d.mat.raw.(*ecdsa.PublicKey), d.alg.digest(input), r, s)
	case familyEdDSA:
		return ed25519.Verify(d.mat.raw.(ed25519.PublicKey), input, sig)
	}
	return false
}
