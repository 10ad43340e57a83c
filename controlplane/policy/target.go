package policy

import (
	"slices"
	"strings"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Level says how specific a target is; a higher one wins.
type Level int

// The levels of a target.
const (
	LevelNone Level = iota
	LevelMesh
	LevelService
	LevelRoute
)

// Match returns at which level a target holds for a route of a service. The
// rest of a service, which none of its routes match, has the route "".
func Match(t *policyv1.Target, service, route string) Level {
	switch {
	case len(t.GetServices()) == 0:
		return LevelMesh
	case !slices.Contains(t.GetServices(), service):
		return LevelNone
	case len(t.GetRoutes()) == 0:
		return LevelService
	case slices.Contains(t.GetRoutes(), route):
		return LevelRoute
	}
	return LevelNone
}

// Policies are the policies of a State by the services that they target, to
// look up what holds for many routes; and who is a caller by what.
type Policies struct {
	authentication targeted[*policyv1.AuthenticationPolicySpec]
	authorization  targeted[*policyv1.AuthorizationPolicySpec]
	callerIndex
}

// targeted are policies of one kind, each list by name.
type targeted[S interface{ GetTarget() *policyv1.Target }] struct {
	mesh      []named[S]
	byService map[string][]named[S]
}

type named[S any] struct {
	name string
	spec S
}

func (t *targeted[S]) add(name string, spec S) {
	services := spec.GetTarget().GetServices()
	if len(services) == 0 {
		t.mesh = append(t.mesh, named[S]{name, spec})
	}
	for _, s := range services {
		t.byService[s] = append(t.byService[s], named[S]{name, spec})
	}
}

// about calls with each policy that is about a service, those of the mesh
// first.
func (t *targeted[S]) about(service string, with func(named[S])) {
	for _, p := range t.mesh {
		with(p)
	}
	for _, p := range t.byService[service] {
		with(p)
	}
}

// Policies returns the policies of the state. It is worth keeping while the
// state is looked at.
func (s State) Policies() *Policies {
	p := &Policies{callerIndex: newCallerIndex(s)}
	p.authentication.byService = map[string][]named[*policyv1.AuthenticationPolicySpec]{}
	p.authorization.byService = map[string][]named[*policyv1.AuthorizationPolicySpec]{}
	for _, k := range s.keysOf(KindAuthenticationPolicy) {
		p.authentication.add(k.Name, s[k].GetAuthenticationPolicy())
	}
	for _, k := range s.keysOf(KindAuthorizationPolicy) {
		p.authorization.add(k.Name, s[k].GetAuthorizationPolicy())
	}
	return p
}

// keysOf returns the keys of one kind in order.
func (s State) keysOf(kind Kind) []Key {
	var keys []Key
	for k := range s {
		if k.Kind == kind {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, Key.Compare)
	return keys
}

// AuthenticationPolicy is one that holds for a route. Where none does, Name is
// empty and Spec nil.
type AuthenticationPolicy struct {
	Name string
	Spec *policyv1.AuthenticationPolicySpec
}

// AuthenticationFor returns what holds for a route: of the policies that are
// enforced the most specific, and of those that are observed too, if no enforced
// one is more specific. Of two at one level, which Check refuses, it is the
// first by name.
func (p *Policies) AuthenticationFor(service, route string) (enforced, observed AuthenticationPolicy) {
	var best, bestObserved Level
	p.authentication.about(service, func(n named[*policyv1.AuthenticationPolicySpec]) {
		l := Match(n.spec.GetTarget(), service, route)
		switch {
		case n.spec.GetEnforcement() == policyv1.Enforcement_OBSERVE && l > bestObserved:
			bestObserved, observed = l, AuthenticationPolicy{n.name, n.spec}
		case n.spec.GetEnforcement() != policyv1.Enforcement_OBSERVE && l > best:
			best, enforced = l, AuthenticationPolicy{n.name, n.spec}
		}
	})
	if best > bestObserved {
		observed = AuthenticationPolicy{}
	}
	return enforced, observed
}

// AuthorizationPolicy is one that holds for a route.
type AuthorizationPolicy struct {
	Name string
	Spec *policyv1.AuthorizationPolicySpec
}

// Authorization is what holds for a route, by name: every DENY, and the ALLOWs
// of the most specific level that has one. Restricted says that there is one.
type Authorization struct {
	Deny, Allow []AuthorizationPolicy
	Restricted  bool
}

// AuthorizationFor returns what is enforced on a route; and what would be if the
// policies that are observed were enforced too, nil if they make no difference.
func (p *Policies) AuthorizationFor(service, route string) (enforced Authorization, observed *Authorization) {
	var all []AuthorizationPolicy
	p.authorization.about(service, func(n named[*policyv1.AuthorizationPolicySpec]) {
		if Match(n.spec.GetTarget(), service, route) != LevelNone {
			all = append(all, AuthorizationPolicy{n.name, n.spec})
		}
	})
	// Those of the mesh and those of the service are each in order.
	slices.SortFunc(all, func(a, b AuthorizationPolicy) int { return strings.Compare(a.Name, b.Name) })
	seen := func(a AuthorizationPolicy) bool { return a.Spec.GetEnforcement() == policyv1.Enforcement_OBSERVE }
	whole := authorizationOf(all, service, route)
	if slices.ContainsFunc(whole.Deny, seen) || slices.ContainsFunc(whole.Allow, seen) {
		observed = &whole
	}
	return authorizationOf(slices.DeleteFunc(slices.Clone(all), seen), service, route), observed
}

func authorizationOf(policies []AuthorizationPolicy, service, route string) Authorization {
	var out Authorization
	best := LevelNone
	for _, p := range policies {
		l := Match(p.Spec.GetTarget(), service, route)
		switch {
		case p.Spec.GetAction() == policyv1.AuthorizationPolicySpec_DENY:
			out.Deny = append(out.Deny, p)
		case l > best:
			best, out.Allow = l, []AuthorizationPolicy{p}
		case l == best:
			out.Allow = append(out.Allow, p)
		}
	}
	out.Restricted = best != LevelNone
	return out
}

// routeNames returns the names of a service's routes, "" for the rest last.
func routeNames(spec *policyv1.ServiceSpec) []string {
	var names []string
	for _, r := range spec.GetRoutes() {
		names = append(names, r.GetName())
	}
	return append(names, "")
}
