package envoy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// denyFilter refuses what a deny rule matches; nil if there is none. Envoy names the policy in the
// response code details: rbac_access_denied_matched_policy[NAME].
func denyFilter(p *plan) *rbacv3.RBAC {
	rules := p.denyRules(func(r *dataplanev1.Route) *dataplanev1.Authorization { return r.GetAuthorization() })
	if len(rules.GetPolicies()) == 0 {
		return nil
	}
	return &rbacv3.RBAC{Rules: rules, RulesStatPrefix: "watchword_deny_"}
}

// allowFact finds out whether the route allows a request: its token was verified
// as the route asks for, and on a restricted route an allow rule matches. It
// does not believe that watchword.verify ran.
func allowFact(p *plan) *rbacv3.RBAC {
	rules := p.allowRules(func(r *dataplanev1.Route) *dataplanev1.Authorization { return r.GetAuthorization() }, true)
	return &rbacv3.RBAC{ShadowRules: rules, ShadowRulesStatPrefix: allowStatPrefix}
}

const (
	allowStatPrefix         = "watchword_allow_"
	observedAllowStatPrefix = "watchword_observed_allow_"
)

// authorizeFilter refuses whatever allowFact has not found to be allowed.
func authorizeFilter() *rbacv3.RBAC {
	return &rbacv3.RBAC{Rules: notAllowed(allowStatPrefix, anyone()), RulesStatPrefix: "watchword_authorize_"}
}

func notAllowed(statPrefix string, who *rbacconfigv3.Principal) *rbacconfigv3.RBAC {
	allowed := metadataPrincipal(metadata(rbacNamespace, equals("allowed"), statPrefix+shadowResult))
	return &rbacconfigv3.RBAC{Action: rbacconfigv3.RBAC_DENY, Policies: map[string]*rbacconfigv3.Policy{
		string(reason.ConsumerDenied): policy(anything(), allPrincipals([]*rbacconfigv3.Principal{who, not(allowed)})),
	}}
}

// observedAuthorization are the filters that record what authorization would
// have refused; none if nothing is observed.
func observedAuthorization(p *plan) []filter {
	observed := func(r *dataplanev1.Route) *dataplanev1.Authorization { return r.GetObservedAuthorization() }
	var routes []*rbacconfigv3.Principal
	for i, r := range p.rs.GetRoutes() {
		if observed(r) != nil {
			routes = append(routes, metadataPrincipal(metadata(rbacNamespace, equals(routeID(i)), routeKey)))
		}
	}
	if len(routes) == 0 {
		return nil
	}
	return []filter{
		{"watchword.observed.deny", &rbacv3.RBAC{ShadowRules: p.denyRules(observed), ShadowRulesStatPrefix: "watchword_observed_deny_"}},
		{"watchword.observed.allow", &rbacv3.RBAC{ShadowRules: p.allowRules(observed, false), ShadowRulesStatPrefix: observedAllowStatPrefix}},
		{"watchword.observed.authorize", &rbacv3.RBAC{
			ShadowRules: notAllowed(observedAllowStatPrefix, anyPrincipal(routes)), ShadowRulesStatPrefix: "watchword_observed_authorize_",
		}},
	}
}

func (p *plan) denyRules(of func(*dataplanev1.Route) *dataplanev1.Authorization) *rbacconfigv3.RBAC {
	g := newGroups()
	for i, r := range p.rs.GetRoutes() {
		for _, rule := range of(r).GetDeny() {
			g.add(reason.ConsumerDenied.Of(rule.GetName()), i, requestMatch(rule.GetTo()), allPrincipals(p.ruleSource(rule)))
		}
	}
	return &rbacconfigv3.RBAC{Action: rbacconfigv3.RBAC_DENY, Policies: g.policies}
}

func (p *plan) allowRules(of func(*dataplanev1.Route) *dataplanev1.Authorization, verified bool) *rbacconfigv3.RBAC {
	g := newGroups()
	for i, r := range p.rs.GetRoutes() {
		who := anyone()
		if verified {
			who = p.verifiedFor(p.ofRoute[i])
		}
		az := of(r)
		if !az.GetRestricted() {
			g.add("unrestricted", i, anything(), who)
			continue
		}
		for _, rule := range az.GetAllow() {
			g.add(fmt.Sprintf("allowed[%s]", rule.GetName()), i,
				requestMatch(rule.GetTo()),
				allPrincipals(append([]*rbacconfigv3.Principal{who}, p.ruleSource(rule)...)))
		}
	}
	return &rbacconfigv3.RBAC{Action: rbacconfigv3.RBAC_ALLOW, Policies: g.policies}
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

// verifiedFor matches a request whose token one of the treatment's own rules
// verified, or which may come without.
func (p *plan) verifiedFor(n int) *rbacconfigv3.Principal {
	a := p.treatments[n].authentication
	if !looksAtTokens(a) || a.GetObserve() || a.GetMode() == dataplanev1.Authentication_PERMISSIVE {
		return anyone()
	}
	var list []*rbacconfigv3.Principal
	if verified := p.enforced.scope(p.enforced.at(n)); verified != nil {
		list = append(list, verified)
	}
	if a.GetMode() == dataplanev1.Authentication_OPTIONAL {
		list = append(list, not(p.hasToken()))
	}
	return anyPrincipal(list)
}

// ruleSource is what a rule says of the caller: all of the list must match.
func (p *plan) ruleSource(rule *dataplanev1.AuthorizationRule) []*rbacconfigv3.Principal {
	var all []*rbacconfigv3.Principal
	if len(rule.GetFrom()) > 0 {
		all = append(all, anyPrincipal(p.callers(rule.GetFrom())))
	}
	if len(rule.GetNotFrom()) > 0 {
		all = append(all, not(anyPrincipal(p.callers(rule.GetNotFrom()))))
	}
	for _, m := range rule.GetWhen() {
		all = append(all, p.claimMatch(m))
	}
	return all
}

func (p *plan) callers(list []*dataplanev1.Principal) []*rbacconfigv3.Principal {
	var out []*rbacconfigv3.Principal
	for _, who := range list {
		out = append(out, p.caller(who))
	}
	return out
}

// claimMatch looks at the token that was verified; without one only a rule that
// says nothing of claims can match.
func (p *plan) claimMatch(m *dataplanev1.ClaimMatch) *rbacconfigv3.Principal {
	v := p.enforced
	if v == nil {
		return nobody()
	}
	switch m.GetOp() {
	case dataplanev1.ClaimMatch_EXISTS:
		return v.exists(m.GetClaimPath()...)
	case dataplanev1.ClaimMatch_NOT_EXISTS:
		return allPrincipals([]*rbacconfigv3.Principal{p.hasToken(), not(v.exists(m.GetClaimPath()...))})
	case dataplanev1.ClaimMatch_NOT_IN:
		return allPrincipals([]*rbacconfigv3.Principal{p.hasToken(), not(v.claimIn(m))})
	default: // IN: check refuses the rest
		return v.claimIn(m)
	}
}

func (v *verification) claimIn(m *dataplanev1.ClaimMatch) *rbacconfigv3.Principal {
	var list []*rbacconfigv3.Principal
	for _, one := range valueMatches(m) {
		list = append(list, v.claim(one, m.GetClaimPath()...))
	}
	return anyPrincipal(list)
}

// valueMatches match a claim that is one of the values, or a list that holds one.
// `scope` as a string is a list with blanks between (RFC 8693 section 4.2). Envoy
// could make one of it, and then no filter could tell what the string was that
// goes to a header or a cookie.
func valueMatches(m *dataplanev1.ClaimMatch) []*matcherv3.ValueMatcher {
	isScope := slices.Equal(m.GetClaimPath(), []string{"scope"})
	var out []*matcherv3.ValueMatcher
	var scopes []string
	for _, value := range m.GetValues() {
		one := valueMatch(value)
		out = append(out, listHas(one))
		switch text, isText := value.GetKind().(*structpb.Value_StringValue); {
		case !isScope || !isText || strings.Trim(text.StringValue, " ") == "":
			out = append(out, one)
		case !strings.Contains(text.StringValue, " "):
			scopes = append(scopes, regexp.QuoteMeta(text.StringValue))
		}
	}
	// One expression for some of them at a time: Envoy refuses one that is large.
	for some := range slices.Chunk(scopes, 16) {
		out = append(out, matchValue(matchRegex(`(?s)(?:.* )?(?:`+strings.Join(some, "|")+`)(?: .*)?`)))
	}
	return out
}

func listHas(one *matcherv3.ValueMatcher) *matcherv3.ValueMatcher {
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_ListMatch{
		ListMatch: &matcherv3.ListMatcher{MatchPattern: &matcherv3.ListMatcher_OneOf{OneOf: one}},
	}}
}

// hasToken matches when a token was verified.
func (p *plan) hasToken() *rbacconfigv3.Principal {
	if p.enforced == nil {
		return nobody()
	}
	return p.enforced.scope(p.enforced.places)
}

func encoded(m proto.Message) string {
	b, err := marshal.Marshal(m)
	if err != nil { // a string that is not UTF-8: the whole resource fails to encode, too
		return fmt.Sprintf("%p", m)
	}
	return string(b)
}
