// Package revocation says which tokens are refused although they verify.
//
// # The model
//
// An [Entry] is what somebody has revoked: a token by its jti, a subject, a consumer,
// an instance, or all that was issued until a time. Its ID follows from what it is about,
// so that revoking twice is revoking once. [Compile] picks those that a service could
// accept, which is all that its data planes are told. An entry goes when nothing that it
// refuses can be valid any more ([Lifetime]).
//
// Everything here is a function of its arguments: no clock, no input or output.
package revocation

import (
	"cmp"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Kind is what an entry is about.
type Kind string

// The kinds, as users write them.
const (
	Token        Kind = "token"
	Subject      Kind = "subject"
	Consumer     Kind = "consumer"
	Instance     Kind = "instance"
	IssuedBefore Kind = "issued-before"
)

// BuiltinIssuer is the name of the Issuer that services of the mesh get tokens of. What
// they sign themselves counts as its tokens.
const BuiltinIssuer = "watchword"

// Bounds of an entry, in bytes, and of how many of them a service may have.
const (
	MaxValue  = 1024
	MaxReason = 1000
	// MaxEntries a service enforces; from WarnEntries on, whoever revokes is warned.
	MaxEntries  = 10_000
	WarnEntries = 8_000
)

// ClockError is the largest difference between two clocks of the mesh.
const ClockError = time.Second

// Spread is how long a revocation may take until it is in force everywhere, or the data
// planes that lack it are known: it is added to how long an entry stays.
const Spread = 5 * time.Minute

// Entry is one revocation. It doesn't change, but by Widen.
type Entry struct {
	ID   string
	Kind Kind
	// Issuer is the name of the Issuer resource, or "consumer/NAME" for what the
	// credentials of a consumer verify. Empty for a consumer.
	Issuer string
	// Value is the jti, the sub, the name of the consumer, or the SPIFFE ID of the
	// instance; of issued-before the sub, or empty for all of the issuer.
	Value string
	// IssuedBefore is for that kind alone, in seconds since 1970: what was issued then
	// or earlier. What does not say when it was issued counts as earlier.
	IssuedBefore int64
	// Audiences are the services that refuse it, sorted; empty: every one that accepts
	// the issuer.
	Audiences []string
	Created   time.Time
	// Ends is when it may go; the zero time is never.
	Ends time.Time
	// Reason and Actor are for people.
	Reason, Actor string
}

// New gives an entry its ID, or says all that is wrong with it.
func New(e Entry) (Entry, error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	switch e.Kind {
	case Token, Subject, Consumer, Instance, IssuedBefore:
	default:
		fault("kind: %q is none of token, subject, consumer, instance and issued-before", e.Kind)
	}
	if e.Value == "" && e.Kind != IssuedBefore {
		fault("value: it is empty")
	}
	if len(e.Value) > MaxValue || !plain(e.Value) {
		fault("value: wants at most %d bytes of text without control characters", MaxValue)
	}
	if (e.Issuer == "") != (e.Kind == Consumer) {
		fault("issuer: a consumer has none, and all others need one")
	}
	if len(e.Issuer) > MaxValue || !plain(e.Issuer) || strings.Contains(e.Issuer, "|") {
		fault("issuer: it is not the name of an issuer")
	}
	if (e.IssuedBefore > 0) != (e.Kind == IssuedBefore) {
		fault("issued before: issued-before needs a time after 1970, and the others have none")
	}
	if len(e.Reason) > MaxReason || !plain(e.Reason) {
		fault("reason: wants at most %d bytes of text without control characters", MaxReason)
	}
	e.Audiences = slices.Compact(slices.Sorted(slices.Values(e.Audiences)))
	if len(faults) > 0 {
		return Entry{}, errors.Join(faults...)
	}
	e.ID = e.id()
	return e, nil
}

func plain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// id is a hash of what the entry is about: the parts can't contain a line break. For
// some services alone, it is another entry than for all.
func (e Entry) id() string {
	parts := append([]string{string(e.Kind), e.Issuer, e.Value}, e.Audiences...)
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:16]))
}

// Widen joins an entry with a later one of the same ID: it refuses what either does, for
// as long as either does.
func (e Entry) Widen(later Entry) Entry {
	out := later
	out.Created = e.Created
	out.IssuedBefore = max(e.IssuedBefore, later.IssuedBefore)
	if e.Ends.IsZero() || later.Ends.IsZero() {
		out.Ends = time.Time{}
	} else if e.Ends.After(later.Ends) {
		out.Ends = e.Ends
	}
	out.Reason = cmp.Or(later.Reason, e.Reason)
	return out
}

// Same tells whether two entries of one ID are enforced alike, for as long.
func (e Entry) Same(o Entry) bool {
	return e.ID == o.ID && e.IssuedBefore == o.IssuedBefore && e.Ends.Equal(o.Ends)
}

// Expired tells whether nothing that the entry refuses can be valid any more.
func (e Entry) Expired(now time.Time) bool { return !e.Ends.IsZero() && now.After(e.Ends) }

// For tells whether a service of that name is to refuse it.
func (e Entry) For(service string) bool {
	return len(e.Audiences) == 0 || slices.Contains(e.Audiences, service)
}
