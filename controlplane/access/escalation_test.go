package access

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

var (
	pool      = []string{"a", "b", "c"}
	everyRole = []policyv1.RoleBindingSpec_Role{Viewer, Operator, SecurityOfficer, ServiceOwner}
)

// drawState is a small state in which everything has to do with everything.
func drawState(t *rapid.T, label string) policy.State {
	s := policy.State{}
	put := func(kind policy.Kind, name string, make func() *policyv1.Resource) {
		if rapid.Bool().Draw(t, label+string(kind)+name) {
			r := make()
			r.Metadata = &policyv1.Metadata{Name: name}
			s[policy.Key{Kind: kind, Name: name}] = r
		}
	}
	some := func() []string {
		return rapid.SliceOfNDistinct(rapid.SampledFrom(pool), 0, 2, rapid.ID).Draw(t, label+"names")
	}
	one := func() string { return rapid.SampledFrom(pool).Draw(t, label+"name") }
	for _, name := range pool {
		put(policy.KindIssuer, name, func() *policyv1.Resource {
			return &policyv1.Resource{Spec: &policyv1.Resource_Issuer{Issuer: &policyv1.IssuerSpec{Issuer: one()}}}
		})
		put(policy.KindService, name, func() *policyv1.Resource {
			spec := &policyv1.ServiceSpec{Audiences: some()}
			for _, route := range some() {
				spec.Routes = append(spec.Routes, &policyv1.Route{Name: route})
			}
			for _, issuer := range some() {
				spec.Bootstrap = &policyv1.Bootstrap{Kubernetes: []*policyv1.KubernetesWorkload{{Issuer: issuer}}}
			}
			return &policyv1.Resource{Spec: &policyv1.Resource_Service{Service: spec}}
		})
		put(policy.KindAuthorizationPolicy, name, func() *policyv1.Resource {
			return &policyv1.Resource{Spec: &policyv1.Resource_AuthorizationPolicy{AuthorizationPolicy: &policyv1.AuthorizationPolicySpec{
				Target: &policyv1.Target{Services: some(), Routes: some()}, Action: policyv1.AuthorizationPolicySpec_Action(len(some()))}}}
		})
		put(policy.KindRoleBinding, name, func() *policyv1.Resource {
			b := &policyv1.RoleBindingSpec{Role: rapid.SampledFrom(everyRole).Draw(t, label+"role"), Subjects: []*policyv1.RoleSubject{{Service: one()}, {Token: &policyv1.TokenSubject{Issuer: one(), Subjects: []string{"x"}}}}}
			if b.Role == ServiceOwner {
				b.Services = append(some(), one())
			}
			return &policyv1.Resource{Spec: &policyv1.Resource_RoleBinding{RoleBinding: b}}
		})
	}
	return s
}

// Whatever an actor is allowed to change at once, it can't thereby become somebody
// who may do more: the dumb twin compares the two states by what must have stayed.
func TestNoChangeGivesMore(t *testing.T) {
	permitted := 0
	rapid.Check(t, func(t *rapid.T) {
		before := drawState(t, "before")
		after, whole := before.Clone(), drawState(t, "after")
		for _, k := range before.Clone().Keys() {
			if rapid.IntRange(0, 3).Draw(t, "change "+k.String()) == 0 {
				if delete(after, k); whole[k] != nil {
					after[k] = whole[k]
				}
			}
		}
		for k, r := range whole {
			if before[k] == nil && rapid.IntRange(0, 3).Draw(t, "make "+k.String()) == 0 {
				after[k] = r
			}
		}
		a := Actor{Name: "a"}
		for _, role := range rapid.SliceOfNDistinct(rapid.SampledFrom(everyRole), 0, 2, rapid.ID).Draw(t, "roles") {
			r := Role{Role: role}
			if role == ServiceOwner {
				r.Services = rapid.SliceOfNDistinct(rapid.SampledFrom(pool), 1, 2, rapid.ID).Draw(t, "owned")
			}
			a.Roles = append(a.Roles, r)
		}
		if len(a.MayChange(before, after, changed(before, after))) > 0 {
			return
		}
		permitted++
		for _, k := range changed(before, after) {
			if why := gives(a, before, after, k); why != "" {
				t.Fatalf("%s may change %s:\nfrom %v\nto   %v\n%s", names(a.Roles), k, before[k], after[k], why)
			}
		}
	})
	if permitted == 0 {
		t.Error("no change was permitted: the test proves nothing")
	}
}

// The services with roles, looked up at once, are those that have one when each is
// looked up.
func TestServicesWithRoles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawState(t, "")
		for _, r := range s {
			if b := r.GetRoleBinding(); b != nil && rapid.IntRange(0, 3).Draw(t, "no role") == 0 {
				b.Role = policyv1.RoleBindingSpec_ROLE_UNSPECIFIED
			}
		}
		all := ServicesWithRoles(s)
		for _, name := range append(pool, "nobody", "") {
			if got := RolesOfService(s, name); all[name] != (len(got) > 0) {
				t.Fatalf("ServicesWithRoles = %v, RolesOfService(%s) = %v in\n%v", all, name, got, s)
			}
		}
	})
}

// gives says what an actor would gain by a change of one resource, or "".
func gives(a Actor, before, after policy.State, k policy.Key) string {
	spec := func(s policy.State) *policyv1.ServiceSpec { return s.Service(k.Name) }
	switch k.Kind {
	case policy.KindRoleBinding:
		if !a.Has(SecurityOfficer) {
			return "it gives roles"
		}
	case policy.KindIssuer:
		for _, s := range []policy.State{before, after} {
			for _, r := range s {
				tokens := slices.ContainsFunc(r.GetRoleBinding().GetSubjects(), func(x *policyv1.RoleSubject) bool { return x.GetToken().GetIssuer() == k.Name })
				pods := slices.ContainsFunc(r.GetService().GetBootstrap().GetKubernetes(), func(x *policyv1.KubernetesWorkload) bool { return x.GetIssuer() == k.Name })
				if (tokens || pods) && !a.Has(SecurityOfficer) {
					return "who has its keys is whoever it says"
				}
			}
		}
	case policy.KindService:
		for _, s := range []policy.State{before, after} {
			for _, r := range RolesOfService(s, k.Name) {
				if !a.covers(r) {
					return "the service has a role that the actor has not"
				}
			}
		}
		was, is := proto.CloneOf(spec(before)), proto.CloneOf(spec(after))
		if was != nil && is != nil {
			was.Routes, is.Routes = nil, nil
		}
		if !a.Has(Operator) && (!a.Owns(k.Name) || !proto.Equal(was, is)) {
			return "more than routes of a service of its own"
		}
	default:
		for _, s := range []policy.State{before, after} {
			services := s[k].GetAuthorizationPolicy().GetTarget().GetServices()
			mine := len(services) > 0 && !slices.ContainsFunc(services, func(n string) bool { return !a.Owns(n) })
			if s[k] != nil && !mine && !a.Has(Operator) {
				return "a policy about others"
			}
		}
	}
	return ""
}
