package access

import (
	"testing"

	"github.com/watchword-mesh/watchword/controlplane/policy"
)

// What an owner may do to a policy that is about its service and others too, without
// touching it: one of its own that is more specific holds instead, as it does for
// everybody. Only a DENY holds whatever the owner writes.
func TestWhatAnOwnerOverrides(t *testing.T) {
	owner := Actor{Name: "a", Roles: []Role{{Role: ServiceOwner, Services: []string{"orders"}}}}
	before := with(t, state(t, mesh),
		resource("AuthenticationPolicy", "name: theirs", `{target: {services: [orders, stock]}, mode: STRICT, jwtRules: [{issuer: watchword}]}`),
		resource("AuthorizationPolicy", "name: allow", `{target: {services: [orders, stock]}, action: ALLOW, rules: [{from: {services: [deployer]}}]}`),
		resource("AuthorizationPolicy", "name: deny", `{target: {services: [orders, stock]}, action: DENY, rules: [{to: {paths: ["/internal"]}}]}`))
	after := with(t, before,
		resource("AuthenticationPolicy", "name: mine", `{target: {services: [orders], routes: [admin]}, mode: PERMISSIVE, jwtRules: [{issuer: watchword}]}`),
		resource("AuthorizationPolicy", "name: open", `{target: {services: [orders], routes: [admin]}, action: ALLOW, rules: [{}]}`))
	if faults := policy.CheckSince(after, before); len(faults) > 0 {
		t.Fatalf("%+v", faults)
	}
	if got := denials(owner, before, after); got != "" {
		t.Errorf("an owner may not write policies of its own: %s", got)
	}
	p := after.Policies()
	if got, _ := p.AuthenticationFor("orders", "admin"); got.Name != "mine" {
		t.Errorf("on the owner's route holds %s, want mine", got.Name)
	}
	got, _ := p.AuthorizationFor("orders", "admin")
	if len(got.Allow) != 1 || got.Allow[0].Name != "open" {
		t.Errorf("on the owner's route the ALLOWs %v count, want open alone", got.Allow)
	}
	if len(got.Deny) != 1 || got.Deny[0].Name != "deny" {
		t.Errorf("on the owner's route the DENYs %v count, want deny", got.Deny)
	}
	// Who sends a request is told by the authentication, which is up to the owner: a DENY
	// that names callers is in force still, and matches nobody.
	named := with(t, before, resource("AuthorizationPolicy", "name: callers", `{action: DENY, rules: [{from: {services: [stock]}}]}`))
	blind := with(t, named, resource("AuthenticationPolicy", "name: mine", `{target: {services: [orders], routes: [admin]}, mode: "OFF"}`))
	if faults, got := policy.CheckSince(blind, named), denials(owner, named, blind); len(faults) > 0 || got != "" {
		t.Errorf("an owner who looks at no tokens is refused: %+v %s; say so in docs/roles.md", faults, got)
	}
}
