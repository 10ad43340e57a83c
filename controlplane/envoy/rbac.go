package envoy

import (
	"fmt"
	"math"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// denyFilter refuses what a deny rule matches. Envoy names the policy in the
// response code details: rbac_access_denied_matched_policy[NAME].
func denyFilter(rs *dataplanev1.Ruleset) *rbacv3.RBAC {
	g := newGroups()
	for i, r := range rs.GetRoutes() {
		for _, rule := range r.GetAuthorization().GetDeny() {
			g.add(reason.ConsumerDenied.Of(rule.GetName()), i,
				requestMatch(rule.GetTo()), allPrincipals(ruleSource(rule)))
		}
	}
	g.policies[string(reason.SubjectMalformed)] = policy(anything(), controlCharacters("sub"))
	g.policies[string(reason.LifetimeExceeded)] = policy(anything(), endlessLifetime())
	if len(rs.GetOwnSubjects().GetPrefix()) > 0 {
		g.policies[string(reason.SubjectForged)] = policy(anything(), forgedSubject(rs.GetOwnSubjects()))
	}
	if list := malformedOutputs(rs); len(list) > 0 {
		g.policies[string(reason.ClaimMalformed)] = policy(anything(), anyPrincipal(list))
	}
	return &rbacv3.RBAC{
		Rules:           &rbacconfigv3.RBAC{Action: rbacconfigv3.RBAC_DENY, Policies: g.policies},
		RulesStatPrefix: "watchword_deny_",
	}
}

// allowFilter lets a request through if its route has verified what it asks
// for and, on a restricted route, an allow rule matches. All else is refused,
// with NAME "none" in the response code details.
func allowFilter(rs *dataplanev1.Ruleset, ps *providers) *rbacv3.RBAC {
	g := newGroups()
	for i, r := range rs.GetRoutes() {
		verified := verifiedFor(r.GetAuthentication(), ps)
		az := r.GetAuthorization()
		if !az.GetRestricted() {
			g.add("unrestricted", i, anything(), verified)
			continue
		}
		for _, rule := range az.GetAllow() {
			g.add(fmt.Sprintf("allowed[%s]", rule.GetName()), i,
				requestMatch(rule.GetTo()),
				allPrincipals(append([]*rbacconfigv3.Principal{verified}, ruleSource(rule)...)))
		}
	}
	return &rbacv3.RBAC{
		Rules:           &rbacconfigv3.RBAC{Action: rbacconfigv3.RBAC_ALLOW, Policies: g.policies},
		RulesStatPrefix: "watchword_allow_",
	}
}

// groups makes one policy of a rule and all routes that it holds for, since
// Envoy looks at the policies one after the other.
type groups struct {
	policies map[string]*rbacconfigv3.Policy
	byRule   map[encodedRule]*rbacconfigv3.Permission_Set // to its routes
}

type encodedRule struct{ name, to, from string }

func newGroups() *groups {
	return &groups{policies: map[string]*rbacconfigv3.Policy{}, byRule: map[encodedRule]*rbacconfigv3.Permission_Set{}}
}

// add must see the routes in order, so that equal input gives equal names.
func (g *groups) add(name string, route int, to *rbacconfigv3.Permission, from *rbacconfigv3.Principal) {
	key := encodedRule{name, encoded(to), encoded(from)}
	routes, ok := g.byRule[key]
	if !ok {
		routes = new(rbacconfigv3.Permission_Set)
		g.byRule[key] = routes
		g.policies[g.free(name)] = policy(allPermissions([]*rbacconfigv3.Permission{
			{Rule: &rbacconfigv3.Permission_OrRules{OrRules: routes}}, to,
		}), from)
	}
	routes.Rules = append(routes.Rules, onRoute(route))
}

// free is name, or name with a number if another rule has it.
func (g *groups) free(name string) string {
	free := name
	for n := 2; g.policies[free] != nil; n++ {
		free = fmt.Sprintf("%s#%d", name, n)
	}
	return free
}

// verifiedFor matches a request whose token one of the route's own providers
// verified. That jwt_authn let it pass does not say so: a route that it does
// not find in its map has no requirement, and allow_missing may take the
// provider by the token's issuer, whatever routes that provider is for.
func verifiedFor(a *dataplanev1.Authentication, ps *providers) *rbacconfigv3.Principal {
	if a.GetMode() == dataplanev1.Authentication_OFF {
		return anyone()
	}
	var list []*rbacconfigv3.Principal
	for _, name := range ps.of(a) {
		list = append(list, metadataPrincipal(metadata(jwtNamespace, present(), verifiedByKey+name)))
	}
	if a.GetMode() == dataplanev1.Authentication_OPTIONAL {
		list = append(list, not(hasToken()))
	}
	return anyPrincipal(list)
}

// ruleSource is what a rule says of the caller: all of the list must match.
func ruleSource(rule *dataplanev1.AuthorizationRule) []*rbacconfigv3.Principal {
	var all []*rbacconfigv3.Principal
	if len(rule.GetFrom()) > 0 {
		var list []*rbacconfigv3.Principal
		for _, p := range rule.GetFrom() {
			list = append(list, caller(p))
		}
		all = append(all, anyPrincipal(list))
	}
	for _, m := range rule.GetWhen() {
		all = append(all, claimMatch(m))
	}
	return all
}

// caller is issuer and subject: a subject means nothing without its issuer.
func caller(p *dataplanev1.Principal) *rbacconfigv3.Principal {
	iss := metadataPrincipal(claim(equals(p.GetIssuer()), "iss"))
	if p.GetSubject() == "" {
		return iss
	}
	return allPrincipals([]*rbacconfigv3.Principal{iss, metadataPrincipal(claim(equals(p.GetSubject()), "sub"))})
}

func claimMatch(m *dataplanev1.ClaimMatch) *rbacconfigv3.Principal {
	path := m.GetClaimPath()
	switch m.GetOp() {
	case dataplanev1.ClaimMatch_EXISTS:
		return metadataPrincipal(claim(present(), path...))
	case dataplanev1.ClaimMatch_NOT_IN:
		return allPrincipals([]*rbacconfigv3.Principal{hasToken(), not(claimIn(m))})
	default: // IN: check refuses the rest
		return claimIn(m)
	}
}

func claimIn(m *dataplanev1.ClaimMatch) *rbacconfigv3.Principal {
	var list []*rbacconfigv3.Principal
	for _, v := range m.GetValues() {
		one := valueMatch(v)
		inList := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_ListMatch{
			ListMatch: &matcherv3.ListMatcher{MatchPattern: &matcherv3.ListMatcher_OneOf{OneOf: one}},
		}}
		list = append(list,
			metadataPrincipal(claim(one, m.GetClaimPath()...)),
			metadataPrincipal(claim(inList, m.GetClaimPath()...)))
	}
	return anyPrincipal(list)
}

// hasToken matches when a token was verified: iss is in each.
func hasToken() *rbacconfigv3.Principal {
	return metadataPrincipal(claim(present(), "iss"))
}

// controlCharacters matches a claim that can't be the value of a header.
func controlCharacters(path ...string) *rbacconfigv3.Principal {
	return metadataPrincipal(claim(matchValue(matchRegex(`(?s).*[\x00-\x1f\x7f].*`)), path...))
}

// malformedOutputs matches claims that some route copies into a header and
// that can't be in one: Envoy would answer 503 for the service.
func malformedOutputs(rs *dataplanev1.Ruleset) []*rbacconfigv3.Principal {
	var list []*rbacconfigv3.Principal
	seen := map[string]bool{}
	for _, r := range rs.GetRoutes() {
		for _, tr := range r.GetAuthentication().GetRules() {
			for _, oc := range tr.GetOutputClaims() {
				key := fmt.Sprintf("%q", oc.GetClaimPath())
				if !seen[key] {
					list = append(list, controlCharacters(oc.GetClaimPath()...))
				}
				seen[key] = true
			}
		}
	}
	return list
}

// endlessLifetime matches an `exp` beyond what is exact in JSON (RFC 8259
// section 6): Envoy's sum of it and the clock skew overflows, so that neither
// expiry nor max_lifetime is enforced.
func endlessLifetime() *rbacconfigv3.Principal {
	return metadataPrincipal(claim(&matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_DoubleMatch{
		DoubleMatch: &matcherv3.DoubleMatcher{MatchPattern: &matcherv3.DoubleMatcher_Range{
			Range: &typev3.DoubleRange{Start: 1 << 53, End: math.MaxFloat64},
		}},
	}}, "exp"))
}

// forgedSubject matches a subject of our own services that another issuer has
// signed: services that look at the caller's name alone would believe it.
func forgedSubject(own *dataplanev1.OwnSubjects) *rbacconfigv3.Principal {
	return allPrincipals([]*rbacconfigv3.Principal{
		metadataPrincipal(claim(matchValue(matchPrefix(own.GetPrefix())), "sub")),
		not(metadataPrincipal(claim(equals(own.GetIssuer()), "iss"))),
	})
}

func matchValue(m *matcherv3.StringMatcher) *matcherv3.ValueMatcher {
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: m}}
}

func encoded(m proto.Message) string {
	b, err := marshal.Marshal(m)
	if err != nil { // a string that is not UTF-8: the whole resource fails to encode, too
		return fmt.Sprintf("%p", m)
	}
	return string(b)
}
