package compile

import (
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Affected returns the services whose rulesets, or outbound sides, may differ after
// a change of the given resources, in order: what a change costs is what it
// touches. uses says which issuers a service's last ruleset depends on; a change of
// anything else is found in the two states. All outbound sides depend on the keys of
// the built-in issuer.
func Affected(before, after policy.State, changed []policy.Key, uses func(service, issuer string) bool) []string {
	t := &touched{after: after, services: map[string]bool{}}
	for _, k := range changed {
		switch k.Kind {
		case policy.KindIssuer:
			for _, s := range after.Services() {
				if k.Name == policy.BuiltinIssuer || uses(s, k.Name) {
					t.services[s] = true
				}
			}
		case policy.KindConsumer:
			t.consumer(k.Name, before.Consumer(k.Name), after.Consumer(k.Name))
		case policy.KindService:
			t.services[k.Name] = true
			t.selfIssuing(k.Name, before.Service(k.Name), after.Service(k.Name))
			t.called(k.Name, before.Service(k.Name), after.Service(k.Name))
		case policy.KindRoleBinding: // of no concern to data planes
		default:
			t.target(target(before[k]))
			t.target(target(after[k]))
		}
	}
	var out []string
	for s := range t.services {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// touched gathers services. Where policies are looked at, those of the state
// after the change are enough: one that is another now is in the change itself.
type touched struct {
	after    policy.State
	services map[string]bool
	// callers of each service, once somebody asks.
	callers map[string][]string
}

// target adds the services of a target; nil adds none.
func (t *touched) target(target *policyv1.Target) {
	switch {
	case target == nil:
	case len(target.GetServices()) == 0:
		for _, s := range t.after.Services() {
			t.services[s] = true
		}
	default:
		for _, s := range target.GetServices() {
			t.services[s] = true
		}
	}
}

// target returns what a policy targets, never nil if there is one.
func target(r *policyv1.Resource) *policyv1.Target {
	var t *policyv1.Target
	switch spec := r.GetSpec().(type) {
	case *policyv1.Resource_AuthenticationPolicy:
		t = spec.AuthenticationPolicy.GetTarget()
	case *policyv1.Resource_AuthorizationPolicy:
		t = spec.AuthorizationPolicy.GetTarget()
	default:
		return nil
	}
	if t == nil {
		t = &policyv1.Target{}
	}
	return t
}

// consumer adds the services with a policy that is about a consumer, as it was or
// as it is.
func (t *touched) consumer(name string, versions ...*policyv1.ConsumerSpec) {
	for _, r := range t.after {
		if concerns(r, name, versions) {
			t.target(target(r))
		}
	}
	// Without a policy, tokens of the built-in issuer are taken everywhere.
	if slices.ContainsFunc(versions, func(v *policyv1.ConsumerSpec) bool { return v.GetMatch().GetIssuer() == policy.BuiltinIssuer }) {
		t.target(&policyv1.Target{})
	}
}

func concerns(r *policyv1.Resource, name string, versions []*policyv1.ConsumerSpec) bool {
	authentication := r.GetAuthenticationPolicy()
	if authentication.GetAnonymousConsumer() == name {
		return true
	}
	for _, rule := range authentication.GetJwtRules() {
		for _, v := range versions {
			if v == nil {
				continue
			}
			matched := rule.GetIssuer() != "" && v.GetMatch().GetIssuer() == rule.GetIssuer()
			if matched || policy.Selects(rule.GetConsumers(), name, v.GetTags()) {
				return true
			}
		}
	}
	return slices.ContainsFunc(r.GetAuthorizationPolicy().GetRules(), func(rule *policyv1.AuthorizationRule) bool {
		from := rule.GetFrom()
		return slices.Contains(from.GetConsumers(), name) || slices.Contains(from.GetNotConsumers(), name)
	})
}

// selfIssuing adds the services that depend on the keys of one, as it was or as
// it is: those that it calls, and those with a policy that names it as a caller.
func (t *touched) selfIssuing(name string, was, is *policyv1.ServiceSpec) {
	if was.GetSelfIssued() == nil && is.GetSelfIssued() == nil {
		return
	}
	for _, spec := range []*policyv1.ServiceSpec{was, is} {
		for _, call := range spec.GetCalls() {
			t.services[call.GetService()] = true
		}
	}
	if (was.GetSelfIssued() == nil) == (is.GetSelfIssued() == nil) {
		return
	}
	for _, r := range t.after {
		names := func(rule *policyv1.AuthorizationRule) bool {
			from := rule.GetFrom()
			return slices.Contains(from.GetServices(), name) || slices.Contains(from.GetNotServices(), name)
		}
		if slices.ContainsFunc(r.GetAuthorizationPolicy().GetRules(), names) {
			t.target(target(r))
		}
	}
}

// called adds the services that call one, if what they go by differs.
func (t *touched) called(name string, was, is *policyv1.ServiceSpec) {
	if (was == nil) == (is == nil) && (was == nil || proto.Equal(callee(name, was, meshSubject), callee(name, is, meshSubject))) {
		return
	}
	if t.callers == nil {
		t.callers = map[string][]string{}
		for k, r := range t.after {
			for _, call := range r.GetService().GetCalls() {
				t.callers[call.GetService()] = append(t.callers[call.GetService()], k.Name)
			}
		}
	}
	for _, s := range t.callers[name] {
		t.services[s] = true
	}
}

// meshSubject stands for the subject of any service: it differs only with the trust
// domain, which no change of a Service is.
func meshSubject(service string) string { return service }

// Uses says whether a ruleset depends on an issuer: by its keys, or as the one
// that signs for services, or because a rule is about its tokens.
func Uses(rs *dataplanev1.Ruleset, name, iss string) bool {
	if rs.GetOwnSubjects().GetIssuer() == iss {
		return true
	}
	principal := func(p *dataplanev1.Principal) bool { return p.GetIssuer() == name }
	named := func(r *dataplanev1.AuthorizationRule) bool {
		return slices.ContainsFunc(r.GetFrom(), principal) || slices.ContainsFunc(r.GetNotFrom(), principal)
	}
	for _, i := range rs.GetIssuers() {
		if i.GetName() == name {
			return true
		}
	}
	for _, r := range rs.GetRoutes() {
		for _, a := range []*dataplanev1.Authorization{r.GetAuthorization(), r.GetObservedAuthorization()} {
			if slices.ContainsFunc(a.GetDeny(), named) || slices.ContainsFunc(a.GetAllow(), named) {
				return true
			}
		}
	}
	return false
}
