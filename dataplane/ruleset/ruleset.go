// Package ruleset is the meaning of a Ruleset, in Go: what the Go data plane
// enforces, and the reference that Envoy is tested against.
//
// # The model
//
// Compile prepares a ruleset once: keys are parsed, credentials are indexed,
// matches are taken apart. Evaluate then takes one request through these steps;
// the first refusal ends it.
//
//	forward.go    strip: headers that only we may set are removed
//	match.go      guard: hosts and paths that can be read in two ways are refused
//	match.go      route: the first that matches
//	locate.go     the tokens at the places that a rule of the route looks at
//	verify.go     whose a token is, its times, its audience, its signature
//	claims.go     what the claims of the token that verified must be
//	consumer.go   which consumer the caller is
//	authorize.go  deny before allow
//	revocations.go  what verified, and was revoked
//	forward.go    the request as it goes on to the service
//	response.go   or what the caller is told instead
//
// Each refusal has one word of dataplane/reason. Where Envoy 1.40 accepts what
// the RFCs do not, this package refuses; KnownDifferences lists those cases. In
// all else both come to the same decision for the same reason.
//
// # Explaining
//
// Explain is Evaluate with a recorder. There is one evaluation, so that what is
// explained is what is enforced. Neither steps nor errors ever hold a token, a
// key or a secret.
//
// Everything here is a function of its arguments: no clock, no input or output.
// A Ruleset is immutable and safe for concurrent use.
package ruleset

import (
	"time"

	"github.com/watchword-mesh/watchword/dataplane/reason"
)

// Ruleset is a ruleset that is ready to be enforced.
type Ruleset struct {
	service string
	ours    ownHeaders
	// query parameters and cookies that only we may set, on whatever route
	outputPlaces []location
	// whether any rule looks at what the guard protects
	looksAtHosts, looksAtPaths bool
	// whether any rule looks at, or writes, fields of forms
	forms, leased bool
	routes        []*route
	// the subjects that one issuer alone may sign for; empty for none
	ownPrefix, ownIssuer string
	consumers            map[string]*consumer
	revocations          *Revocations // nil: none
}

type route struct {
	name     string
	match    requestMatch
	enforced *authentication
	observed *authentication // nil: nothing is observed
	// what may be done
	authorization *authorization
	observedAuthz *authorization // nil: nothing is observed
	responses     []response
}

// Field is one field of a header section. Names are compared without case.
type Field struct{ Name, Value string }

// Request is what a data plane looks at, and what it sends on.
type Request struct {
	Method string
	// Authority is the host, with the port if there is one (RFC 9110 section 7.2).
	Authority string
	// Path with its query, as sent.
	Path string
	// Header in the order of the request, without the host.
	Header []Field
	// Body is looked at only if it is a form; else it may be left out.
	Body []byte
}

// Decision is what becomes of a request.
type Decision struct {
	Allowed bool
	// Reason of a refusal.
	Reason reason.Word
	// Rule is the name of the authorization rule that refused, if one did.
	Rule string
	// Observed is the word of a refusal that was only observed, and ObservedRule
	// the name of the rule, if it was one.
	Observed     reason.Word
	ObservedRule string
	// Route is the name of the route; empty for the rest of the service, and
	// where the guard refused.
	Route string

	// What a caller that was refused is told. Status is that of HTTP: 200 for
	// gRPC, which has its own (GRPCStatus is 0 for a request that is not gRPC).
	Status          int
	Body            string
	ContentType     string
	WWWAuthenticate string
	GRPCStatus      int
	GRPCMessage     string

	// Caller as far as it is known.
	Caller Caller
	// Forward is the request for the service, if it is allowed. It may share
	// memory with the request that was evaluated.
	Forward Request
}

// Caller is who sent a request. Without a verified token only Consumer and
// Anonymous can be set.
type Caller struct {
	// Issuer is the name of the issuer whose keys verified the token.
	Issuer string
	// Iss and Subject are the claims iss and sub.
	Iss, Subject string
	// Service is the name of the service that signed for itself.
	Service string
	// Consumer is the name of the consumer.
	Consumer string
	// Credential is the key of the credential that verified the token.
	Credential string
	// Anonymous: there is no verified token, and Consumer stands for that.
	Anonymous bool
}

// Evaluate decides on one request at one time.
func (rs *Ruleset) Evaluate(req Request, now time.Time) Decision {
	return rs.evaluate(req, nil, now, nil)
}

// Explain is Evaluate, and tells each step of the way.
func (rs *Ruleset) Explain(req Request, now time.Time) (Decision, []Step) {
	rec := new(recorder)
	d := rs.evaluate(req, nil, now, rec)
	return d, rec.steps
}

// EvaluateClaims is Evaluate with a token of which key and signature are not
// looked at, and all else is: policies can be tested without keys. Claims is a
// JSON object; header is the JOSE header, where alg may be left out. The token is
// taken to be at the first place of each rule; tokens in the request are not
// looked at.
func (rs *Ruleset) EvaluateClaims(req Request, claims []byte, header map[string]any, now time.Time) Decision {
	return rs.evaluate(req, &assumed{header: header, claims: claims}, now, nil)
}

// ExplainClaims is EvaluateClaims, and tells each step of the way.
func (rs *Ruleset) ExplainClaims(req Request, claims []byte, header map[string]any, now time.Time) (Decision, []Step) {
	rec := new(recorder)
	d := rs.evaluate(req, &assumed{header: header, claims: claims}, now, rec)
	return d, rec.steps
}

// ExplainToken is Explain with a token that is not in the request yet: it is
// taken to be at the first place of each rule, and tokens in the request are not
// looked at. It is verified like any other; an empty one is malformed.
func (rs *Ruleset) ExplainToken(req Request, token string, now time.Time) (Decision, []Step) {
	rec := new(recorder)
	d := rs.evaluate(req, &assumed{signed: &token}, now, rec)
	return d, rec.steps
}

// ReadsForms tells whether a request with a form has to come with its body.
func (rs *Ruleset) ReadsForms(req Request) bool { return rs.forms && isForm(req) }

// Leased tells whether the ruleset holds only under a lease.
func (rs *Ruleset) Leased() bool { return rs.leased }
