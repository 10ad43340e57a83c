package envoy

import (
	"slices"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// ambiguousPath matches what reaches one resource under two names, or two
// under one, depending on who reads it: empty segments, dot segments, parameters
// of segments (RFC 3986 section 3.3; servlet containers leave them out, so that
// /admin;x is /admin), backslashes, fragments, escapes of separators and of
// characters that need none (RFC 3986 section 6.2.2.2), the same escaped twice,
// broken escapes, escaped control characters, over-long UTF-8, and what does not
// begin with a slash, except the `*` of OPTIONS. The query is not looked at.
const ambiguousPath = `(?i)(?:` +
	`[^/*].*|\*.+|` +
	`[^?]*(?:` +
	`[\\#;]|//|/\.\.?(?:[/?].*|$)|` +
	`%(?:2[def]|3[0-9b]|4[1-9a-f]|5[0-9acf]|6[1-9a-f]|7[0-9ae]|7f|[01][0-9a-f]|c[01]|25(?:2[ef]|5c)|[^0-9a-f].*|.[^0-9a-f].*|.?$)` +
	`).*)`

// plainAuthority is a host, or an IP address, and perhaps a port: what every
// server reads as the same host.
const plainAuthority = `(?i)(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?`

// requestGuard refuses requests that can be read in two ways, as far as the
// ruleset looks at what they differ in. A managed listener has normalised paths
// before; in somebody else's Envoy this is the only thing between a rule about
// /admin and a request for //admin. It is nil if there is nothing to guard.
func requestGuard(rs *dataplanev1.Ruleset) *rbacv3.RBAC {
	policies := map[string]*rbacconfigv3.Policy{}
	if looksAt(rs, (*dataplanev1.RequestMatch).GetPaths) || looksAt(rs, (*dataplanev1.RequestMatch).GetNotPaths) {
		policies[string(reason.PathAmbiguous)] = policy(headerPermission(":path", matchRegex(ambiguousPath)), anyone())
	}
	if looksAt(rs, (*dataplanev1.RequestMatch).GetHosts) || looksAt(rs, (*dataplanev1.RequestMatch).GetNotHosts) {
		plain := headerPermission(":authority", matchRegex(plainAuthority))
		policies[string(reason.HostAmbiguous)] = policy(notPermission(plain), anyone())
	}
	if len(policies) == 0 {
		return nil
	}
	return &rbacv3.RBAC{
		Rules:           &rbacconfigv3.RBAC{Action: rbacconfigv3.RBAC_DENY, Policies: policies},
		RulesStatPrefix: "watchword_guard_",
	}
}

// looksAt says whether any match of the ruleset depends on one of its lists. A
// rule that is only observed must not refuse.
func looksAt(rs *dataplanev1.Ruleset, list func(*dataplanev1.RequestMatch) []string) bool {
	byRule := func(r *dataplanev1.AuthorizationRule) bool { return len(list(r.GetTo())) > 0 }
	return slices.ContainsFunc(rs.GetRoutes(), func(r *dataplanev1.Route) bool {
		a := r.GetAuthorization()
		return len(list(r.GetMatch())) > 0 || slices.ContainsFunc(a.GetDeny(), byRule) || slices.ContainsFunc(a.GetAllow(), byRule)
	})
}

// authorizationRules are all of a route.
func authorizationRules(r *dataplanev1.Route) []*dataplanev1.AuthorizationRule {
	a, o := r.GetAuthorization(), r.GetObservedAuthorization()
	return slices.Concat(a.GetDeny(), a.GetAllow(), o.GetDeny(), o.GetAllow())
}
