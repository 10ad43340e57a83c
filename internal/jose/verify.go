package jose

import (
	"errors"
	"fmt"
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
	*joseHeader
	encodedHeader string
	claims        []byte
	object        Object // claims
	input         string // what is signed
	signature     []byte
}

// joseHeader is a header that was read. It is never changed, so that tokens share it.
type joseHeader struct {
	header   Header
	alg      *algorithm
	members  []member
	critical string // the member that makes the header critical, if any
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

// Object is Claims, read. It must not be changed.
func (u *Unverified) Object() Object { return u.object }

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
	u := &Unverified{encodedHeader: encodedHeader, input: token[:len(token)-len(encodedSig)-1]}
	var err error
	if u.joseHeader, err = readHeader(encodedHeader); err != nil {
		return nil, err
	}
	if u.claims, err = segment("claims", encodedClaims); err != nil {
		return nil, err
	}
	if u.object, err = readObject(string(u.claims)); err != nil {
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
			headers.keep(u.encodedHeader, u.joseHeader)
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
