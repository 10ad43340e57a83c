package compile

import (
	"slices"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// Affected returns the services whose rulesets may differ after a change of
// the given resources, in order: what a change costs is what it touches. uses
// says which issuers' names a service's last ruleset depends on; a change of a
// service itself or of a policy is found in the two states.
func Affected(before, after policy.State, changed []policy.Key, uses func(service, issuer string) bool) []string {
	touched := map[string]bool{}
	for _, k := range changed {
		switch k.Kind {
		case policy.KindService:
			touched[k.Name] = true
		case policy.KindIssuer:
			for _, s := range after.Services() {
				if uses(s, k.Name) {
					touched[s] = true
				}
			}
		default:
			targeted(touched, before, k, after)
			targeted(touched, after, k, after)
		}
	}
	var out []string
	for s := range touched {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// targeted adds the services that policy k targets in one of the states.
func targeted(touched map[string]bool, in policy.State, k policy.Key, after policy.State) {
	r := in[k]
	if r == nil {
		return
	}
	target := r.GetAuthenticationPolicy().GetTarget()
	if k.Kind == policy.KindAuthorizationPolicy {
		target = r.GetAuthorizationPolicy().GetTarget()
	}
	services := target.GetServices()
	if len(services) == 0 {
		services = after.Services()
	}
	for _, s := range services {
		touched[s] = true
	}
}

// Uses says whether a ruleset depends on an issuer: by its keys, or by its
// `iss` in an authorization rule or as the one that signs for services.
func Uses(rs *dataplanev1.Ruleset, name, iss string) bool {
	if rs.GetOwnSubjects().GetIssuer() == iss {
		return true
	}
	named := func(r *dataplanev1.AuthorizationRule) bool {
		return slices.ContainsFunc(r.GetFrom(), func(p *dataplanev1.Principal) bool { return p.GetIssuer() == iss })
	}
	for _, i := range rs.GetIssuers() {
		if i.GetName() == name {
			return true
		}
	}
	for _, r := range rs.GetRoutes() {
		if slices.ContainsFunc(r.GetAuthorization().GetDeny(), named) || slices.ContainsFunc(r.GetAuthorization().GetAllow(), named) {
			return true
		}
	}
	return false
}
