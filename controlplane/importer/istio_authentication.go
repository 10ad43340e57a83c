package importer

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

type requestAuthentication struct {
	node
	id, name string
	scope    scope
	rules    []*policyv1.JwtRule
	// The claims that its rules split at blanks.
	split []string
}

type istioIssuer struct {
	name string
	spec *policyv1.IssuerSpec
	at   node
	used bool
}

var jwtRuleFields = []string{"issuer", "audiences", "jwksUri", "jwks_uri", "jwks", "fromHeaders", "fromParams", "fromCookies",
	"outputPayloadToHeader", "outputClaimToHeaders", "forwardOriginalToken", "timeout", "spaceDelimitedClaims"}

func (i *istio) requestAuthentication(k istioObject, spec object, s scope) requestAuthentication {
	out := requestAuthentication{node: k.node, id: k.id, name: k.name, scope: s}
	for _, n := range spec.list("jwtRules") {
		o := i.object(n, jwtRuleFields...)
		out.split = append(out.split, plain(o.texts("spaceDelimitedClaims"))...)
		if r := i.jwtRule(o); r != nil {
			out.rules = append(out.rules, r)
		}
	}
	return out
}

// jwtRule returns a rule; nil if it is left over.
func (i *istio) jwtRule(o object) *policyv1.JwtRule {
	iss := o.text("issuer")
	rule := &policyv1.JwtRule{
		Audiences: plain(o.texts("audiences")), Expiration: policyv1.TimeCheck_IF_PRESENT,
		FromParams: locations(plain(o.texts("fromParams"))), FromCookies: locations(plain(o.texts("fromCookies"))),
		OutputPayloadToHeader: o.text("outputPayloadToHeader"), ForwardOriginalToken: o.flag("forwardOriginalToken", false),
	}
	for _, n := range o.list("fromHeaders") {
		h := i.object(n, "name", "prefix")
		rule.FromHeaders = append(rule.FromHeaders, &policyv1.TokenLocation{Name: h.need("name"), Prefix: h.text("prefix")})
	}
	usualLocations(rule)
	for _, n := range o.list("outputClaimToHeaders") {
		c := i.object(n, "header", "claim")
		rule.OutputClaims = append(rule.OutputClaims, &policyv1.OutputClaim{ClaimPath: strings.Split(c.need("claim"), "."), Header: c.need("header")})
	}
	issuer := i.issuer(o, iss)
	if issuer == nil {
		i.lostIssuer = true
		return nil
	}
	rule.Issuer = issuer.name
	if len(rule.GetAudiences()) == 0 {
		rule.AudienceCheck = policyv1.JwtRule_UNCHECKED
		i.warn(o.node, "%s", uncheckedAudience)
	}
	i.warn(o.node, "%sIF_PRESENT", endless)
	return rule
}

// issuer is the one of an iss, which has one set of keys here.
func (i *istio) issuer(o object, iss string) *istioIssuer {
	if iss == "" {
		i.leave(o.node, "the rule is left out: without an issuer its tokens can't be told from others', so that they are refused")
		return nil
	}
	if found := i.keysOf(o, iss); found != nil {
		return found
	}
	i.leave(o.node, "the rule is left out: tokens of %q are refused", clip(iss))
	return nil
}

func (i *istio) keysOf(o object, iss string) *istioIssuer {
	set := i.keySet(o, iss)
	if set == nil {
		return nil
	}
	if known := i.issuers[iss]; known != nil {
		if proto.Equal(known.spec.GetKeySet(), set) {
			return known
		}
		i.leave(o.node, "has other keys than the rule for %q in line %d; an Issuer has one key set", clip(iss), known.at.yaml.Line)
		return nil
	}
	wanted := strings.TrimPrefix(strings.TrimPrefix(iss, "https://"), "http://")
	known := &istioIssuer{name: i.name("Issuer", wanted, iss), spec: &policyv1.IssuerSpec{Issuer: iss, KeySet: set}, at: o.node}
	i.issuers[iss] = known
	return known
}

// keySet is what a rule says of keys; nil if it is left over.
func (i *istio) keySet(o object, iss string) *policyv1.KeySet {
	uri, field := o.text("jwksUri"), "jwksUri"
	if uri == "" {
		uri, field = o.text("jwks_uri"), "jwks_uri"
	}
	switch {
	case o.has("jwks"):
		text, at, ok := o.keySetText("jwks")
		if !ok {
			return nil
		}
		if uri != "" {
			i.warn(o.node, "has jwks and a URI of them; Istio takes jwks, and so does the import")
		}
		set, _ := i.jwks(at, text)
		return set
	case uri == "":
		i.leave(o.node, "has neither jwks nor jwksUri: Istio asks %q for its configuration; write the jwks_uri that stands there", clip(strings.TrimSuffix(iss, "/")+"/.well-known/openid-configuration"))
		return nil
	}
	return i.jwksURI(o, uri, field)
}

func (i *istio) jwksURI(o object, uri, field string) *policyv1.KeySet {
	at, _ := o.at(field)
	if !strings.HasPrefix(uri, "https://") && len(i.o.AllowNetworks) == 0 {
		i.leave(at, "keys are fetched by https; by http only from addresses that you allow: --allow-network with the range of %q", clip(uri))
		return nil
	}
	out := &policyv1.JwksUri{Uri: uri, AllowNetworks: i.o.AllowNetworks}
	if o.has("timeout") {
		d, err := time.ParseDuration(o.text("timeout"))
		if n, _ := o.at("timeout"); err != nil || d <= 0 {
			i.fault(n, "wants a duration such as \"5s\"")
		} else {
			out.Timeout = seconds(d)
		}
	}
	return &policyv1.KeySet{Source: &policyv1.KeySet_JwksUri{JwksUri: out}}
}

// about are the RequestAuthentications of a service, or with "" those of all.
func (i *istio) about(service string) []int {
	var out []int
	for n, r := range i.requests {
		if r.scope.all || (service != "" && r.scope.includes(service)) {
			out = append(out, n)
		}
	}
	return out
}

// authentication writes one policy for the mesh, and one for each group of
// services that more holds for.
func (i *istio) authentication() {
	mesh := i.about("")
	if len(mesh) > 0 {
		i.authenticationPolicy(mesh, nil)
	}
	for _, p := range i.rules {
		if p.scope.all && len(mesh) == 0 {
			i.warn(p.node, "is for all, but no RequestAuthentication is: a Service without an AuthenticationPolicy of its own takes tokens of Watchword's own issuer alone")
		}
	}
	type group struct {
		requests []int
		services []string
	}
	var groups []group
	for _, s := range i.services {
		requests := i.about(s)
		at := slices.IndexFunc(groups, func(g group) bool { return slices.Equal(g.requests, requests) })
		if at < 0 {
			at, groups = len(groups), append(groups, group{requests: requests})
		}
		groups[at].services = append(groups[at].services, s)
	}
	for _, g := range groups {
		switch {
		case len(g.requests) == 0 && i.unplaced:
			for _, s := range g.services {
				i.left = append(i.left, Note{Source: i.source(), Message: "a RequestAuthentication that is left out may be about the Service " + s + ": until you write an AuthenticationPolicy, it takes tokens of Watchword's own issuer alone"})
			}
		case len(g.requests) == 0:
			i.addAuthentication(i.name("AuthenticationPolicy", "without-token", ""), open(target(g.services)))
			for _, s := range g.services {
				i.warnings = append(i.warnings, Note{Source: i.source(), Message: "no RequestAuthentication is about the Service " + s + ": its requests need no token (mode OFF)"})
			}
		case !slices.Equal(g.requests, mesh):
			i.authenticationPolicy(g.requests, g.services)
		}
	}
	i.addIssuers()
}

func (i *istio) authenticationPolicy(requests []int, services []string) {
	named := i.requests[requests[0]]
	spec := &policyv1.AuthenticationPolicySpec{Mode: policyv1.AuthenticationPolicySpec_OPTIONAL}
	if len(services) > 0 {
		spec.Target = target(services)
	}
	for _, n := range requests {
		r := i.requests[n]
		if !r.scope.all && named.scope.all {
			named = r
		}
		for _, rule := range r.rules {
			if !slices.ContainsFunc(spec.JwtRules, func(o *policyv1.JwtRule) bool { return proto.Equal(o, rule) }) {
				spec.JwtRules = append(spec.JwtRules, rule)
			}
		}
	}
	if len(spec.GetJwtRules()) == 0 {
		i.leave(named.node, "no rule is left, so that there is no policy: what it is about takes tokens of Watchword's own issuer alone")
		return
	}
	i.addAuthentication(i.name("AuthenticationPolicy", named.name, named.id+strings.Join(services, ",")), spec)
	for _, r := range spec.GetJwtRules() {
		for _, issuer := range i.issuers {
			issuer.used = issuer.used || issuer.name == r.GetIssuer()
		}
	}
}

func (i *istio) addIssuers() {
	var used []*istioIssuer
	for _, issuer := range i.issuers {
		if issuer.used {
			used = append(used, issuer)
		}
	}
	slices.SortFunc(used, func(a, b *istioIssuer) int { return strings.Compare(a.name, b.name) })
	for _, issuer := range used {
		i.addIssuer(issuer.name, issuer.spec)
	}
}

// within are the RequestAuthentications that are about anything in a scope.
func (i *istio) within(s scope) []int {
	services := s.services
	if s.all {
		services = append([]string{""}, i.services...)
	}
	var requests []int
	for _, service := range services {
		requests = append(requests, i.about(service)...)
	}
	return requests
}

// split are the claims that Istio takes apart at blanks somewhere in a scope,
// and conditions here do not. (They do so with scope.)
func (i *istio) split(s scope) []string {
	out := []string{"permission"}
	for _, n := range i.within(s) {
		out = append(out, i.requests[n].split...)
	}
	return slices.DeleteFunc(out, func(claim string) bool { return claim == "scope" })
}

// accepted are the issuers, by iss, whose tokens are taken somewhere in a scope.
func (i *istio) accepted(s scope) []string {
	requests := i.within(s)
	var out []string
	for iss, issuer := range i.issuers {
		if slices.ContainsFunc(requests, func(n int) bool {
			return slices.ContainsFunc(i.requests[n].rules, func(r *policyv1.JwtRule) bool { return r.GetIssuer() == issuer.name })
		}) {
			out = append(out, iss)
		}
	}
	slices.Sort(out)
	return out
}
