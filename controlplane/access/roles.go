package access

import (
	"slices"
	"strconv"
	"strings"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// roles of who gave the evidence, in order.
func (ev *Evidence) roles(state policy.State) []Role {
	if ev.AdminToken || !ev.explicit() && ev.Unix != nil && ev.Unix.Owner {
		return AllRoles()
	}
	return rolesOf(bindings(state), ev.is)
}

// RolesOfService are those that a service has as a subject of RoleBindings.
func RolesOfService(state policy.State, service string) []Role {
	return rolesOf(bindings(state), (&Evidence{Services: []string{service}}).is)
}

// ServicesWithRoles are the services that have a role: those that RolesOfService
// gives any for. It looks through the state once.
func ServicesWithRoles(state policy.State) map[string]bool {
	out := map[string]bool{}
	for _, b := range bindings(state) {
		for _, s := range b.GetSubjects() {
			if s.GetService() != "" && slices.Contains(inOrder, b.GetRole()) {
				out[s.GetService()] = true
			}
		}
	}
	return out
}

// bindings are all RoleBindings, in order. They are few, the state is large.
func bindings(state policy.State) []*policyv1.RoleBindingSpec {
	var out []*policyv1.RoleBindingSpec
	for _, name := range state.RoleBindings() {
		out = append(out, state.RoleBinding(name))
	}
	return out
}

// inOrder are all roles that there are.
var inOrder = roles{Viewer, Operator, SecurityOfficer, ServiceOwner}

// rolesOf gathers the roles of whoever is one of the subjects, each role once.
func rolesOf(all []*policyv1.RoleBindingSpec, is func(*policyv1.RoleSubject) bool) []Role {
	found := map[policyv1.RoleBindingSpec_Role][]string{}
	for _, b := range all {
		if slices.ContainsFunc(b.GetSubjects(), is) {
			found[b.GetRole()] = append(found[b.GetRole()], b.GetServices()...)
		}
	}
	var out []Role
	for _, role := range inOrder {
		services, has := found[role]
		if !has {
			continue
		}
		r := Role{Role: role}
		if role == ServiceOwner {
			slices.Sort(services)
			r.Services = slices.Compact(services)
		}
		out = append(out, r)
	}
	return out
}

// is says whether the evidence is of a subject. A subject that Check would refuse
// is nobody.
func (ev *Evidence) is(s *policyv1.RoleSubject) bool {
	switch {
	case s.GetService() != "":
		return slices.Contains(ev.Services, s.GetService())
	case s.GetToken() != nil:
		return ev.Token != nil && ev.Token.is(s.GetToken())
	case s.GetCertificate() != nil:
		return ev.Certificate != nil && ev.Certificate.is(s.GetCertificate())
	case s.GetUnixUser() != "":
		return ev.Unix != nil && !ev.explicit() && ev.Unix.is(s.GetUnixUser())
	}
	return false
}

func (t *Token) is(s *policyv1.TokenSubject) bool {
	if !t.isFor(s) || len(s.GetSubjects())+len(s.GetClaims()) == 0 {
		return false
	}
	if len(s.GetSubjects()) > 0 && !slices.Contains(s.GetSubjects(), t.Subject) {
		return false
	}
	for _, c := range s.GetClaims() {
		if len(c.GetPath()) == 0 || !hasOne(claim(t.Claims, c.GetPath()), c.GetValues()) {
			return false
		}
	}
	return true
}

// claim walks a path of names; nil if it leads nowhere.
func claim(claims map[string]any, path []string) any {
	var at any = claims
	for _, name := range path {
		object, ok := at.(map[string]any)
		if !ok {
			return nil
		}
		at = object[name]
	}
	return at
}

// hasOne says whether a claim is one of the values, or a list that has one.
func hasOne(claim any, values []string) bool {
	switch v := claim.(type) {
	case string:
		return slices.Contains(values, v)
	case []any:
		return slices.ContainsFunc(v, func(e any) bool { s, ok := e.(string); return ok && slices.Contains(values, s) })
	}
	return false
}

// is compares URIs and addresses exactly, and host names without case (RFC 4343).
func (c *Certificate) is(s *policyv1.CertificateSubject) bool {
	switch {
	case s.GetUri() != "":
		return slices.Contains(c.URIs, s.GetUri())
	case s.GetDnsName() != "":
		return slices.ContainsFunc(c.DNSNames, func(n string) bool { return strings.EqualFold(n, s.GetDnsName()) })
	case s.GetEmail() != "":
		return slices.Contains(c.Emails, s.GetEmail())
	}
	return false
}

// is takes the name, or the number.
func (u *UnixUser) is(name string) bool {
	return name == u.Name || name == strconv.FormatUint(uint64(u.UID), 10)
}
