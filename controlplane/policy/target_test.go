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
		name, _ := s.Policies().AuthenticationFor(place[0], place[1])
		deny, allow, restricted := s.Policies().AuthorizationFor(place[0], place[1])
		got = append(got, fmt.Sprintf("%s/%s: %s; deny %s; allow %s (%t)", place[0], place[1], name, namesOf(deny), namesOf(allow), restricted))
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
	if name, spec := none.Policies().AuthenticationFor("orders", ""); name != "" || spec != nil {
		t.Errorf("AuthenticationFor in an empty state = %q, %v", name, spec)
	}
	if deny, allow, restricted := none.Policies().AuthorizationFor("orders", ""); deny != nil || allow != nil || restricted {
		t.Errorf("AuthorizationFor in an empty state = %v, %v, %t", deny, allow, restricted)
	}
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
