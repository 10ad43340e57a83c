// Package reason has the words that say why a data plane refused a request.
// A word is stable: it stands in response code details, logs and metrics, and
// people write alerts on it. Each has one status.
//
// What is said here is what the mesh itself names. Refusals of a token by
// Envoy's jwt_authn carry Envoy's own text in the response code details.
package reason

// Word is one reason.
type Word string

// The words.
const (
	// ConsumerDenied: the caller is known, and a rule refuses it or none
	// allows it. 403.
	ConsumerDenied Word = "consumer_denied"
	// PathAmbiguous: the path can be read in two ways, and a policy looks at
	// paths. 403.
	PathAmbiguous Word = "path_ambiguous"
	// HostAmbiguous: the host can be read in two ways, and a policy looks at
	// hosts. 403.
	HostAmbiguous Word = "host_ambiguous"
	// SubjectMalformed: the token's `sub` can't be the value of a header. 403.
	SubjectMalformed Word = "subject_malformed"
	// SubjectForged: another issuer signed for a `sub` of our trust domain. 403.
	SubjectForged Word = "subject_forged"
	// ClaimMalformed: a claim that goes into a header can't be in one. 403.
	ClaimMalformed Word = "claim_malformed"
	// LifetimeExceeded: the token's `exp` is beyond any clock. 403.
	LifetimeExceeded Word = "lifetime_exceeded"
)

// Of is the word with what it is about, as it stands in response code details:
// consumer_denied[POLICY/0].
func (w Word) Of(what string) string { return string(w) + "[" + what + "]" }
