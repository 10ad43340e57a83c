// Package bearer verifies tokens that are presented to the control plane itself:
// at the admin API, and to enrol. It asks for more than a data plane does for its
// service: each token names who issued it, whom it is for and when it ends, and
// is signed with a key that only its issuer has.
//
// It is a function of its arguments; the caller knows the issuers, the audiences
// and the time.
package bearer

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/watchword-mesh/watchword/internal/jose"
)

// skew is how far the clocks of issuers may be off.
const skew = 30 * time.Second

// maxToken bounds a token, in bytes: before it is verified a stranger sends it.
const maxToken = 16 << 10

// Issuer is somebody whose tokens are accepted.
type Issuer struct {
	// Name of the Issuer resource.
	Name string
	// Issuer is its exact `iss`; never empty.
	Issuer string
	Keys   []jose.Key
}

// Token is one that was verified. Whether its audience is the right one is for
// the caller to say, with [Token.For].
type Token struct {
	// Issuer is the name of the Issuer resource.
	Issuer   string
	Subject  string
	Audience []string
	IssuedAt time.Time // zero if it does not say
	// Claims are all claims; numbers are json.Number.
	Claims map[string]any
}

// For says whether the token is for any of the audiences.
func (t Token) For(audiences ...string) bool {
	return slices.ContainsFunc(audiences, func(a string) bool { return a != "" && slices.Contains(t.Audience, a) })
}

// Verify reads a token, verifies it with the keys of the issuer that it names,
// and checks that it is of now. Errors are for the operator; they hold nothing of
// the token but the `iss` of one whose issuer is not known.
func Verify(token string, issuers []Issuer, now time.Time) (Token, error) {
	if len(token) > maxToken {
		return Token{}, fmt.Errorf("the token has %d bytes, more than %d", len(token), maxToken)
	}
	read, err := jose.ParseUnverified(token)
	if err != nil {
		return Token{}, err
	}
	claimed, err := decode(read.Claims())
	if err != nil {
		return Token{}, err
	}
	i := slices.IndexFunc(issuers, func(i Issuer) bool { return i.Issuer != "" && i.Issuer == claimed.Issuer })
	if i < 0 {
		return Token{}, fmt.Errorf("no issuer that counts here has the iss %.200q", claimed.Issuer)
	}
	keys := slices.DeleteFunc(slices.Clone(issuers[i].Keys), jose.Key.Symmetric) // who verifies could sign
	verified, err := read.Verify(keys, jose.VerifyOptions{})
	if err != nil {
		return Token{}, fmt.Errorf("token of issuer %q: %w", issuers[i].Name, err)
	}
	c, err := decode(verified.Claims)
	if err == nil {
		err = c.check(now)
	}
	if err != nil {
		return Token{}, fmt.Errorf("token of issuer %q: %w", issuers[i].Name, err)
	}
	return c.token(issuers[i].Name, verified.Claims)
}

func (c registered) check(now time.Time) error {
	switch {
	case c.Subject == "":
		return errors.New("it has no sub")
	case len(c.Audience) == 0 || slices.Contains(c.Audience, ""):
		return errors.New("it has no aud")
	case c.Expiry == nil:
		return errors.New("it has no exp")
	case !now.Before(c.Expiry.time().Add(skew)):
		return fmt.Errorf("it has expired at %s", c.Expiry.time().Format(time.RFC3339))
	case c.NotBefore != nil && now.Add(skew).Before(c.NotBefore.time()):
		return fmt.Errorf("it is not valid before %s", c.NotBefore.time().Format(time.RFC3339))
	case c.IssuedAt != nil && now.Add(skew).Before(c.IssuedAt.time()):
		return fmt.Errorf("it is of the future: iat is %s", c.IssuedAt.time().Format(time.RFC3339))
	}
	return nil
}

func (c registered) token(issuer string, claims []byte) (Token, error) {
	t := Token{Issuer: issuer, Subject: c.Subject, Audience: c.Audience}
	if c.IssuedAt != nil {
		t.IssuedAt = c.IssuedAt.time()
	}
	all, err := objectOf(claims)
	t.Claims = all
	return t, err
}
