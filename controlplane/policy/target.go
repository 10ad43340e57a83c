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
// look up what holds for many routes.
type Policies struct {
	authentication targeted[*policyv1.AuthenticationPolicySpec]
	authorization  targeted[*policyv1.AuthorizationPolicySpec]
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
	p := &Policies{}
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

// AuthenticationFor returns the name and spec of the policy that holds for a
// route, or "" and nil when none does. Of two at one level, which Check
// refuses, it is the first by name.
func (p *Policies) AuthenticationFor(service, route string) (name string, spec *policyv1.AuthenticationPolicySpec) {
	best := LevelNone
	p.authentication.about(service, func(n named[*policyv1.AuthenticationPolicySpec]) {
		if l := Match(n.spec.GetTarget(), service, route); l > best {
			best, name, spec = l, n.name, n.spec
		}
	})
	return name, spec
}

// AuthorizationPolicy is one that holds for a route.
type AuthorizationPolicy struct {
	Name string
	Spec *policyv1.AuthorizationPolicySpec
}

// AuthorizationFor returns what holds for a route, by name: every DENY, and the
// ALLOWs of the most specific level that has one. restricted says that there is
// one.
func (p *Policies) AuthorizationFor(service, route string) (deny, allow []AuthorizationPolicy, restricted bool) {
	best := LevelNone
	p.authorization.about(service, func(n named[*policyv1.AuthorizationPolicySpec]) {
		l := Match(n.spec.GetTarget(), service, route)
		switch {
		case l == LevelNone:
		case n.spec.GetAction() == policyv1.AuthorizationPolicySpec_DENY:
			deny = append(deny, AuthorizationPolicy{n.name, n.spec})
		case l > best:
			best, allow = l, []AuthorizationPolicy{{n.name, n.spec}}
		case l == best:
			allow = append(allow, AuthorizationPolicy{n.name, n.spec})
		}
	})
	// Those of the mesh and those of the service are each in order.
	slices.SortFunc(deny, func(a, b AuthorizationPolicy) int { return strings.Compare(a.Name, b.Name) })
	return deny, allow, best != LevelNone
}

// routeNames returns the names of a service's routes, "" for the rest last.
func routeNames(spec *policyv1.ServiceSpec) []string {
	var names []string
	for _, r := range spec.GetRoutes() {
		names = append(names, r.GetName())
	}
	return append(names, "")
}
