// Package jointoken is the text that lets an instance of a service enrol:
//
//	wwjt_ID.SECRET.PIN
//
// ID names the token in lists and logs. SECRET is what proves that the holder
// was given it. PIN is the key of the CA that the control plane must show, so
// that an instance that has nothing but this text knows whom it gives it to.
package jointoken

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
)

// Prefix begins every join token, so that scanners for leaked secrets can find
// them in code and logs.
const Prefix = "wwjt_"

// Token is a join token. No way of printing or marshalling it shows its secret.
type Token struct {
	// ID is 13 letters and digits.
	ID string
	// Pin is what [PinOf] gives for the CA.
	Pin string
	// fmt shows what is in fields like this one as an address.
	secret func() string
}

// New makes a token for instances that shall trust the CA with this pin. Its
// secret has 256 random bits.
func New(pin string) Token {
	return made(rand.Text()[:idLength], rand.Text()+rand.Text(), pin)
}

func made(id, secret, pin string) Token {
	return Token{ID: id, Pin: pin, secret: func() string { return secret }}
}

const (
	idLength = 13
	// rand.Text gives 26 of these, 5 bits each.
	secretLength = 52
)

var (
	id     = regexp.MustCompile(fmt.Sprintf(`^[A-Z2-7]{%d}$`, idLength))
	secret = regexp.MustCompile(fmt.Sprintf(`^[A-Z2-7]{%d}$`, secretLength))
)

// Parse reads a token; white space around it, as files have it, doesn't count.
// Errors show nothing of the text.
func Parse(text string) (Token, error) {
	rest, ok := strings.CutPrefix(strings.TrimSpace(text), Prefix)
	if !ok {
		return Token{}, errors.New("not a join token: it must begin with " + Prefix)
	}
	parts := strings.Split(rest, ".")
	if len(parts) != 3 || !id.MatchString(parts[0]) || !secret.MatchString(parts[1]) {
		return Token{}, errors.New("the join token is damaged: it must be " + Prefix + "ID.SECRET.PIN, as it was shown when it was made")
	}
	if err := CheckPin(parts[2]); err != nil {
		return Token{}, fmt.Errorf("the join token is damaged: %w", err)
	}
	return made(parts[0], parts[1], parts[2]), nil
}

// Secret is what is hashed and compared; empty for the zero Token.
func (t Token) Secret() string {
	if t.secret == nil {
		return ""
	}
	return t.secret()
}

// Text is what Parse reads. It is as secret as Secret.
func (t Token) Text() string { return Prefix + t.ID + "." + t.Secret() + "." + t.Pin }

// String names the token without its secret.
func (t Token) String() string { return "join token " + t.ID }

// GoString is String.
func (t Token) GoString() string { return t.String() }

// Format prints String for every verb.
func (t Token) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, t.String()) }

// MarshalText gives String: a token is kept as its hash alone.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// PinOf is the pin of a CA: base64url of the SHA-256 of its public key, as DER
// of SubjectPublicKeyInfo. Like RFC 7469 section 2.4 it names the key, not the
// certificate, so that it stays if the certificate is made anew.
func PinOf(certificate *x509.Certificate) string {
	sum := sha256.Sum256(certificate.RawSubjectPublicKeyInfo)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// CheckPin refuses what PinOf never gives.
func CheckPin(pin string) error {
	if sum, err := base64.RawURLEncoding.Strict().DecodeString(pin); err != nil || len(sum) != sha256.Size || strings.ContainsAny(pin, "\r\n") {
		return errors.New("the pin of a CA must be 43 characters of base64url")
	}
	return nil
}
