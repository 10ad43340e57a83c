package policy

import (
	"slices"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// ByEnvoy says whether Envoys enforce the policies of a service.
func ByEnvoy(s *policyv1.ServiceSpec) bool {
	return len(s.GetDataPlanes()) == 0 || slices.Contains(s.GetDataPlanes(), policyv1.ServiceSpec_ENVOY)
}

// need is what Envoy can do by a script only.
type need struct{ field, what string }

// scripts refuses what an Envoy that it is for can't do without Lua.
func (c *checker) scripts(s *policyv1.AuthenticationPolicySpec) {
	if s.GetAllowScripts() {
		return
	}
	var needs []need
	for i, r := range s.GetJwtRules() {
		needs = append(needs, scriptNeeds(index("spec.jwtRules", i), r)...)
	}
	if len(needs) == 0 {
		return
	}
	service := c.state.envoyUnder(c.policies, c.key.Name, s)
	if service == "" {
		return
	}
	for _, n := range needs {
		c.fault(n.field, "%s: the Envoy of Service %q can do that by a script only: set allowScripts: true here, or dataPlanes: [GO] there", n.what, service)
	}
}

// endStreams refuses what no Envoy can do, with or without scripts, and what would
// never happen.
func (c *checker) endStreams(s *policyv1.AuthenticationPolicySpec) {
	if !s.GetEndStreams() {
		return
	}
	if s.GetMode() == policyv1.AuthenticationPolicySpec_OFF {
		c.fault("spec.endStreams", "has no effect: with mode OFF no token opens a stream")
		return
	}
	if service := c.state.envoyUnder(c.policies, c.key.Name, s); service != "" {
		c.fault("spec.endStreams", "the Envoy of Service %q can't end what it has let in: leave it out here, or set dataPlanes: [GO] there", service)
	}
}

func scriptNeeds(field string, r *policyv1.JwtRule) []need {
	var out []need
	if len(r.GetFromForm()) > 0 {
		out = append(out, need{field + ".fromForm", "a token in a form"})
	}
	for i, l := range r.GetFromParams() {
		if l.GetPrefix() != "" {
			out = append(out, need{index(field+".fromParams", i) + ".prefix", "a prefix in a query parameter"})
		}
	}
	for i, l := range r.GetFromCookies() {
		if l.GetPrefix() != "" {
			out = append(out, need{index(field+".fromCookies", i) + ".prefix", "a prefix in a cookie"})
		}
	}
	for i, o := range r.GetOutputClaims() {
		switch at := index(field+".outputClaims", i); {
		case o.GetCookie() != "":
			out = append(out, need{at + ".cookie", "a claim in a cookie"})
		case o.GetForm() != "":
			out = append(out, need{at + ".form", "a claim in a form"})
		}
	}
	return out
}

// envoyUnder returns a service with Envoys where an authentication policy holds,
// enforced or observed; "" if there is none.
func (s State) envoyUnder(policies *Policies, name string, spec *policyv1.AuthenticationPolicySpec) string {
	services := spec.GetTarget().GetServices()
	if len(services) == 0 {
		services = s.Services()
	}
	for _, service := range services {
		found := s.Service(service)
		if found == nil || !ByEnvoy(found) {
			continue
		}
		for _, route := range routeNames(found) {
			if enforced, observed := policies.AuthenticationFor(service, route); enforced.Name == name || observed.Name == name {
				return service
			}
		}
	}
	return ""
}
