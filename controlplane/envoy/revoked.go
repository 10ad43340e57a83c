package envoy

import (
	"fmt"
	"math"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// What mesh.inbound leaves in filter state for mesh.revoked to look up. All but the
// first two begin with the signer and "|", which no name of a signer has in it.
const (
	signerStateKey            = "watchword.signer.v1"
	revocableConsumerStateKey = "watchword.revocable.consumer.v1"
	revocableTokenStateKey    = "watchword.revocable.token.v1"
	revocableInstanceStateKey = "watchword.revocable.instance.v1"
	revocableSubjectStateKey  = "watchword.revocable.subject.v1"

	signerStatPrefix = "watchword_signer_"
	signerKey        = signerStatPrefix + effectivePolicy

	// The signers of tokens that no issuer's keys have verified, as in
	// RevokedOfIssuer.issuer.
	selfIssuedSigner = "watchword"
	consumerSigner   = "consumer/"
)

// signerFact names who has signed the token of a request; nil if no treatment looks
// at tokens.
func signerFact(p *plan) *rbacv3.RBAC {
	v := p.enforced
	if v == nil {
		return nil
	}
	entries := map[string]*onMatch{}
	for n, t := range p.treatments {
		var branches []branch
		for _, pl := range v.at(n) {
			branches = append(branches, branch{stateIsSet(v.byState(pl.mark)), p.signer(pl)})
		}
		entries[t.id] = goOn(inOrder(branches))
	}
	tree := lookUp(p.treatmentState(), entries, nil)
	if tree == nil {
		return nil
	}
	return &rbacv3.RBAC{ShadowMatcher: tree, ShadowRulesStatPrefix: signerStatPrefix}
}

// signer is who has signed what a place has verified.
func (p *plan) signer(pl place) *onMatch {
	credentials := p.credentials(pl.rule)
	switch {
	case pl.rule.GetCredentialSet() == "":
		return allow(pl.rule.GetIssuer())
	case !p.needsLookup(pl.rule) && len(credentials) > 0:
		return allow(signerOf(credentials[0]))
	}
	entries := map[string]*onMatch{}
	for _, c := range credentials {
		entries[c.GetKey()] = allow(signerOf(c))
	}
	return goOn(lookUp(p.enforced.instanceOf(pl).stateKey, entries, nil))
}

func signerOf(c *dataplanev1.Credential) string {
	if c.GetService() != "" {
		return selfIssuedSigner
	}
	return consumerSigner + c.GetConsumer()
}

// revocable is what mesh.revoked looks up.
func revocable(p *plan) []stateValue {
	if p.enforced == nil {
		return nil
	}
	signer := metadataFormat(rbacNamespace, signerKey)
	return []stateValue{
		{signerStateKey, signer},
		{revocableConsumerStateKey, metadataFormat(rbacNamespace, consumerKey)},
		{revocableTokenStateKey, signer + "|" + payloadFormat("jti")},
		{revocableInstanceStateKey, signer + "|" + payloadFormat("instance") + "|" + payloadFormat("sub")},
		{revocableSubjectStateKey, signer + "|" + payloadFormat("sub")},
	}
}

// Revoked is mesh.revoked/SERVICE: it refuses tokens that verify and were revoked.
// nil: none was. All entries are looked up by hash, and what is left of time are
// comparisons of the one entry that was found.
func Revoked(service string, r *dataplanev1.Revocations) (Resource, error) {
	ext, err := extension(revokedFilter(service, r))
	if err != nil {
		return Resource{}, fmt.Errorf("service %q: encoding for Envoy: %w", service, err)
	}
	body, err := marshal.Marshal(ext)
	if err != nil {
		return Resource{}, fmt.Errorf("service %q: encoding for Envoy: %s: %w", service, RevokedName(service), err)
	}
	return Resource{TypeURL: ExtensionConfigType, Name: RevokedName(service), Body: body}, nil
}

func revokedFilter(service string, r *dataplanev1.Revocations) (string, proto.Message, error) {
	return RevokedName(service), &rbacv3.RBAC{Matcher: revokedTree(r), RulesStatPrefix: "watchword_revoked_"}, nil
}

// revokedTree is total: each way through it ends in an action. A matcher without the
// last one would refuse everything.
func revokedTree(r *dataplanev1.Revocations) *tree {
	live, gone := allow("live"), deny(string(reason.Revoked))
	tokens, instances, consumers := map[string]*onMatch{}, map[string]*onMatch{}, map[string]*onMatch{}
	subjects, signers := map[string]*onMatch{}, map[string]*onMatch{}
	for _, c := range r.GetConsumers() {
		consumers[c] = gone
	}
	for _, is := range r.GetIssuers() {
		of := is.GetIssuer() + "|"
		for _, jti := range is.GetTokens() {
			tokens[of+jti] = gone
		}
		for _, in := range is.GetInstances() {
			instances[of+in.GetInstance()+"|"+in.GetSubject()] = gone
		}
		for _, s := range is.GetSubjects() {
			// What is found here is not looked up among the issuers any more.
			subjects[of+s.GetSubject()] = gone
			if s.GetIssuedUntil() != 0 {
				subjects[of+s.GetSubject()] = unlessYounger(max(s.GetIssuedUntil(), is.GetIssuedUntil()), live, gone)
			}
		}
		if is.GetIssuedUntil() != 0 {
			signers[is.GetIssuer()] = unlessYounger(is.GetIssuedUntil(), live, gone)
		}
	}
	next := live
	for _, m := range []struct {
		state   string
		entries map[string]*onMatch
	}{
		{signerStateKey, signers}, {revocableSubjectStateKey, subjects}, {revocableConsumerStateKey, consumers},
		{revocableInstanceStateKey, instances}, {revocableTokenStateKey, tokens},
	} {
		if len(m.entries) > 0 {
			next = goOn(lookUp(m.state, m.entries, next))
		}
	}
	if next == live {
		return &tree{OnNoMatch: live}
	}
	// Without a token nothing is revoked, though an anonymous consumer has a name.
	signed := inOrder([]branch{{stateIsSet(signerStateKey), next}})
	signed.OnNoMatch = live
	return signed
}

// unlessYounger wants an `iat` that is later, in seconds: one that is missing, or no
// number, is none.
func unlessYounger(until int64, live, gone *onMatch) *onMatch {
	younger := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_DoubleMatch{DoubleMatch: &matcherv3.DoubleMatcher{
		MatchPattern: &matcherv3.DoubleMatcher_Range{Range: &typev3.DoubleRange{
			Start: math.Nextafter(float64(until), math.Inf(1)), End: math.MaxFloat64,
		}},
	}}}
	t := inOrder([]branch{{metadataHolds(younger, jwtNamespace, payloadKey, "iat"), live}})
	t.OnNoMatch = gone
	return goOn(t)
}
