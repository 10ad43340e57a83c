// Package reason has the words that say why a data plane refused a request.
// A word is stable: it stands in a response header, in Envoy's response code
// details, in logs and metrics, and people write alerts on it. Each has one
// status, unless a policy says otherwise.
package reason

import (
	"slices"
	"strings"
)

// Word is one reason. The empty Word is no refusal.
type Word string

// Header of a response that carries the word.
const Header = "x-watchword-reason"

// ObservedHeader of a response carries the word of a refusal that was only
// observed.
const ObservedHeader = "x-watchword-observed"

// The words about the token: the caller is not known.
const (
	// TokenMissing: no place that is looked at has a token.
	TokenMissing Word = "token_missing"
	// TokenMalformed: not a JWT as RFC 7519 has it, or with a critical header
	// (RFC 7515 section 4.1.11).
	TokenMalformed Word = "token_malformed"
	// TypeNotAllowed: the `typ` of the header is not one of an access token.
	TypeNotAllowed Word = "type_not_allowed"
	// IssuerUnknown: no rule is for tokens with this `iss`.
	IssuerUnknown Word = "issuer_unknown"
	// CredentialUnknown: no consumer has a credential with this key.
	CredentialUnknown Word = "credential_unknown"
	// TokenExpired: `exp` is in the past.
	TokenExpired Word = "token_expired"
	// TokenNotYetValid: `nbf` or `iat` is in the future.
	TokenNotYetValid Word = "token_not_yet_valid"
	// AlgorithmNotAllowed: `alg` is none that is verified.
	AlgorithmNotAllowed Word = "algorithm_not_allowed"
	// KeyUnknown: no key with this `kid` and `alg`.
	KeyUnknown Word = "key_unknown"
	// SignatureInvalid: no key that may be used verifies it.
	SignatureInvalid Word = "signature_invalid"
	// LifetimeExceeded: it is valid for longer than allowed.
	LifetimeExceeded Word = "lifetime_exceeded"
	// ClaimMissing: a claim that is required is not there.
	ClaimMissing Word = "claim_missing"
	// SubjectMalformed: `sub` can't be the value of a header.
	SubjectMalformed Word = "subject_malformed"
	// SubjectForged: `sub` is one that another issuer alone may sign for.
	SubjectForged Word = "subject_forged"
	// ClaimMalformed: a claim that is to be copied can't be where it would go.
	ClaimMalformed Word = "claim_malformed"
	// Revoked: the token, its key or its subject was revoked.
	Revoked Word = "revoked"
)

// The words about what a known caller, or anybody, may do.
const (
	// AudienceMismatch: the token is for another service.
	AudienceMismatch Word = "audience_mismatch"
	// ConsumerDenied: a rule refuses the caller, or none allows it.
	ConsumerDenied Word = "consumer_denied"
	// PathAmbiguous: the path can be read in two ways, and a policy looks at
	// paths.
	PathAmbiguous Word = "path_ambiguous"
	// HostAmbiguous: the host can be read in two ways, and a policy looks at
	// hosts.
	HostAmbiguous Word = "host_ambiguous"
)

// The words of a Go data plane that can't decide. No policy has a say in them, so
// All does not list them.
const (
	// NotReady: it has no ruleset yet, or its service was deleted.
	NotReady Word = "not_ready"
	// LeaseExpired: it has not heard from the control plane for longer than the
	// service allows.
	LeaseExpired Word = "lease_expired"
	// BodyUnreadable: a form that may hold a token is too large, or its end did not
	// come.
	BodyUnreadable Word = "body_unreadable"
)

var unauthorized = []Word{
	TokenMissing, TokenMalformed, TypeNotAllowed, IssuerUnknown, CredentialUnknown, TokenExpired,
	TokenNotYetValid, AlgorithmNotAllowed, KeyUnknown, SignatureInvalid, LifetimeExceeded, ClaimMissing,
	SubjectMalformed, SubjectForged, ClaimMalformed, Revoked,
}

var forbidden = []Word{AudienceMismatch, ConsumerDenied, PathAmbiguous, HostAmbiguous}

// All lists every word that a policy may name.
func All() []Word { return slices.Concat(unauthorized, forbidden) }

// Known says whether there is such a word.
func Known(w Word) bool { return slices.Contains(unauthorized, w) || slices.Contains(forbidden, w) }

// Status is the HTTP status of a refusal: 401 where another token could help
// (RFC 9110 section 15.5.2), 503 where another data plane or a later time could,
// 413 for a body, else 403.
func (w Word) Status() int {
	switch {
	case slices.Contains(unauthorized, w):
		return 401
	case w == NotReady || w == LeaseExpired:
		return 503
	case w == BodyUnreadable:
		return 413
	}
	return 403
}

// Of is the word with what it is about, as it stands in response code details:
// consumer_denied[POLICY/0].
func (w Word) Of(what string) string { return string(w) + "[" + what + "]" }

// Parse takes the word out of what Of has made, or of a word with a number
// (token_expired#2).
func Parse(s string) Word {
	if i := strings.IndexAny(s, "[#"); i >= 0 {
		s = s[:i]
	}
	return Word(s)
}

// Body is what a caller is told where no policy says otherwise.
func (w Word) Body() string { return `{"reason":"` + string(w) + `"}` }
