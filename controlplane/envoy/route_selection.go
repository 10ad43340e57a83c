package envoy

import (
	"fmt"
	"regexp"
	"strings"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// maxRoutes is how many names of routes sort as their numbers do.
const maxRoutes = 10000

// routeID names a route by its place. Envoy looks at the policies of an RBAC
// filter in the order of their names, so this order is the ruleset's.
func routeID(i int) string { return fmt.Sprintf("route-%04d", i) }

// routeLookup finds the route of a request, once for all later filters, so
// that authentication and authorization can't disagree about it. It is an RBAC
// filter that enforces nothing: the name of the shadow policy that matches
// first becomes metadata.
func routeLookup(routes []*dataplanev1.Route) *rbacv3.RBAC {
	policies := make(map[string]*rbacconfigv3.Policy, len(routes))
	for i, r := range routes {
		policies[routeID(i)] = policy(requestMatch(r.GetMatch()), anyone())
	}
	return &rbacv3.RBAC{
		ShadowRules:           &rbacconfigv3.RBAC{Action: rbacconfigv3.RBAC_ALLOW, Policies: policies},
		ShadowRulesStatPrefix: routeStatPrefix,
	}
}

// treatmentFact finds the treatment of a route.
func treatmentFact(p *plan) *rbacv3.RBAC {
	entries := map[string]*onMatch{}
	for i, n := range p.ofRoute {
		entries[routeID(i)] = allow(p.treatments[n].id)
	}
	return &rbacv3.RBAC{ShadowMatcher: lookUp(routeStateKey, entries, nil), ShadowRulesStatPrefix: treatmentStatPrefix}
}

// requestMatch matches when each list that is not empty does, and no not_ list.
func requestMatch(m *dataplanev1.RequestMatch) *rbacconfigv3.Permission {
	var all []*rbacconfigv3.Permission
	for _, list := range [][]*rbacconfigv3.Permission{
		permissions(m.GetHosts(), hostMatch),
		permissions(m.GetPaths(), pathMatch),
		permissions(m.GetMethods(), methodMatch),
	} {
		if len(list) > 0 {
			all = append(all, anyPermission(list))
		}
	}
	for _, list := range [][]*rbacconfigv3.Permission{
		permissions(m.GetNotHosts(), hostMatch),
		permissions(m.GetNotPaths(), pathMatch),
		permissions(m.GetNotMethods(), methodMatch),
	} {
		if len(list) > 0 {
			all = append(all, notPermission(anyPermission(list)))
		}
	}
	return allPermissions(all)
}

func permissions(list []string, match func(string) *rbacconfigv3.Permission) []*rbacconfigv3.Permission {
	var out []*rbacconfigv3.Permission
	for _, s := range list {
		out = append(out, match(s))
	}
	return out
}

// hostMatch compares hosts as DNS does: without case, and without the dot that
// ends a full name. The port is not part of it.
func hostMatch(host string) *rbacconfigv3.Permission {
	re := regexp.QuoteMeta(host)
	if rest, ok := strings.CutPrefix(host, "*."); ok {
		re = `[^:]+\.` + regexp.QuoteMeta(rest)
	}
	return headerPermission(":authority", matchRegex(`(?i)`+re+`\.?(?::.*)?`))
}

func methodMatch(method string) *rbacconfigv3.Permission {
	return headerPermission(":method", matchExact(method))
}

func headerPermission(name string, m *matcherv3.StringMatcher) *rbacconfigv3.Permission {
	return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_Header{Header: &routev3.HeaderMatcher{
		Name:                 name,
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: m},
	}}}
}
