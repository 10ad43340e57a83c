package ruleset

import (
	"fmt"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// Revocations are ready to be looked up. They are immutable.
type Revocations struct {
	issuers   map[string]*revokedOfIssuer
	consumers map[string]bool
}

type revokedOfIssuer struct {
	tokens    map[string]bool
	instances map[revokedInstance]bool
	// issuedUntil of subjects; 0: all tokens
	subjects    map[string]int64
	issuedUntil int64 // 0: none
}

type revokedInstance struct{ subject, instance string }

// The signers of tokens that no issuer's keys have verified, as in
// RevokedOfIssuer.issuer.
const (
	selfIssuedSigner = "watchword"
	consumerSigner   = "consumer/"
)

// CompileRevocations makes revocations ready. It refuses what it can't enforce.
func CompileRevocations(m *dataplanev1.Revocations) (*Revocations, error) {
	r := &Revocations{issuers: make(map[string]*revokedOfIssuer, len(m.GetIssuers())), consumers: make(map[string]bool, len(m.GetConsumers()))}
	for _, c := range m.GetConsumers() {
		r.consumers[c] = true
	}
	for i, is := range m.GetIssuers() {
		if is.GetIssuer() == "" || r.issuers[is.GetIssuer()] != nil {
			return nil, fmt.Errorf("revocations: issuers[%d]: it has no name, or that of another one", i)
		}
		of := &revokedOfIssuer{
			tokens: make(map[string]bool, len(is.GetTokens())), instances: make(map[revokedInstance]bool, len(is.GetInstances())),
			subjects: make(map[string]int64, len(is.GetSubjects())), issuedUntil: is.GetIssuedUntil(),
		}
		if of.issuedUntil < 0 {
			return nil, fmt.Errorf("revocations: issuers[%d]: issued_until is negative", i)
		}
		for _, jti := range is.GetTokens() {
			of.tokens[jti] = true
		}
		for _, in := range is.GetInstances() {
			of.instances[revokedInstance{in.GetSubject(), in.GetInstance()}] = true
		}
		for j, s := range is.GetSubjects() {
			if _, twice := of.subjects[s.GetSubject()]; twice || s.GetIssuedUntil() < 0 {
				return nil, fmt.Errorf("revocations: issuers[%d].subjects[%d]: it is there twice, or its issued_until is negative", i, j)
			}
			of.subjects[s.GetSubject()] = s.GetIssuedUntil()
		}
		r.issuers[is.GetIssuer()] = of
	}
	return r, nil
}

// Revoking is the ruleset with revocations; nil for none. rs is not changed.
func (rs *Ruleset) Revoking(r *Revocations) *Ruleset {
	out := *rs
	if out.revocations = r; r != nil && len(r.issuers)+len(r.consumers) == 0 {
		out.revocations = nil
	}
	return &out
}

// signer is who has signed the token of the caller.
func (c *identity) signer() string {
	switch {
	case c.verified.credential == nil:
		return c.verified.rule.issuer.name
	case c.Service != "":
		return selfIssuedSigner
	}
	return consumerSigner + c.Consumer
}

// revoked says by what the token of a caller was revoked; "" is that it was not.
// Without a token nothing is, though an anonymous consumer has a name.
func (r *Revocations) revoked(c *identity) (by string) {
	if r == nil || c.verified == nil {
		return ""
	}
	is, claims := r.issuers[c.signer()], c.verified.claims
	switch {
	case is != nil && len(is.tokens) > 0 && is.tokens[claims.text("jti")]:
		return "its jti"
	case is != nil && len(is.instances) > 0 && is.instances[revokedInstance{c.Subject, claims.text("instance")}]:
		return "its instance"
	case r.consumers[c.Consumer]:
		return "its consumer"
	case is == nil:
		return ""
	}
	if until, ok := is.subjects[c.Subject]; ok && (until == 0 || issuedUntil(claims, until)) {
		return "its sub"
	}
	if is.issuedUntil != 0 && issuedUntil(claims, is.issuedUntil) {
		return "its iat"
	}
	return ""
}

// issuedUntil: a token without iat may be of any time.
func issuedUntil(c claims, until int64) bool {
	iat, ok := c.get("iat").(float64)
	return !ok || iat <= float64(until)
}

// checkRevocations is the last thing that is looked at, as in Envoy, where a filter of
// its own does it.
func (e *evaluation) checkRevocations() bool {
	r := e.rs.revocations
	if r == nil {
		return true
	}
	by := r.revoked(&e.caller)
	if e.rec != nil {
		e.rec.revocation(&e.caller, by)
	}
	return by == ""
}

func (r *recorder) revocation(c *identity, by string) {
	switch {
	case c.verified == nil:
		r.add("revocation", "ok", "there is no token that could be revoked")
	case by == "":
		r.add("revocation", "ok", "neither token, instance, consumer nor subject of signer %q is revoked", c.signer())
	default:
		r.add("revocation", string(reason.Revoked), "the token of signer %q was revoked by %s", c.signer(), by)
	}
}

// Revocable tells whether a token says who calls, so that it can be revoked.
func (v *Verdict) Revocable() bool { return v.e.caller.verified != nil }

// Revokes tells whether the token of a request that was let in is revoked now, by what
// a later ruleset knows.
func (rs *Ruleset) Revokes(v *Verdict) bool { return rs.revocations.revoked(&v.e.caller) != "" }
