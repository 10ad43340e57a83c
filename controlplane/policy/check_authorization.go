package policy

import (
	"fmt"
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
	there := c.arrivals(s.GetTarget())
	for i, r := range s.GetRules() {
		field := index("spec.rules", i)
		c.rule(field, r)
		if there != nil {
			c.reachable(field, r, there)
		}
	}
}

func (c *checker) rule(field string, r *policyv1.AuthorizationRule) {
	c.source(field+".from", r.GetFrom())
	c.operation(field+".to", r.GetTo())
	for i, w := range r.GetWhen() {
		at := index(field+".when", i)
		c.condition(at, w)
		if p := w.GetClaimPath(); len(p) == 1 && slices.Contains([]string{"iss", "sub"}, p[0]) {
			c.fault(at+".claimPath", "a subject means nothing without its issuer: use from.subjects or from.issuers")
		}
	}
}

func (c *checker) operation(field string, to *policyv1.Operation) {
	if to == nil {
		return
	}
	positive := len(to.GetHosts()) + len(to.GetPaths()) + len(to.GetMethods())
	if positive+len(to.GetNotHosts())+len(to.GetNotPaths())+len(to.GetNotMethods()) == 0 {
		c.fault(field, "is empty: leave it out to match every request")
	}
	c.requests(field, requestList{"hosts", to.GetHosts()}, requestList{"paths", to.GetPaths()}, requestList{"methods", to.GetMethods()})
	c.requests(field, requestList{"notHosts", to.GetNotHosts()}, requestList{"notPaths", to.GetNotPaths()}, requestList{"notMethods", to.GetNotMethods()})
	same := func(a, b string) bool { return a == b }
	c.notAll(field, "hosts", to.GetHosts(), to.GetNotHosts(), hostCovers)
	c.notAll(field, "methods", to.GetMethods(), to.GetNotMethods(), same)
	paths := to.GetPaths()
	if len(paths) == 0 {
		paths = []string{"/*"}
	}
	c.notAll(field, "paths", paths, to.GetNotPaths(), pathCovers)
}

// notAll refuses a list of which a not_ list leaves nothing.
func (c *checker) notAll(field, name string, list, not []string, covers func(a, b string) bool) {
	if len(not) > 0 && covered(list, not, covers) {
		c.fault(field, "can never match: %s excludes all of %s", "not"+strings.ToUpper(name[:1])+name[1:], name)
	}
}

func (c *checker) source(field string, from *policyv1.Source) {
	if from == nil {
		return
	}
	if positives(from)+len(from.GetNotServices())+len(from.GetNotIssuers())+len(from.GetNotSubjects())+len(from.GetNotConsumers()) == 0 {
		c.fault(field, "is empty: leave it out to match every request")
	}
	c.known(field+".services", KindService, from.GetServices())
	c.known(field+".issuers", KindIssuer, from.GetIssuers())
	c.subjects(field+".subjects", "issuers", from.GetSubjects())
	c.known(field+".consumers", KindConsumer, from.GetConsumers())
	c.known(field+".notServices", KindService, from.GetNotServices())
	c.known(field+".notIssuers", KindIssuer, from.GetNotIssuers())
	c.subjects(field+".notSubjects", "notIssuers", from.GetNotSubjects())
	c.known(field+".notConsumers", KindConsumer, from.GetNotConsumers())
	if positives(from) > 0 && excluded(from) {
		c.fault(field, "can never match: the not lists exclude everybody that it names")
	}
}

// positives counts what a source names.
func positives(from *policyv1.Source) int {
	return len(from.GetServices()) + len(from.GetIssuers()) + len(from.GetSubjects()) + len(from.GetConsumers())
}

// excluded says whether each entry of a source is in a not_ list.
func excluded(from *policyv1.Source) bool {
	within := func(list, not []string) bool {
		return !slices.ContainsFunc(list, func(s string) bool { return !slices.Contains(not, s) })
	}
	subject := func(s *policyv1.Subject) bool {
		return slices.Contains(from.GetNotIssuers(), s.GetIssuer()) || slices.ContainsFunc(from.GetNotSubjects(), func(n *policyv1.Subject) bool {
			return n.GetIssuer() == s.GetIssuer() && n.GetSubject() == s.GetSubject()
		})
	}
	return within(from.GetServices(), from.GetNotServices()) && within(from.GetIssuers(), from.GetNotIssuers()) &&
		within(from.GetConsumers(), from.GetNotConsumers()) &&
		!slices.ContainsFunc(from.GetSubjects(), func(s *policyv1.Subject) bool { return !subject(s) })
}

func (c *checker) subjects(field, issuers string, list []*policyv1.Subject) {
	for i, s := range list {
		at := index(field, i)
		if c.state.Issuer(s.GetIssuer()) == nil {
			c.fault(at+".issuer", "there is no Issuer %q", clip(s.GetIssuer()))
		}
		if s.GetSubject() == "" {
			c.fault(at+".subject", "is empty: list the issuer under from.%s to match any subject of it", issuers)
		}
	}
}

func (c *checker) condition(field string, w *policyv1.Condition) {
	c.claimPath(field+".claimPath", w.GetClaimPath())
	exists := w.GetOp() == policyv1.Condition_EXISTS || w.GetOp() == policyv1.Condition_NOT_EXISTS
	if exists && len(w.GetValues()) > 0 {
		c.fault(field+".values", "%s takes no values", w.GetOp())
	}
	if !exists && len(w.GetValues()) == 0 {
		c.fault(field+".values", "is empty: give what the claim may be, or use op EXISTS")
	}
}

// arrivals are the callers that arrive anywhere in a target.
type arrivals struct {
	// What the policies there tell callers by.
	policies []*callers
	// Services that take the tokens of those that sign for themselves.
	selfIssued map[string]bool
}

// arrivals returns nil if the target holds no service yet, so that there is
// nothing to compare with.
func (c *checker) arrivals(t *policyv1.Target) *arrivals {
	services := t.GetServices()
	if len(services) == 0 {
		services = c.services
	}
	var out *arrivals
	for _, name := range services {
		spec := c.state.Service(name)
		if spec == nil {
			continue
		}
		for _, route := range routeNames(spec) {
			if Match(t, name, route) == LevelNone {
				continue
			}
			if out == nil {
				out = &arrivals{selfIssued: map[string]bool{}}
			}
			told := c.callersAt(name, route)
			if !slices.Contains(out.policies, told) {
				out.policies = append(out.policies, told)
			}
			out.selfIssued[name] = out.selfIssued[name] || told.selfIssued
		}
	}
	return out
}

func (a *arrivals) any(told func(*callers) bool) bool { return slices.ContainsFunc(a.policies, told) }

// issuer says whether tokens of an issuer are accepted.
func (a *arrivals) issuer(name string) bool {
	return a.any(func(c *callers) bool { return c.issuers[name] })
}

// consumer says whether a consumer can be told.
func (a *arrivals) consumer(name string) bool {
	return a.any(func(c *callers) bool { return c.consumers[name] })
}

// service says whether a service can get there, by a token of the built-in
// issuer or by one of its own.
func (a *arrivals) service(spec *policyv1.ServiceSpec) bool {
	return a.issuer(BuiltinIssuer) || (spec.GetSelfIssued() != nil && slices.ContainsFunc(spec.GetCalls(), func(call *policyv1.Call) bool {
		return a.selfIssued[call.GetService()]
	}))
}

// reachable refuses a rule about callers that can't get that far.
func (c *checker) reachable(field string, r *policyv1.AuthorizationRule, there *arrivals) {
	from := r.GetFrom()
	if positives(from) == 0 && len(r.GetWhen()) == 0 {
		return
	}
	missing, all := c.strangers(from, there)
	guests := slices.ContainsFunc(from.GetConsumers(), there.consumer)
	switch {
	case !there.any(func(c *callers) bool { return c.tokens }) && !guests:
		c.fault(field, "can never match: no token is looked at there (authentication is OFF)")
	case all && positives(from) > 0:
		c.fault(field+".from", "can never match: the authentication there accepts no tokens of %s", strings.Join(missing, ", "))
	}
}

// strangers names whom of a source the authentication there can't tell; all says
// that this is everybody. What does not exist is a fault of its own.
func (c *checker) strangers(from *policyv1.Source, there *arrivals) (missing []string, all bool) {
	all = true
	note := func(reached bool, name string) {
		if all = all && !reached; !reached && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
	}
	issuer := func(name string) { note(there.issuer(name) || c.state.Issuer(name) == nil, name) }
	for _, name := range from.GetServices() {
		spec := c.state.Service(name)
		note(spec == nil || there.service(spec), BuiltinIssuer)
	}
	for _, name := range from.GetIssuers() {
		issuer(name)
	}
	for _, s := range from.GetSubjects() {
		issuer(s.GetIssuer())
	}
	for _, name := range from.GetConsumers() {
		note(there.consumer(name) || c.state.Consumer(name) == nil, fmt.Sprintf("Consumer %q", name))
	}
	slices.Sort(missing)
	return missing, all
}
