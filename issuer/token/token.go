// Package token turns claims into a signed access token (RFC 9068).
//
// A token of ours always names who issued it, whom it speaks of, the one
// service that it is for, and when it ends. [Mint] refuses one that doesn't,
// whoever asks: a token that leaves out its audience or its end would be
// accepted too widely or for too long by a verifier that doesn't look.
package token

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/watchword-mesh/watchword/internal/jose"
)

// Claims is what a token says. All fields but Scope and Instance are required.
type Claims struct {
	// Issuer is `iss`.
	Issuer string
	// Subject is `sub`; see [SubjectOf].
	Subject string
	// Audience is `aud`: one value, never a wildcard. It is written as a
	// string, not as a list, which every verifier understands.
	Audience string
	// ClientID is `client_id` (RFC 8693 section 4.3).
	ClientID string
	// Scope is `scope`, space-delimited (RFC 8693 section 4.2); left out if empty.
	Scope string
	// Instance is `instance`, a claim of ours: which instance of the client has
	// asked, if it proved that by its key; left out if empty.
	Instance string
	// ID is `jti`; see [NewID].
	ID string
	// IssuedAt is `iat` and also `nbf`. Tokens count in whole seconds; the
	// rest is cut off, so that a token is never from the future.
	IssuedAt time.Time
	// Expiry is `exp`, cut off likewise.
	Expiry time.Time
}

// wire is the claims in the order in which they are written.
type wire struct {
	Issuer    string `json:"iss"`
	Subject   string `json:"sub"`
	Audience  string `json:"aud"`
	ClientID  string `json:"client_id"`
	Scope     string `json:"scope,omitempty"`
	Instance  string `json:"instance,omitempty"`
	ID        string `json:"jti"`
	IssuedAt  int64  `json:"iat"`
	NotBefore int64  `json:"nbf"`
	Expiry    int64  `json:"exp"`
}

// Mint signs the claims, in the JWS compact serialisation. The `typ` is that
// of the signer, which must be at+jwt.
func Mint(s *jose.Signer, c Claims) (string, error) {
	if err := c.check(); err != nil {
		return "", err
	}
	claims, err := json.Marshal(wire{
		Issuer:    c.Issuer,
		Subject:   c.Subject,
		Audience:  c.Audience,
		ClientID:  c.ClientID,
		Scope:     c.Scope,
		Instance:  c.Instance,
		ID:        c.ID,
		IssuedAt:  c.IssuedAt.Unix(),
		NotBefore: c.IssuedAt.Unix(),
		Expiry:    c.Expiry.Unix(),
	})
	if err != nil {
		return "", fmt.Errorf("encoding the claims of a token: %w", err)
	}
	signed, err := s.Sign(claims)
	if err != nil {
		return "", fmt.Errorf("signing a token: %w", err)
	}
	return signed, nil
}

func (c Claims) check() error {
	required := []struct{ name, value string }{
		{"iss", c.Issuer}, {"sub", c.Subject}, {"aud", c.Audience}, {"client_id", c.ClientID}, {"jti", c.ID},
	}
	for _, r := range required {
		if r.value == "" {
			return fmt.Errorf("a token must have %s", r.name)
		}
		if !plain(r.value) {
			return fmt.Errorf("%s of a token is %q: it must be UTF-8 without control characters", r.name, r.value)
		}
	}
	for _, o := range []struct{ name, value string }{{"scope", c.Scope}, {"instance", c.Instance}} {
		if !plain(o.value) {
			return fmt.Errorf("%s of a token is %q: it must be UTF-8 without control characters", o.name, o.value)
		}
	}
	if strings.Contains(c.Audience, "*") {
		return fmt.Errorf("aud of a token is %q: it must name one service, not a pattern", c.Audience)
	}
	if c.IssuedAt.Unix() <= 0 {
		return errors.New("a token must have iat")
	}
	if c.Expiry.Unix() <= c.IssuedAt.Unix() {
		return fmt.Errorf("exp of a token is %d, which is not after iat, %d", c.Expiry.Unix(), c.IssuedAt.Unix())
	}
	return nil
}

// plain tells whether a claim is what it looks like. Invalid UTF-8 would be
// replaced by the encoder, so that two different values could become equal.
func plain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// NewID gives a new `jti`: at least 128 random bits, as text.
func NewID() string { return rand.Text() }

// SubjectOf is the `sub` of a service: its SPIFFE ID (the SPIFFE-ID standard,
// section 2).
func SubjectOf(trustDomain, service string) string {
	return "spiffe://" + trustDomain + "/" + service
}
