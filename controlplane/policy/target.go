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

// AuthenticationFor returns the name and spec of the policy that holds for a
// route, or "" and nil when none does.
func (s State) AuthenticationFor(service, route string) (string, *policyv1.AuthenticationPolicySpec) {
	best, name := LevelNone, ""
	// Of two at one level, which Check refuses, the first by name: the map has
	// no order, and to sort it for each route would cost more than the rest.
	for k, r := range s {
		if k.Kind != KindAuthenticationPolicy {
			continue
		}
		l := Match(r.GetAuthenticationPolicy().GetTarget(), service, route)
		if l > best || (l == best && l != LevelNone && k.Name < name) {
			best, name = l, k.Name
		}
	}
	return name, s[Key{KindAuthenticationPolicy, name}].GetAuthenticationPolicy()
}

// AuthorizationPolicy is one that holds for a route.
type AuthorizationPolicy struct {
	Name string
	Spec *policyv1.AuthorizationPolicySpec
}

// AuthorizationFor returns what holds for a route: every DENY, and the ALLOWs
// of the most specific level that has one. restricted says that there is one.
func (s State) AuthorizationFor(service, route string) (deny, allow []AuthorizationPolicy, restricted bool) {
	best := LevelNone
	for k, r := range s {
		if k.Kind != KindAuthorizationPolicy {
			continue
		}
		spec := r.GetAuthorizationPolicy()
		l := Match(spec.GetTarget(), service, route)
		switch {
		case l == LevelNone:
		case spec.GetAction() == policyv1.AuthorizationPolicySpec_DENY:
			deny = append(deny, AuthorizationPolicy{k.Name, spec})
		case l > best:
			best, allow = l, []AuthorizationPolicy{{k.Name, spec}}
		case l == best:
			allow = append(allow, AuthorizationPolicy{k.Name, spec})
		}
	}
	slices.SortFunc(deny, byName)
	slices.SortFunc(allow, byName)
	return deny, allow, best != LevelNone
}

func byName(a, b AuthorizationPolicy) int { return strings.Compare(a.Name, b.Name) }

// routeNames returns the names of a service's routes, "" for the rest last.
func routeNames(spec *policyv1.ServiceSpec) []string {
	var names []string
	for _, r := range spec.GetRoutes() {
		names = append(names, r.GetName())
	}
	return append(names, "")
}
