package policy

import (
	"slices"

	"google.golang.org/protobuf/proto"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

func (c *checker) authentication(s *policyv1.AuthenticationPolicySpec) {
	c.target(s.GetTarget())
	c.onlyTarget(s)
	c.mode(s)
	c.anonymous(s)
	taken := tokenPlaces(s)
	c.consumerHeaders(s.GetConsumerHeaders(), taken)
	for i, r := range s.GetJwtRules() {
		field := index("spec.jwtRules", i)
		c.jwtRule(field, r, s.GetTarget())
		c.outputs(field, r, taken)
		if j := slices.IndexFunc(s.GetJwtRules()[:i], func(e *policyv1.JwtRule) bool { return shadows(e, r) }); j >= 0 {
			c.fault(field, "can never win: %s before it accepts the same tokens from the same places", index("jwtRules", j))
		}
	}
	c.elsewhere(s)
	c.responses(s.GetResponses())
	c.scripts(s)
	c.endStreams(s)
}

func (c *checker) mode(s *policyv1.AuthenticationPolicySpec) {
	off := s.GetMode() == policyv1.AuthenticationPolicySpec_OFF
	if off && len(s.GetJwtRules()) > 0 {
		c.fault("spec.jwtRules", "can never match: with mode OFF tokens are not looked at")
	}
	if !off && len(s.GetJwtRules()) == 0 {
		c.fault("spec.jwtRules", "is empty: no token could verify. Name an issuer, consumers or services, or set mode OFF")
	}
	if off && s.GetEnforcement() == policyv1.Enforcement_OBSERVE {
		c.fault("spec.enforcement", "OBSERVE with mode OFF has nothing to observe: set another mode, or ENFORCE to switch authentication off")
	}
}

// anonymous checks the consumer of requests that no token names a caller of.
func (c *checker) anonymous(s *policyv1.AuthenticationPolicySpec) {
	name := s.GetAnonymousConsumer()
	if name == "" {
		return
	}
	if c.state.Consumer(name) == nil {
		c.fault("spec.anonymousConsumer", "there is no Consumer %q", clip(name))
	}
	switch s.GetMode() {
	case policyv1.AuthenticationPolicySpec_OPTIONAL, policyv1.AuthenticationPolicySpec_PERMISSIVE:
	default:
		c.fault("spec.anonymousConsumer", "needs mode OPTIONAL or PERMISSIVE: no other lets a request in without a caller")
	}
}

// onlyTarget refuses two policies of one enforcement for one place: which of
// them would hold?
func (c *checker) onlyTarget(spec *policyv1.AuthenticationPolicySpec) {
	services, routes := spec.GetTarget().GetServices(), spec.GetTarget().GetRoutes()
	if len(services) == 0 {
		services = []string{""}
	}
	if len(routes) == 0 {
		routes = []string{""}
	}
	what := "hold"
	if spec.GetEnforcement() == policyv1.Enforcement_OBSERVE {
		what = "be observed"
	}
	for _, s := range services {
		for _, r := range routes {
			at := place{spec.GetEnforcement() == policyv1.Enforcement_OBSERVE, s, r}
			if other := c.targets[at]; other != "" && other != c.key.Name {
				c.fault("spec.target", "AuthenticationPolicy %q has the same target (%s); only one can %s there", other, describeTarget(s, r), what)
				return
			}
			c.targets[at] = c.key.Name
		}
	}
}

func describeTarget(service, route string) string {
	switch {
	case service == "":
		return "the whole mesh"
	case route == "":
		return "service " + service
	}
	return "route " + route + " of service " + service
}

// shadows says whether every token that b could verify is verified by a.
func shadows(a, b *policyv1.JwtRule) bool {
	if a.GetIssuer() != b.GetIssuer() || (a.GetServices() == nil) != (b.GetServices() == nil) || !selectsAll(a.GetConsumers(), b.GetConsumers()) {
		return false
	}
	if !proto.Equal(timesOf(a), timesOf(b)) || !slices.Equal(sorted(a.GetRequiredClaims()), sorted(b.GetRequiredClaims())) {
		return false
	}
	// A rule with more places than another refuses what is found in those.
	return wider(a, b) && slices.Equal(places(a), places(b))
}

// selectsAll says whether a selects every consumer that b does.
func selectsAll(a, b *policyv1.ConsumerSelector) bool {
	return proto.Equal(a, b) || (a.GetAll() && b != nil)
}

// timesOf is what of a rule decides how it finds a key and looks at times,
// defaults filled in.
func timesOf(r *policyv1.JwtRule) *policyv1.JwtRule {
	times := &policyv1.JwtRule{
		MaxLifetime: r.GetMaxLifetime(), ClockSkew: r.GetClockSkew(), KeyClaim: r.GetKeyClaim(),
		Expiration: r.GetExpiration(), NotBefore: r.GetNotBefore(),
	}
	if times.Expiration == policyv1.TimeCheck_TIME_CHECK_UNSPECIFIED {
		times.Expiration = policyv1.TimeCheck_REQUIRED
	}
	if times.NotBefore == policyv1.TimeCheck_TIME_CHECK_UNSPECIFIED {
		times.NotBefore = policyv1.TimeCheck_IF_PRESENT
	}
	return times
}

// wider says whether a takes every audience that b does. One without audiences
// takes the service's own.
func wider(a, b *policyv1.JwtRule) bool {
	const unchecked = policyv1.JwtRule_UNCHECKED
	switch {
	case a.GetAudienceCheck() == unchecked:
		return true
	case b.GetAudienceCheck() == unchecked:
		return false
	case len(a.GetAudiences()) == 0:
		return true
	}
	return len(b.GetAudiences()) > 0 && !slices.ContainsFunc(b.GetAudiences(), func(s string) bool { return !slices.Contains(a.GetAudiences(), s) })
}

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }
