package envoy

import (
	"fmt"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// failures are the reasons by the codes that jwt_authn writes to metadata. Any
// other code is about a token that can't be read. (24, an unknown issuer, is
// looked at after all others.)
var failures = map[string]reason.Word{
	"2":  reason.TokenNotYetValid,
	"3":  reason.TokenExpired,
	"8":  reason.AlgorithmNotAllowed,
	"23": reason.SignatureInvalid, // of a wrong length
	"25": reason.AudienceMismatch,
	"26": reason.SignatureInvalid,
	"31": reason.KeyUnknown,
	"32": reason.KeyUnknown,
}

const unknownIssuer = "24"

// ready copies what the instances are looked up by.
func (v *verification) ready() []stateValue {
	var out []stateValue
	for _, in := range v.instances {
		format := metadataFormat(rbacNamespace, v.plan.treatmentMetadata())
		if in.lookup {
			format = fmt.Sprintf("%%REQ(%s)%%", v.keyHeader(in))
		}
		out = append(out, stateValue{in.stateKey, format})
	}
	return out
}

// done keeps later instances from looking at a token that one has verified: the
// name of an algorithm is no treatment and no credential.
func (v *verification) done(in *instance) []stateValue {
	var out []stateValue
	for _, later := range v.instances[in.number+1:] {
		seen := map[int]bool{}
		for _, pl := range in.places {
			if !seen[pl.mark] {
				out = append(out, stateValue{later.stateKey, metadataFormat(jwtNamespace, v.byKey(pl.mark), "alg")})
			}
			seen[pl.mark] = true
		}
	}
	return out
}

// results copies what the instances have found.
func (v *verification) results() []stateValue {
	out := []stateValue{{v.verifiedState(), notVerified}}
	for i := range v.marks {
		by := metadataFormat(jwtNamespace, v.byKey(i), "alg")
		out = append(out, stateValue{v.verifiedState(), by}, stateValue{v.byState(i), by})
	}
	for i := range v.positions {
		out = append(out, stateValue{v.failedState(i), metadataFormat(jwtNamespace, v.failedKey(i), "code")})
	}
	return out
}

// verifyFilter refuses requests whose treatment has not verified what it asks
// for. A request without a treatment is refused: nobody has looked at it.
func verifyFilter(p *plan) *rbacv3.RBAC {
	entries := map[string]*onMatch{}
	for n, t := range p.treatments {
		entries[t.id] = allow("verified")
		switch a := t.authentication; {
		case !looksAtTokens(a):
		case a.GetObserve():
			entries[t.id] = p.enforced.unlessTorn(n, allow("verified"))
		default:
			entries[t.id] = p.enforced.verdict(n)
		}
	}
	return &rbacv3.RBAC{
		Matcher:         lookUp(p.treatmentState(), entries, deny(string(reason.ConsumerDenied))),
		RulesStatPrefix: "watchword_verify_",
	}
}

// observedVerifyFilter records what would have been refused. Nil for nothing.
func observedVerifyFilter(p *plan) *rbacv3.RBAC {
	entries := map[string]*onMatch{}
	for n, t := range p.treatments {
		switch {
		case t.authentication.GetObserve():
			entries[t.id] = p.enforced.verdict(n)
		case looksAtTokens(t.observed):
			entries[t.id] = p.observed.verdict(n)
		}
	}
	tree := lookUp(p.treatmentState(), entries, allow("verified"))
	if len(entries) == 0 {
		return nil
	}
	return &rbacv3.RBAC{ShadowMatcher: tree, ShadowRulesStatPrefix: "watchword_observed_verify_"}
}

// verdict of one treatment: verified, or the reason why not. The first rule that
// could tell more than that the token is not for it says why.
func (v *verification) verdict(n int) *onMatch {
	a := v.authentications[n]
	if a.GetMode() == dataplanev1.Authentication_PERMISSIVE {
		if !v.enforces() {
			return allow("verified")
		}
		return v.unlessTorn(n, allow("verified")) // there is none left: see permissive
	}
	end := deny(string(reason.TokenMissing))
	if a.GetMode() == dataplanev1.Authentication_OPTIONAL {
		end = allow("verified")
	}
	// One list, not a tree in a tree for each rule: Envoy reads no message that is
	// deeper than 100.
	var mine, others []branch
	for _, pl := range v.at(n) {
		mine = append(mine, branch{v.failedAsMine(pl), v.failure(pl)})
		others = append(others, branch{stateEquals(v.failedState(pl.position), unknownIssuer), v.notMine(pl)})
	}
	why := inOrder(append(mine, others...))
	why.OnNoMatch = end
	return v.unlessTorn(n, goOn(lookUp(v.verifiedState(), map[string]*onMatch{notVerified: goOn(why)}, allow("verified"))))
}

// unlessTorn refuses a request of whose tokens a rule has verified some and others
// not: the service may read another one than we do.
func (v *verification) unlessTorn(n int, otherwise *onMatch) *onMatch {
	var branches []branch
	for _, pl := range v.at(n) {
		if !mayHaveSeveral(pl.rule) {
			continue
		}
		torn := allOf([]*predicate{stateIsSet(v.byState(pl.mark)), stateIsSet(v.failedState(pl.position))})
		branches = append(branches, branch{torn, goOn(lookUp(v.failedState(pl.position), map[string]*onMatch{unknownIssuer: v.notMine(pl)}, v.failure(pl)))})
	}
	t := inOrder(branches)
	if t == nil {
		return otherwise
	}
	t.OnNoMatch = otherwise
	return goOn(t)
}

// mayHaveSeveral is false only for the one header that Envoy reads as one value.
func mayHaveSeveral(r *dataplanev1.TokenRule) bool {
	places := tokenPlaces(r)
	return len(places) > 1 || places[0].kind != inHeader || places[0].name != "authorization"
}

// failedAsMine holds when the rule was for the token, which failed.
func (v *verification) failedAsMine(pl place) *predicate {
	state := v.failedState(pl.position)
	return allOf([]*predicate{stateIsSet(state), noneOf(stateEquals(state, unknownIssuer))})
}

// failure refuses by the code of a failure.
func (v *verification) failure(pl place) *onMatch {
	codes := map[string]*onMatch{}
	for code, word := range failures {
		codes[code] = deny(string(word))
	}
	return goOn(lookUp(v.failedState(pl.position), codes, deny(string(reason.TokenMalformed))))
}

// notMine refuses a token that the rule is not for.
func (v *verification) notMine(pl place) *onMatch {
	if pl.rule.GetCredentialSet() != "" {
		return deny(string(reason.CredentialUnknown))
	}
	return deny(string(reason.IssuerUnknown))
}
