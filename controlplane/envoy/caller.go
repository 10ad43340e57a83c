package envoy

import (
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// scope matches requests whose token was verified at one of the places; nil for
// none. It names treatments only where the same rule of another treatment is not
// meant.
func (v *verification) scope(places []place) *rbacconfigv3.Principal {
	var list []*rbacconfigv3.Principal
	for mark := range v.marks {
		here := withMark(places, mark)
		if len(here) == 0 {
			continue
		}
		verified := metadataPrincipal(metadata(jwtNamespace, present(), v.byKey(mark), "alg"))
		if len(here) == len(withMark(v.places, mark)) {
			list = append(list, verified)
			continue
		}
		var treatments []*rbacconfigv3.Principal
		for _, pl := range here {
			treatments = append(treatments, v.plan.treated(pl.treatment))
		}
		list = append(list, allPrincipals([]*rbacconfigv3.Principal{verified, anyPrincipal(treatments)}))
	}
	if len(list) == 0 {
		return nil
	}
	return anyPrincipal(list)
}

func withMark(places []place, mark int) []place {
	var out []place
	for _, pl := range places {
		if pl.mark == mark {
			out = append(out, pl)
		}
	}
	return out
}

// treated matches requests of one treatment.
func (p *plan) treated(n int) *rbacconfigv3.Principal {
	return metadataPrincipal(metadata(rbacNamespace, equals(p.treatments[n].id), p.treatmentMetadata()))
}

// signedWith matches tokens that one credential of a place has verified.
func (v *verification) signedWith(pl place, c *dataplanev1.Credential) *rbacconfigv3.Principal {
	who := v.scope([]place{pl})
	if !v.plan.needsLookup(pl.rule) {
		return who
	}
	return both(who, &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_FilterState{FilterState: &matcherv3.FilterStateMatcher{
		Key:     v.instanceOf(pl).stateKey,
		Matcher: &matcherv3.FilterStateMatcher_StringMatch{StringMatch: matchExact(c.GetKey())},
	}}})
}

// claim matches a claim of the token that was verified.
func (v *verification) claim(m *matcherv3.ValueMatcher, path ...string) *rbacconfigv3.Principal {
	return metadataPrincipal(metadata(jwtNamespace, m, append([]string{v.payloadKey()}, path...)...))
}

// exists matches a claim that is there and not null.
func (v *verification) exists(path ...string) *rbacconfigv3.Principal {
	return both(v.claim(present(), path...), not(v.claim(null(), path...)))
}

// both is nil if the first is.
func both(a, b *rbacconfigv3.Principal) *rbacconfigv3.Principal {
	if a == nil {
		return nil
	}
	return allPrincipals([]*rbacconfigv3.Principal{a, b})
}

// caller matches one that a rule names. Nobody matches one that no token rule can
// lead to.
func (p *plan) caller(who *dataplanev1.Principal) *rbacconfigv3.Principal {
	switch {
	case who.GetConsumer() != "":
		return metadataPrincipal(metadata(rbacNamespace, equals(who.GetConsumer()), consumerKey))
	case p.enforced == nil:
		return nobody()
	case who.GetService() != "":
		return p.serviceItself(who.GetService())
	}
	v := p.enforced
	is := v.scope(v.placesWhere(func(pl place) bool { return pl.rule.GetIssuer() == who.GetIssuer() }))
	switch {
	case is == nil:
		return nobody()
	case who.GetSubject() == "":
		return is
	}
	return both(is, v.claim(equals(who.GetSubject()), "sub"))
}

// serviceItself matches tokens that a service has signed itself.
func (p *plan) serviceItself(name string) *rbacconfigv3.Principal {
	var list []*rbacconfigv3.Principal
	for _, pl := range p.enforced.places {
		for _, c := range p.credentials(pl.rule) {
			if c.GetService() == name {
				list = append(list, p.enforced.signedWith(pl, c))
			}
		}
	}
	if len(list) == 0 {
		return nobody()
	}
	return anyPrincipal(list)
}

func nobody() *rbacconfigv3.Principal { return not(anyone()) }

// fact finds, for the caller of a request, what of returns for it; "" is
// nothing. The RBAC filter enforces nothing: the name that it finds becomes
// metadata. Nil if there is nothing to find.
func (p *plan) fact(statPrefix string, of func(n int, who found) string) *rbacv3.RBAC {
	entries := map[string]*onMatch{}
	for n, t := range p.treatments {
		if looksAtTokens(t.authentication) {
			entries[t.id] = goOn(p.factOf(n, of))
		}
	}
	tree := lookUp(p.treatmentState(), entries, nil)
	if tree == nil {
		return nil
	}
	return &rbacv3.RBAC{ShadowMatcher: tree, ShadowRulesStatPrefix: statPrefix}
}

// found is who was found to be the caller: exactly one of the three.
type found struct {
	credential *dataplanev1.Credential
	match      string // consumer of a token of an issuer
	anonymous  string // consumer of a request without a token
}

// consumer is the name of the consumer, if it is one.
func (f found) consumer() string {
	switch {
	case f.match != "":
		return f.match
	case f.anonymous != "":
		return f.anonymous
	}
	return f.credential.GetConsumer()
}

func (p *plan) factOf(n int, of func(int, found) string) *tree {
	v := p.enforced
	named := func(f found) *onMatch {
		if name := of(n, f); name != "" {
			return allow(name)
		}
		return nil
	}
	var branches []branch
	if anonymous := p.treatments[n].authentication.GetAnonymousConsumer(); anonymous != "" {
		branches = append(branches, branch{stateEquals(v.verifiedState(), notVerified), named(found{anonymous: anonymous})})
	}
	for _, pl := range v.at(n) {
		var then *onMatch
		switch credentials := p.credentials(pl.rule); {
		case p.needsLookup(pl.rule):
			entries := map[string]*onMatch{}
			for _, c := range credentials {
				entries[c.GetKey()] = named(found{credential: c})
			}
			then = goOn(lookUp(v.instanceOf(pl).stateKey, entries, nil))
		case len(credentials) > 0:
			then = named(found{credential: credentials[0]})
		default:
			then = goOn(v.matches(pl, named))
		}
		branches = append(branches, branch{stateIsSet(v.byState(pl.mark)), then})
	}
	return inOrder(branches)
}

// matches finds the consumer that a token of an issuer belongs to.
func (v *verification) matches(pl place, named func(found) *onMatch) *tree {
	var branches []branch
	for _, m := range pl.rule.GetConsumers() {
		var all []*predicate
		for _, w := range m.GetWhen() {
			all = append(all, v.claimHolds(w))
		}
		if len(all) == 0 {
			all = append(all, stateIsSet(v.byState(pl.mark)))
		}
		branches = append(branches, branch{allOf(all), named(found{match: m.GetConsumer()})})
	}
	return inOrder(branches)
}

// claimHolds is claimMatch for matcher trees.
func (v *verification) claimHolds(m *dataplanev1.ClaimMatch) *predicate {
	value := func(vm *matcherv3.ValueMatcher) *predicate {
		return metadataHolds(vm, jwtNamespace, append([]string{v.payloadKey()}, m.GetClaimPath()...)...)
	}
	exists := allOf([]*predicate{value(present()), noneOf(value(null()))})
	var in []*predicate
	for _, one := range valueMatches(m) {
		in = append(in, value(one))
	}
	switch m.GetOp() {
	case dataplanev1.ClaimMatch_EXISTS:
		return exists
	case dataplanev1.ClaimMatch_NOT_EXISTS:
		return noneOf(exists)
	case dataplanev1.ClaimMatch_NOT_IN:
		return noneOf(anyOf(in))
	default: // IN: check refuses the rest
		return anyOf(in)
	}
}

// consumerFact names the consumer.
func consumerFact(p *plan) *rbacv3.RBAC {
	return p.fact(consumerStatPrefix, func(_ int, who found) string { return who.consumer() })
}
