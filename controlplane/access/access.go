// Package access says who may do what: an [Actor] is somebody who proved who it
// is, its roles come from RoleBindings, and a table says which calls a role may
// make. It decides; who calls it verifies and answers.
package access

import (
	"context"
	"slices"
	"strings"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Short names of the roles.
const (
	Viewer          = policyv1.RoleBindingSpec_VIEWER
	Operator        = policyv1.RoleBindingSpec_OPERATOR
	SecurityOfficer = policyv1.RoleBindingSpec_SECURITY_OFFICER
	ServiceOwner    = policyv1.RoleBindingSpec_SERVICE_OWNER
)

// Actor is who makes a call. The zero Actor is nobody.
type Actor struct {
	// Name is for people and for the audit: "unix:root", "admin-token",
	// "service:deployer", "token:corp/alice", "certificate:dns:ci.example".
	Name string
	// Source is the network address, without port; empty for the admin socket.
	Source string
	Roles  []Role
	// What the actor was resolved from, to do it again.
	evidence *Evidence
}

// Role is one that an actor has.
type Role struct {
	Role policyv1.RoleBindingSpec_Role
	// Services that it is limited to; only a SERVICE_OWNER is.
	Services []string
}

// String is such as "OPERATOR" or "SERVICE_OWNER of orders, shop".
func (r Role) String() string {
	if len(r.Services) == 0 {
		return r.Role.String()
	}
	return r.Role.String() + " of " + strings.Join(r.Services, ", ")
}

// AllRoles are those of who needs no RoleBinding.
func AllRoles() []Role { return []Role{{Role: Operator}, {Role: SecurityOfficer}} }

// At is the actor with the roles that it has in another state: a role may have
// been taken away since the call began.
func (a Actor) At(state policy.State) Actor {
	if a.evidence != nil {
		a.Roles = a.evidence.roles(state)
	}
	return a
}

// Has says whether the actor has one of the roles, for whatever services.
func (a Actor) Has(roles ...policyv1.RoleBindingSpec_Role) bool {
	return slices.ContainsFunc(a.Roles, func(r Role) bool { return slices.Contains(roles, r.Role) })
}

// Owns says whether the actor is SERVICE_OWNER of a service.
func (a Actor) Owns(service string) bool {
	return slices.ContainsFunc(a.Roles, func(r Role) bool { return r.Role == ServiceOwner && slices.Contains(r.Services, service) })
}

// covers says whether the actor may do all that a role may.
func (a Actor) covers(r Role) bool {
	switch r.Role {
	case Viewer:
		return a.Has(Viewer, Operator, SecurityOfficer)
	case Operator, SecurityOfficer:
		return a.Has(r.Role)
	case ServiceOwner:
		both := a.Has(Operator) && a.Has(SecurityOfficer)
		return both || !slices.ContainsFunc(r.Services, func(s string) bool { return !a.Owns(s) })
	}
	return false
}

type actorKey struct{}

// With carries the actor of a call.
func With(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// From returns the actor of a call; the zero Actor, which may do nothing, if
// nobody has been named.
func From(ctx context.Context) Actor {
	a, _ := ctx.Value(actorKey{}).(Actor)
	return a
}
