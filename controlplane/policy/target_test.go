package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const levels = `
apiVersion: watchword.dev/v1
kind: Service
metadata: {name: orders}
spec: {routes: [{name: admin, paths: ["/admin/*"]}, {name: health, paths: [/health]}]}
---
apiVersion: watchword.dev/v1
kind: Service
metadata: {name: web}
spec: {}
---
{apiVersion: watchword.dev/v1, kind: AuthenticationPolicy, metadata: {name: n-mesh}, spec: {mode: "OFF"}}
---
{apiVersion: watchword.dev/v1, kind: AuthenticationPolicy, metadata: {name: n-orders}, spec: {target: {services: [orders]}, mode: "OFF"}}
---
{apiVersion: watchword.dev/v1, kind: AuthenticationPolicy, metadata: {name: n-admin}, spec: {target: {services: [orders], routes: [admin]}, mode: "OFF"}}
---
{apiVersion: watchword.dev/v1, kind: AuthorizationPolicy, metadata: {name: z-mesh}, spec: {action: ALLOW}}
---
{apiVersion: watchword.dev/v1, kind: AuthorizationPolicy, metadata: {name: z-mesh-deny}, spec: {action: DENY, rules: [{}]}}
---
{apiVersion: watchword.dev/v1, kind: AuthorizationPolicy, metadata: {name: z-orders-b}, spec: {target: {services: [orders]}, action: ALLOW}}
---
{apiVersion: watchword.dev/v1, kind: AuthorizationPolicy, metadata: {name: z-orders-a}, spec: {target: {services: [orders]}, action: ALLOW}}
---
{apiVersion: watchword.dev/v1, kind: AuthorizationPolicy, metadata: {name: z-admin-deny}, spec: {target: {services: [orders], routes: [admin]}, action: DENY, rules: [{}]}}
---
{apiVersion: watchword.dev/v1, kind: AuthorizationPolicy, metadata: {name: z-health}, spec: {target: {services: [orders], routes: [health]}, action: ALLOW}}
`

// Of authentication policies the most specific holds alone; of authorization
// policies every DENY, and the ALLOWs of the most specific level that has one.
func TestPrecedence(t *testing.T) {
	objects, faults := read(levels)
	if len(faults) > 0 {
		t.Fatal(shown(faults))
	}
	s := stateOf(objects)
	if faults := Check(s); len(faults) > 0 {
		t.Fatal(shown(faults))
	}
	var got []string
	for _, place := range [][2]string{{"orders", "admin"}, {"orders", "health"}, {"orders", ""}, {"web", ""}, {"nobody", ""}} {
		enforced, observed := s.Policies().AuthenticationFor(place[0], place[1])
		z, zObserved := s.Policies().AuthorizationFor(place[0], place[1])
		got = append(got, fmt.Sprintf("%s/%s: %s; %s", place[0], place[1], enforced.Name, authorizationText(&z)))
		if observed.Name != "" || zObserved != nil {
			t.Errorf("at %s/%s %q and %s are observed, though all policies are enforced", place[0], place[1], observed.Name, authorizationText(zObserved))
		}
	}
	want := []string{
		"orders/admin: n-admin; deny z-admin-deny z-mesh-deny; allow z-orders-a z-orders-b (true)",
		"orders/health: n-orders; deny z-mesh-deny; allow z-health (true)",
		"orders/: n-orders; deny z-mesh-deny; allow z-orders-a z-orders-b (true)",
		"web/: n-mesh; deny z-mesh-deny; allow z-mesh (true)",
		"nobody/: n-mesh; deny z-mesh-deny; allow z-mesh (true)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("what holds where, -want +got:\n%s", diff)
	}
	none := State{}
	if enforced, observed := none.Policies().AuthenticationFor("orders", ""); enforced.Name != "" || enforced.Spec != nil || observed.Name != "" {
		t.Errorf("AuthenticationFor in an empty state = %v, %v", enforced, observed)
	}
	if enforced, observed := none.Policies().AuthorizationFor("orders", ""); enforced.Deny != nil || enforced.Allow != nil || enforced.Restricted || observed != nil {
		t.Errorf("AuthorizationFor in an empty state = %v, %v", enforced, observed)
	}
}

// What is observed is what would hold if it were enforced too, and it changes
// nothing of what is.
func TestObserved(t *testing.T) {
	for name, tt := range map[string]struct {
		policies string // name kind target, a policy each; a name that begins with o is observed
		want     string
	}{
		"nothing":             {"", "enforced  observed ; enforced deny ; allow  (false)"},
		"alone":               {"o n mesh", "enforced  observed o; enforced deny ; allow  (false)"},
		"more specific":       {"o n orders, e n mesh", "enforced e observed o; enforced deny ; allow  (false)"},
		"less specific":       {"o n mesh, e n orders", "enforced e observed ; enforced deny ; allow  (false)"},
		"equal":               {"o n orders, e n orders", "enforced e observed o; enforced deny ; allow  (false)"},
		"deny":                {"o deny mesh, e allow mesh", "enforced  observed ; enforced deny ; allow e (true); observed deny o; allow e (true)"},
		"allow above":         {"o allow orders, e allow mesh", "enforced  observed ; enforced deny ; allow e (true); observed deny ; allow o (true)"},
		"allow below":         {"o allow mesh, e allow orders", "enforced  observed ; enforced deny ; allow e (true)"},
		"allow beside":        {"o allow orders, e allow orders, e2 deny mesh", "enforced  observed ; enforced deny e2; allow e (true); observed deny e2; allow e o (true)"},
		"allow where no else": {"o allow mesh", "enforced  observed ; enforced deny ; allow  (false); observed deny ; allow o (true)"},
	} {
		var docs []string
		for p := range strings.SplitSeq(tt.policies, ", ") {
			var name, kind, target string
			if _, err := fmt.Sscan(p, &name, &kind, &target); err != nil {
				continue
			}
			docs = append(docs, policyYAML(name, kind, target))
		}
		objects, faults := read(strings.Join(docs, "---\n"))
		if len(faults) > 0 {
			t.Fatal(shown(faults))
		}
		n, no := stateOf(objects).Policies().AuthenticationFor("orders", "")
		z, zo := stateOf(objects).Policies().AuthorizationFor("orders", "")
		got := fmt.Sprintf("enforced %s observed %s; enforced %s", n.Name, no.Name, authorizationText(&z))
		if zo != nil {
			got += "; observed " + authorizationText(zo)
		}
		if got != tt.want {
			t.Errorf("%s (%s):\n got %s\nwant %s", name, tt.policies, got, tt.want)
		}
	}
}

func policyYAML(name, kind, target string) string {
	spec := "mode: STRICT"
	if kind != "n" {
		spec = "action: " + strings.ToUpper(kind)
	}
	if name[0] == 'o' {
		spec += ", enforcement: OBSERVE"
	}
	if target != "mesh" {
		spec += ", target: {services: [" + target + "]}"
	}
	what := "Authorization"
	if kind == "n" {
		what = "Authentication"
	}
	return fmt.Sprintf("{apiVersion: watchword.dev/v1, kind: %sPolicy, metadata: {name: %s}, spec: {%s}}\n", what, name, spec)
}

func authorizationText(a *Authorization) string {
	if a == nil {
		return "nothing"
	}
	return fmt.Sprintf("deny %s; allow %s (%t)", namesOf(a.Deny), namesOf(a.Allow), a.Restricted)
}

func namesOf(list []AuthorizationPolicy) string {
	var names []string
	for _, p := range list {
		names = append(names, p.Name)
	}
	return strings.Join(names, " ")
}

// Keys are in an order in which each step of a change is valid, and a clone of
// a state can be changed without the state.
func TestStateKeys(t *testing.T) {
	objects, _ := read(levels)
	s := stateOf(objects)
	keys := s.Keys()
	if !slices.IsSortedFunc(keys, Key.Compare) || len(keys) != len(s) || keys[0].Kind != KindService {
		t.Errorf("Keys() = %v", keys)
	}
	c := s.Clone()
	delete(c, keys[0])
	if s[keys[0]] == nil || len(c) != len(s)-1 {
		t.Errorf("a clone that lost %s has %d resources, the state %d", keys[0], len(c), len(s))
	}
	if c := State(nil).Clone(); c == nil {
		t.Error("the clone of no state can't be written")
	}
}
