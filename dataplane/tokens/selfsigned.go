package tokens

import (
	"context"
	"crypto"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/watchword-mesh/watchword/internal/jose"
)

// DefaultSelfSignedLifetime is how long a token of a SelfSigned is valid.
const DefaultSelfSignedLifetime = time.Minute

// SelfSignedConfig says who signs.
type SelfSignedConfig struct {
	// Issuer is the `iss`: the service's `selfIssued.issuer`, or its SPIFFE ID if
	// that is not set.
	Issuer string
	// Subject is the `sub`: the SPIFFE ID of the service, exactly.
	Subject string
	// Key signs; its public half is in the service's `selfIssued.keySet` as KeyID. It
	// must be safe for concurrent use.
	Key crypto.Signer
	// KeyID is the `kid`.
	KeyID string
	// Algorithm is the `alg`, such as ES256.
	Algorithm string
	// Lifetime of a token, from ten seconds to an hour; 0 means
	// DefaultSelfSignedLifetime. It is signed anew after the half.
	Lifetime time.Duration
	// MaxAudiences is how many there may be at the same time; 0 means
	// DefaultMaxAudiences.
	MaxAudiences int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// String names the key without showing it.
func (c SelfSignedConfig) String() string {
	return fmt.Sprintf("tokens.SelfSignedConfig(%s, kid %q, %s)", c.Issuer, c.KeyID, c.Algorithm)
}

// Format prints String for every verb: an Ed25519 key is bytes, which fmt would show.
func (c SelfSignedConfig) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, c.String()) }

// SelfSigned signs tokens with a key of the service itself. It asks nobody, and is
// safe for concurrent use.
type SelfSigned struct {
	config SelfSignedConfig
	signer *jose.Signer
	signed atomic.Pointer[map[string]*signed]
	mu     sync.Mutex
}

type signed struct {
	token Token
	renew int64 // when to sign anew, in ns since 1970
	// refused is when a callee refused the one before.
	refused time.Time
}

// NewSelfSigned makes a SelfSigned.
func NewSelfSigned(c SelfSignedConfig) (*SelfSigned, error) {
	if c.Lifetime == 0 {
		c.Lifetime = DefaultSelfSignedLifetime
	}
	if c.MaxAudiences <= 0 {
		c.MaxAudiences = DefaultMaxAudiences
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	switch {
	case c.Issuer == "" || c.Subject == "":
		return nil, errors.New("self-signed tokens: there is no Issuer or no Subject; they are the service's selfIssued.issuer and its SPIFFE ID")
	case c.KeyID == "":
		return nil, errors.New("self-signed tokens: there is no KeyID; it is the kid of the key in the service's selfIssued.keySet")
	case c.Lifetime < 10*time.Second || c.Lifetime > time.Hour:
		return nil, fmt.Errorf("self-signed tokens: a lifetime of %v; use ten seconds to an hour", c.Lifetime)
	}
	key, err := jose.NewPrivateKey(c.Key, c.Algorithm)
	if err == nil {
		key, err = key.WithID(c.KeyID)
	}
	if err != nil {
		return nil, fmt.Errorf("self-signed tokens: %w", err)
	}
	c.Key = nil // the signer has it, and doesn't show it
	s := &SelfSigned{config: c, signer: key.Signer("at+jwt")}
	s.signed.Store(&map[string]*signed{})
	return s, nil
}

// String names it, without what it holds.
func (s *SelfSigned) String() string {
	return fmt.Sprintf("tokens.SelfSigned(%s, kid %q)", s.config.Issuer, s.config.KeyID)
}

// Format prints String for every verb.
func (s *SelfSigned) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// Token gives a token for an audience. ctx is not used: a signature doesn't wait.
func (s *SelfSigned) Token(_ context.Context, audience string) (Token, error) {
	now := s.config.Now()
	if t := (*s.signed.Load())[audience]; t.fresh(now) {
		return t.token, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := *s.signed.Load()
	last := all[audience]
	if last.fresh(now) {
		return last.token, nil
	}
	next := maps.Clone(all)
	if last == nil && len(next) >= s.config.MaxAudiences {
		maps.DeleteFunc(next, func(_ string, t *signed) bool { return !t.fresh(now) })
	}
	if len(next) >= s.config.MaxAudiences && last == nil {
		return Token{}, &Error{Audience: audience, Err: fmt.Errorf("there are %d audiences with a token already; raise MaxAudiences if they are all meant", len(next))}
	}
	made, err := s.sign(audience, now)
	if err != nil {
		return Token{}, &Error{Audience: audience, Err: err}
	}
	if last != nil {
		made.refused = last.refused
	}
	next[audience] = made
	s.signed.Store(&next)
	return made.token, nil
}

func (t *signed) fresh(now time.Time) bool { return t != nil && now.UnixNano() < t.renew }

func (s *SelfSigned) sign(audience string, now time.Time) (*signed, error) {
	if audience == "" {
		return nil, errors.New("there is no audience")
	}
	now = now.Round(0).Truncate(time.Second)
	expires := now.Add(s.config.Lifetime.Truncate(time.Second))
	claims, err := json.Marshal(struct {
		Issuer    string `json:"iss"`
		Subject   string `json:"sub"`
		Audience  string `json:"aud"`
		ID        string `json:"jti"`
		IssuedAt  int64  `json:"iat"`
		NotBefore int64  `json:"nbf"`
		Expiry    int64  `json:"exp"`
	}{s.config.Issuer, s.config.Subject, audience, rand.Text(), now.Unix(), now.Unix(), expires.Unix()})
	if err != nil {
		return nil, err
	}
	value, err := s.signer.Sign(claims)
	if err != nil {
		return nil, err
	}
	return &signed{token: Token{Value: value, Expires: expires}, renew: now.Add(s.config.Lifetime / 2).UnixNano()}, nil
}

// Refused says that a callee has not accepted a token: see [Tokens].
func (s *SelfSigned) Refused(audience string, refused Token) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := *s.signed.Load()
	last, now := all[audience], s.config.Now()
	if last == nil || !last.token.same(refused) || last.renew == 0 {
		return last != nil
	}
	if !last.refused.IsZero() && now.Sub(last.refused) < refusedPause {
		return false
	}
	next := maps.Clone(all)
	next[audience] = &signed{token: last.token, refused: now} // renew is 0: it is signed anew
	s.signed.Store(&next)
	return true
}
