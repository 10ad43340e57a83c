package policy

import (
	"slices"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// callerIndex says who is a caller by what. All lists are sorted.
type callerIndex struct {
	// Consumers that have credentials, with their tags.
	signing []string
	tags    map[string][]string
	// Consumers by the Issuer that they match tokens of.
	matching map[string][]string
	// Services that sign for themselves by those that they call.
	selfIssuing map[string][]string
}

func newCallerIndex(s State) callerIndex {
	x := callerIndex{tags: map[string][]string{}, matching: map[string][]string{}, selfIssuing: map[string][]string{}}
	for k, r := range s {
		if c := r.GetConsumer(); k.Kind == KindConsumer && len(c.GetCredentials()) > 0 {
			x.signing = append(x.signing, k.Name)
			x.tags[k.Name] = c.GetTags()
		}
		if issuer := r.GetConsumer().GetMatch().GetIssuer(); issuer != "" {
			x.matching[issuer] = append(x.matching[issuer], k.Name)
		}
		if r.GetService().GetSelfIssued() == nil {
			continue
		}
		for _, call := range r.GetService().GetCalls() {
			x.selfIssuing[call.GetService()] = append(x.selfIssuing[call.GetService()], k.Name)
		}
	}
	slices.Sort(x.signing)
	for _, lists := range []map[string][]string{x.matching, x.selfIssuing} {
		for k := range lists {
			slices.Sort(lists[k])
			lists[k] = slices.Compact(lists[k])
		}
	}
	return x
}

// Selected returns the names of the Consumers that a selector selects, in order:
// only those that have credentials.
func (x *callerIndex) Selected(by *policyv1.ConsumerSelector) []string {
	candidates := x.signing
	if len(by.GetNames()) > 0 {
		candidates = slices.Compact(slices.Sorted(slices.Values(by.GetNames())))
	}
	var out []string
	for _, name := range candidates {
		if tags, signs := x.tags[name]; signs && Selects(by, name, tags) {
			out = append(out, name)
		}
	}
	return out
}

// Selects says whether a selector is about a Consumer with these tags, if that
// has credentials.
func Selects(by *policyv1.ConsumerSelector, name string, tags []string) bool {
	switch {
	case by == nil:
		return false
	case len(by.GetNames()) > 0:
		return slices.Contains(by.GetNames(), name)
	case len(by.GetMatchTags()) > 0:
		return !slices.ContainsFunc(by.GetMatchTags(), func(t string) bool { return !slices.Contains(tags, t) })
	}
	return by.GetAll()
}

// Matching returns the names of the Consumers that tokens of an Issuer may be
// of, in order.
func (x *callerIndex) Matching(issuer string) []string { return x.matching[issuer] }

// SelfIssuing returns the names of the Services that sign for themselves and
// call a service, in order.
func (x *callerIndex) SelfIssuing(callee string) []string { return x.selfIssuing[callee] }

// callers are those that an authentication policy can tell, on any route that it
// holds for.
type callers struct {
	// Whether tokens are looked at, and those that services sign themselves.
	tokens, selfIssued bool
	issuers, consumers map[string]bool
}

// callersAt returns the callers that can be told on a route. It is asked for the
// same routes again and again.
func (c *checker) callersAt(service, route string) *callers {
	at := place{service: service, route: route}
	if c.arriving[at] == nil {
		c.arriving[at] = c.callersOf(c.policies.effective(service, route))
	}
	return c.arriving[at]
}

// callersOf is about one policy; its name is empty where none holds.
func (c *checker) callersOf(p AuthenticationPolicy) *callers {
	if known := c.told[p.Name]; known != nil {
		return known
	}
	out := &callers{issuers: map[string]bool{}, consumers: map[string]bool{}}
	rules := p.Spec.GetJwtRules()
	if p.Name == "" {
		rules = []*policyv1.JwtRule{{Issuer: BuiltinIssuer}}
	}
	for _, r := range rules {
		out.tokens = true
		out.selfIssued = out.selfIssued || r.GetServices() != nil
		names := c.policies.Selected(r.GetConsumers())
		if r.GetIssuer() != "" {
			out.issuers[r.GetIssuer()] = true
			names = append(names, c.policies.Matching(r.GetIssuer())...)
		}
		for _, name := range names {
			out.consumers[name] = true
		}
	}
	if name := p.Spec.GetAnonymousConsumer(); name != "" {
		out.consumers[name] = true
	}
	c.told[p.Name] = out
	return out
}

// effective returns the policy that names the callers of a route: the enforced
// one, else the observed one.
func (p *Policies) effective(service, route string) AuthenticationPolicy {
	enforced, observed := p.AuthenticationFor(service, route)
	if enforced.Name == "" {
		return observed
	}
	return enforced
}
