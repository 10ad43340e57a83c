package access

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/policy"
)

// changed are the keys that differ.
func changed(before, after policy.State) []policy.Key {
	all := before.Clone()
	for k, r := range after {
		all[k] = r
	}
	return slices.DeleteFunc(all.Keys(), func(k policy.Key) bool { return proto.Equal(before[k], after[k]) })
}

// with is a state with some resources more, or others; "-Kind/name" takes one out.
func with(t testing.TB, s policy.State, texts ...string) policy.State {
	t.Helper()
	out := s.Clone()
	for _, text := range texts {
		if gone, is := strings.CutPrefix(text, "-"); is {
			kind, name, _ := strings.Cut(gone, "/")
			delete(out, policy.Key{Kind: policy.Kind(kind), Name: name})
			continue
		}
		objects, faults := policy.Parse([]policy.Document{{Source: "a.yaml", Content: text}})
		if len(faults) > 0 {
			t.Fatalf("%+v in %s", faults, text)
		}
		for _, o := range objects {
			out[o.Key] = o.Resource
		}
	}
	return out
}

func resource(kind, metadata, spec string) string {
	return header + "kind: " + kind + "\nmetadata: {" + metadata + "}\nspec: " + spec + "\n"
}

func denials(a Actor, before, after policy.State) string {
	var out []string
	for _, d := range a.MayChange(before, after, changed(before, after)) {
		out = append(out, d.Error())
	}
	return strings.Join(out, "\n")
}

// What each role may write, and the ways by which one could give itself more.
func TestMayChange(t *testing.T) {
	s := with(t, state(t, mesh),
		resource("Issuer", "name: free", `{issuer: f, keySet: {jwksUri: {uri: "https://f.test/"}}}`),
		resource("Issuer", "name: cluster", `{issuer: k, keySet: {jwksUri: {uri: "https://k.test/"}}}`),
		resource("Service", "name: pods", `{bootstrap: {kubernetes: [{issuer: cluster, namespace: a, serviceAccount: a}]}}`),
		binding("people", `{role: VIEWER, subjects: [{token: {issuer: corp, subjects: [a]}}]}`),
		binding("machines", `{role: SECURITY_OFFICER, subjects: [{service: deployer}]}`),
		resource("AuthorizationPolicy", "name: mine", `{action: ALLOW, target: {services: [orders]}}`),
		resource("AuthorizationPolicy", "name: mesh", `{action: DENY, rules: [{to: {paths: ["/x"]}}]}`),
		resource("AuthorizationPolicy", "name: theirs", `{action: ALLOW, target: {services: [stock]}}`),
		resource("Consumer", "name: c", `{username: c}`))
	viewer, operator, officer := []Role{{Role: Viewer}}, []Role{{Role: Operator}}, []Role{{Role: SecurityOfficer}}
	owner := []Role{{Role: ServiceOwner, Services: []string{"orders", "deployer"}}}
	const (
		needsOperator = ": needs the role OPERATOR"
		needsOfficer  = ": needs the role SECURITY_OFFICER"
		needsEither   = ": needs the role OPERATOR or SECURITY_OFFICER"
	)
	orders := func(metadata, spec string) string { return resource("Service", "name: orders, "+metadata, spec) }
	const team = "labels: {team: a}"
	routes := `routes: [{name: admin, paths: ["/admin"]}]`
	type roles map[string]string // who is refused, and why
	for name, tt := range map[string]struct {
		change []string
		want   roles
	}{
		"binding":           {[]string{binding("new", `{role: VIEWER, subjects: [{unixUser: a}]}`)}, roles{"viewer": "RoleBinding/new" + needsOfficer, "operator": "RoleBinding/new" + needsOfficer, "owner": "RoleBinding/new" + needsOfficer}},
		"binding gone":      {[]string{"-RoleBinding/people"}, roles{"viewer": "RoleBinding/people" + needsOfficer, "operator": "RoleBinding/people" + needsOfficer, "owner": "RoleBinding/people" + needsOfficer}},
		"issuer":            {[]string{resource("Issuer", "name: free", `{issuer: g, keySet: {jwksUri: {uri: "https://g.test/"}}}`)}, roles{"viewer": "Issuer/free" + needsEither, "owner": "Issuer/free" + needsEither}},
		"issuer of people":  {[]string{resource("Issuer", "name: corp", `{issuer: g, keySet: {jwksUri: {uri: "https://g.test/"}}}`)}, roles{"viewer": "Issuer/corp: RoleBinding/people says by it who somebody is" + needsOfficer, "operator": "Issuer/corp: RoleBinding/people says by it who somebody is" + needsOfficer, "owner": "Issuer/corp: RoleBinding/people says by it who somebody is" + needsOfficer}},
		"issuer of pods":    {[]string{resource("Issuer", "name: cluster", `{issuer: g, keySet: {jwksUri: {uri: "https://g.test/"}}}`)}, roles{"viewer": "Issuer/cluster: Service/pods says by it who somebody is" + needsOfficer, "operator": "Issuer/cluster: Service/pods says by it who somebody is" + needsOfficer, "owner": "Issuer/cluster: Service/pods says by it who somebody is" + needsOfficer}},
		"issuer let go":     {[]string{resource("Issuer", "name: cluster", `{issuer: g, keySet: {jwksUri: {uri: "https://g.test/"}}}`), resource("Service", "name: pods", "{}")}, roles{"viewer": "Issuer/cluster: Service/pods says by it who somebody is" + needsOfficer + "\nService/pods" + needsOperator, "operator": "Issuer/cluster: Service/pods says by it who somebody is" + needsOfficer, "officer": "Service/pods" + needsOperator, "owner": "Issuer/cluster: Service/pods says by it who somebody is" + needsOfficer + "\nService/pods" + needsOperator}},
		"issuer taken up":   {[]string{resource("Issuer", "name: free", `{issuer: g, keySet: {jwksUri: {uri: "https://g.test/"}}}`), resource("Service", "name: stock", `{bootstrap: {kubernetes: [{issuer: free, namespace: b, serviceAccount: b}]}}`)}, roles{"viewer": "Issuer/free: Service/stock says by it who somebody is" + needsOfficer + "\nService/stock" + needsOperator, "operator": "Issuer/free: Service/stock says by it who somebody is" + needsOfficer, "officer": "Service/stock" + needsOperator, "owner": "Issuer/free: Service/stock says by it who somebody is" + needsOfficer + "\nService/stock" + needsOperator}},
		"consumer":          {[]string{resource("Consumer", "name: c", "{username: d}")}, roles{"viewer": "Consumer/c" + needsOperator, "officer": "Consumer/c" + needsOperator, "owner": "Consumer/c" + needsOperator}},
		"service":           {[]string{resource("Service", "name: stock", "{audiences: [x]}")}, roles{"viewer": "Service/stock" + needsOperator, "officer": "Service/stock" + needsOperator, "owner": "Service/stock" + needsOperator}},
		"new service":       {[]string{resource("Service", "name: fresh", "{}")}, roles{"viewer": "Service/fresh" + needsOperator, "officer": "Service/fresh" + needsOperator, "owner": "Service/fresh" + needsOperator}},
		"service gone":      {[]string{"-Service/orders"}, roles{"viewer": "Service/orders" + needsOperator, "officer": "Service/orders" + needsOperator, "owner": "Service/orders" + needsOperator}},
		"own routes":        {[]string{orders(team, `{routes: [{name: a, paths: ["/a"]}], inbound: {port: 80, localAddress: "127.0.0.1:1"}}`)}, roles{"viewer": "Service/orders" + needsOperator, "officer": "Service/orders" + needsOperator}},
		"own calls":         {[]string{orders(team, `{`+routes+`, calls: [{service: stock}]}`)}, roles{"viewer": "Service/orders" + needsOperator, "officer": "Service/orders" + needsOperator, "owner": "Service/orders: spec.calls" + needsOperator}},
		"own audiences":     {[]string{orders(team, `{`+routes+`, audiences: [a]}`)}, roles{"viewer": "Service/orders" + needsOperator, "officer": "Service/orders" + needsOperator, "owner": "Service/orders: spec.audiences" + needsOperator}},
		"own keys":          {[]string{orders(team, `{`+routes+`, selfIssued: {issuer: a}}`)}, roles{"viewer": "Service/orders" + needsOperator, "officer": "Service/orders" + needsOperator, "owner": "Service/orders: spec.selfIssued" + needsOperator}},
		"own bootstrap":     {[]string{orders(team, `{`+routes+`, bootstrap: {kubernetes: [{issuer: cluster, namespace: b, serviceAccount: b}]}}`)}, roles{"viewer": "Service/orders" + needsOperator, "officer": "Service/orders" + needsOperator, "owner": "Service/orders: spec.bootstrap" + needsOperator}},
		"own data planes":   {[]string{orders(team, `{`+routes+`, dataPlanes: [GO]}`)}, roles{"viewer": "Service/orders" + needsOperator, "officer": "Service/orders" + needsOperator, "owner": "Service/orders: spec.dataPlanes" + needsOperator}},
		"own label":         {[]string{orders("labels: {team: b}", `{`+routes+`}`)}, roles{"viewer": "Service/orders" + needsOperator, "officer": "Service/orders" + needsOperator, "owner": "Service/orders: metadata.labels" + needsOperator}},
		"own label gone":    {[]string{orders("labels: {}", `{`+routes+`}`)}, roles{"viewer": "Service/orders" + needsOperator, "officer": "Service/orders" + needsOperator, "owner": "Service/orders: metadata.labels" + needsOperator}},
		"service with role": {[]string{resource("Service", "name: deployer", `{routes: [{name: a, paths: ["/a"]}]}`)}, roles{"viewer": "Service/deployer" + needsOperator, "officer": "Service/deployer" + needsOperator, "operator": "Service/deployer: who acts as this service has the role SECURITY_OFFICER: needs that role", "owner": "Service/deployer: who acts as this service has the role SECURITY_OFFICER: needs that role"}},
		"role and service": {[]string{resource("Service", "name: deployer", `{calls: [{service: stock}]}`), "-RoleBinding/machines"}, roles{
			"viewer": "Service/deployer" + needsOperator + "\nRoleBinding/machines" + needsOfficer, "officer": "Service/deployer" + needsOperator,
			"operator": "Service/deployer: who acts as this service has the role SECURITY_OFFICER: needs that role\nRoleBinding/machines" + needsOfficer,
			"owner":    "Service/deployer: spec.calls" + needsOperator + "\nRoleBinding/machines" + needsOfficer}},
		"own policy":         {[]string{resource("AuthorizationPolicy", "name: mine", `{action: DENY, rules: [{to: {paths: ["/x"]}}], target: {services: [orders, deployer]}}`)}, roles{"viewer": "AuthorizationPolicy/mine" + needsOperator, "officer": "AuthorizationPolicy/mine" + needsOperator}},
		"own policy gone":    {[]string{"-AuthorizationPolicy/mine"}, roles{"viewer": "AuthorizationPolicy/mine" + needsOperator, "officer": "AuthorizationPolicy/mine" + needsOperator}},
		"own authentication": {[]string{resource("AuthenticationPolicy", "name: new", `{target: {services: [orders], routes: [admin]}, mode: "OFF"}`)}, roles{"viewer": "AuthenticationPolicy/new" + needsOperator, "officer": "AuthenticationPolicy/new" + needsOperator}},
		"policy with others": {[]string{resource("AuthorizationPolicy", "name: mine", `{action: ALLOW, target: {services: [orders, stock]}}`)}, roles{"viewer": "AuthorizationPolicy/mine" + needsOperator, "officer": "AuthorizationPolicy/mine" + needsOperator, "owner": "AuthorizationPolicy/mine" + needsOperator}},
		"policy taken":       {[]string{resource("AuthorizationPolicy", "name: theirs", `{action: ALLOW, target: {services: [orders]}}`)}, roles{"viewer": "AuthorizationPolicy/theirs" + needsOperator, "officer": "AuthorizationPolicy/theirs" + needsOperator, "owner": "AuthorizationPolicy/theirs" + needsOperator}},
		"policy of the mesh": {[]string{resource("AuthorizationPolicy", "name: mesh", `{action: DENY, rules: [{to: {paths: ["/x"]}}], target: {services: [orders]}}`)}, roles{"viewer": "AuthorizationPolicy/mesh" + needsOperator, "officer": "AuthorizationPolicy/mesh" + needsOperator, "owner": "AuthorizationPolicy/mesh" + needsOperator}},
		"policy for all":     {[]string{resource("AuthenticationPolicy", "name: new", `{mode: "OFF"}`)}, roles{"viewer": "AuthenticationPolicy/new" + needsOperator, "officer": "AuthenticationPolicy/new" + needsOperator, "owner": "AuthenticationPolicy/new" + needsOperator}},
		"prune":              {[]string{"-AuthorizationPolicy/mine", "-AuthorizationPolicy/theirs", "-Consumer/c", "-Issuer/free"}, roles{"viewer": "Issuer/free" + needsEither + "\nConsumer/c" + needsOperator + "\nAuthorizationPolicy/mine" + needsOperator + "\nAuthorizationPolicy/theirs" + needsOperator, "officer": "Consumer/c" + needsOperator + "\nAuthorizationPolicy/mine" + needsOperator + "\nAuthorizationPolicy/theirs" + needsOperator, "owner": "Issuer/free" + needsEither + "\nConsumer/c" + needsOperator + "\nAuthorizationPolicy/theirs" + needsOperator}},
	} {
		after := with(t, s, tt.change...)
		for who, list := range map[string][]Role{"viewer": viewer, "operator": operator, "officer": officer, "owner": owner, "all": AllRoles(), "nobody": nil} {
			got := denials(Actor{Name: "a", Roles: list}, s, after)
			if who == "nobody" {
				if got == "" {
					t.Errorf("%s: who has no role may do that", name)
				}
			} else if got != tt.want[who] {
				t.Errorf("%s by %s:\n%s\nwant\n%s", name, who, got, tt.want[who])
			}
		}
	}
}

// An owner can't move a route out from under a policy that is not his alone; one
// that is his, or that names the service without routes, doesn't keep him from it.
func TestOwnerKeepsRoutesOfOthersPolicies(t *testing.T) {
	owner := Actor{Name: "a", Roles: []Role{{Role: ServiceOwner, Services: []string{"orders"}}}}
	moved := resource("Service", "name: orders, labels: {team: a}", `{routes: [{name: first, paths: ["/*"]}, {name: admin, paths: ["/admin"]}]}`)
	for spec, want := range map[string]string{
		`{action: DENY, rules: [{}], target: {services: [orders, stock], routes: [admin]}}`: "Service/orders: spec.routes: AuthorizationPolicy/p, which is about other services too, names routes of it: needs the role OPERATOR",
		`{action: DENY, rules: [{}], target: {services: [orders], routes: [admin]}}`:        "",
		`{action: DENY, rules: [{}], target: {services: [orders, stock]}}`:                  "",
		`{action: DENY, rules: [{}], target: {services: [stock], routes: [admin]}}`:         "",
	} {
		before := with(t, state(t, mesh), resource("AuthorizationPolicy", "name: p", spec))
		if got := denials(owner, before, with(t, before, moved)); got != want {
			t.Errorf("with the policy %s: %q, want %q", spec, got, want)
		}
	}
}

// A kind that is new is nobody's to write until somebody says whose.
func TestUnknownKind(t *testing.T) {
	k := policy.Key{Kind: "Novelty", Name: "n"}
	got := Actor{Name: "a", Roles: AllRoles()}.MayChange(policy.State{}, policy.State{}, []policy.Key{k})
	if len(got) != 1 || got[0].Error() != "Novelty/n: no role may change this kind" {
		t.Errorf("MayChange of an unknown kind = %v", got)
	}
	for _, kind := range policy.Kinds {
		if d := (Actor{Name: "a", Roles: AllRoles()}).MayChange(policy.State{}, policy.State{}, []policy.Key{{Kind: kind, Name: "n"}}); len(d) > 0 {
			t.Errorf("who has all roles may not write %s: %v", kind, d)
		}
	}
}

// What a service owner sees: its services, and the policies that hold for them.
func TestSees(t *testing.T) {
	s := with(t, state(t, mesh),
		binding("b", `{role: VIEWER, subjects: [{service: orders}]}`),
		resource("Consumer", "name: c", `{username: c}`),
		resource("AuthorizationPolicy", "name: mine", `{action: ALLOW, target: {services: [orders, stock]}}`),
		resource("AuthorizationPolicy", "name: theirs", `{action: ALLOW, target: {services: [stock]}}`),
		resource("AuthenticationPolicy", "name: all", `{mode: "OFF"}`))
	seen := func(a Actor) string {
		var out []string
		for _, k := range s.Keys() {
			if a.SeesResource(s[k]) {
				out = append(out, k.String())
			}
		}
		return strings.Join(out, " ")
	}
	owner := Actor{Name: "a", Roles: []Role{{Role: ServiceOwner, Services: []string{"orders"}}}}
	if got, want := seen(owner), "Service/orders AuthenticationPolicy/all AuthorizationPolicy/mine"; got != want {
		t.Errorf("an owner sees %s; want %s", got, want)
	}
	if !owner.Sees("orders") || owner.Sees("stock") || owner.Sees("") || owner.SeesAll() || owner.MayReadSecrets() {
		t.Errorf("%+v sees more, or less, than orders", owner)
	}
	if got := seen(Actor{Name: "a"}); got != "" {
		t.Errorf("who has no role sees %s", got)
	}
	for _, role := range readers {
		a := Actor{Name: "a", Roles: []Role{{Role: role}}}
		if got := strings.Fields(seen(a)); len(got) != len(s) || !a.Sees("") || a.MayReadSecrets() != (role == SecurityOfficer) {
			t.Errorf("%s sees %v, secrets: %v", role, got, a.MayReadSecrets())
		}
	}
}
