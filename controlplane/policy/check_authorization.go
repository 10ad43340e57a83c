package policy

import (
	"slices"
	"strings"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

func (c *checker) authorization(s *policyv1.AuthorizationPolicySpec) {
	c.target(s.GetTarget())
	if s.GetAction() == policyv1.AuthorizationPolicySpec_ACTION_UNSPECIFIED {
		c.fault("spec.action", "is missing: ALLOW or DENY")
	}
	if s.GetAction() == policyv1.AuthorizationPolicySpec_DENY && len(s.GetRules()) == 0 {
		c.fault("spec.rules", "can never match: a DENY without rules denies nothing")
	}
	accepted, known := c.acceptedIssuers(s.GetTarget())
	for i, r := range s.GetRules() {
		field := index("spec.rules", i)
		c.rule(field, r)
		if known {
			c.reachable(field, r, accepted)
		}
	}
}

func (c *checker) rule(field string, r *policyv1.AuthorizationRule) {
	c.source(field+".from", r.GetFrom())
	to := r.GetTo()
	if to != nil && len(to.GetHosts())+len(to.GetPaths())+len(to.GetMethods()) == 0 {
		c.fault(field+".to", "is empty: leave it out to match every request")
	}
	c.requests(field+".to", to.GetHosts(), to.GetPaths(), to.GetMethods())
	for i, w := range r.GetWhen() {
		c.condition(index(field+".when", i), w)
	}
}

func (c *checker) source(field string, from *policyv1.Source) {
	if from == nil {
		return
	}
	if len(from.GetServices())+len(from.GetIssuers())+len(from.GetSubjects()) == 0 {
		c.fault(field, "is empty: leave it out to match every request")
	}
	c.known(field+".services", KindService, from.GetServices())
	c.known(field+".issuers", KindIssuer, from.GetIssuers())
	for i, s := range from.GetSubjects() {
		at := index(field+".subjects", i)
		if c.state.Issuer(s.GetIssuer()) == nil {
			c.fault(at+".issuer", "there is no Issuer %q", clip(s.GetIssuer()))
		}
		if s.GetSubject() == "" {
			c.fault(at+".subject", "is empty: list the issuer under from.issuers to match any subject of it")
		}
	}
}

func (c *checker) condition(field string, w *policyv1.Condition) {
	c.claimPath(field+".claimPath", w.GetClaimPath())
	if len(w.GetClaimPath()) == 1 && slices.Contains([]string{"iss", "sub"}, w.GetClaimPath()[0]) {
		c.fault(field+".claimPath", "a subject means nothing without its issuer: use from.subjects or from.issuers")
	}
	exists := w.GetOp() == policyv1.Condition_EXISTS
	if exists && len(w.GetValues()) > 0 {
		c.fault(field+".values", "EXISTS takes no values")
	}
	if !exists && len(w.GetValues()) == 0 {
		c.fault(field+".values", "is empty: give what the claim may be, or use op EXISTS")
	}
}

// acceptedIssuers returns the names of the issuers whose tokens are accepted
// anywhere in a target; known is false if the target holds no service yet, so
// that there is nothing to compare with.
func (c *checker) acceptedIssuers(t *policyv1.Target) (accepted map[string]bool, known bool) {
	accepted = map[string]bool{}
	services := t.GetServices()
	if len(services) == 0 {
		services = c.services
	}
	for _, name := range services {
		spec := c.state.Service(name)
		if spec == nil {
			continue
		}
		for _, route := range routeNames(spec) {
			if Match(t, name, route) == LevelNone {
				continue
			}
			known = true
			for _, issuer := range c.issuersAt(name, route) {
				accepted[issuer] = true
			}
		}
	}
	return accepted, known
}

// issuersAt returns the issuers whose tokens a route accepts. It is asked for
// the same routes again and again.
func (c *checker) issuersAt(service, route string) []string {
	place := [2]string{service, route}
	if issuers, known := c.accepted[place]; known {
		return issuers
	}
	var issuers []string
	name, spec := c.policies.AuthenticationFor(service, route)
	if name == "" {
		issuers = []string{BuiltinIssuer}
	}
	for _, r := range spec.GetJwtRules() {
		issuers = append(issuers, r.GetIssuer())
	}
	c.accepted[place] = issuers
	return issuers
}

// reachable refuses a rule about callers that can't get that far.
func (c *checker) reachable(field string, r *policyv1.AuthorizationRule, accepted map[string]bool) {
	if r.GetFrom() == nil && len(r.GetWhen()) == 0 {
		return
	}
	names := slices.Clone(r.GetFrom().GetIssuers())
	for _, s := range r.GetFrom().GetSubjects() {
		names = append(names, s.GetIssuer())
	}
	if len(r.GetFrom().GetServices()) > 0 {
		names = append(names, BuiltinIssuer)
	}
	reach := func(name string) bool { return accepted[name] || c.state.Issuer(name) == nil }
	switch {
	case len(accepted) == 0:
		c.fault(field, "can never match: no token is looked at there (authentication is OFF)")
	case len(names) > 0 && !slices.ContainsFunc(names, reach):
		c.fault(field+".from", "can never match: the authentication there accepts no tokens of %s", strings.Join(slices.Compact(slices.Sorted(slices.Values(names))), ", "))
	}
}
