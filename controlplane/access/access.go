// Package access says who may do what: an [Actor] is somebody who proved who it
// is, its roles come from RoleBindings, and a table says which calls a role may
// make.
package access

import (
	"context"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Actor is who makes a call.
type Actor struct {
	// Name is for people and for the audit: "unix:root", "admin-token",
	// "service:deployer", "token:corp/alice", "certificate:dns:ci.example".
	Name string
	// Source is the network address, without port; empty for the admin socket.
	Source string
	Roles  []Role
}

// Role is one that an actor has.
type Role struct {
	Role policyv1.RoleBindingSpec_Role
	// Services that it is limited to; only a SERVICE_OWNER is.
	Services []string
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
