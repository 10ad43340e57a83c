package access

import (
	"slices"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// SeesAll says whether the actor may read everything but secrets.
func (a Actor) SeesAll() bool { return a.Has(readers...) }

// Sees says whether the actor may read what is about a service.
func (a Actor) Sees(service string) bool { return a.SeesAll() || a.Owns(service) }

// SeesResource says whether the actor may read a resource, secrets redacted: a
// SERVICE_OWNER its services, and the policies that hold for one of them.
func (a Actor) SeesResource(r *policyv1.Resource) bool {
	if a.SeesAll() {
		return true
	}
	if !a.Has(ServiceOwner) {
		return false
	}
	switch spec := r.GetSpec().(type) {
	case *policyv1.Resource_Service:
		return a.Owns(r.GetMetadata().GetName())
	case *policyv1.Resource_AuthenticationPolicy:
		return a.ownsSome(spec.AuthenticationPolicy.GetTarget())
	case *policyv1.Resource_AuthorizationPolicy:
		return a.ownsSome(spec.AuthorizationPolicy.GetTarget())
	}
	return false
}

// ownsSome takes a policy of the mesh for one of each service.
func (a Actor) ownsSome(t *policyv1.Target) bool {
	return len(t.GetServices()) == 0 || slices.ContainsFunc(t.GetServices(), a.Owns)
}

// MayReadSecrets says whether the actor may see shared secrets in clear.
func (a Actor) MayReadSecrets() bool { return a.Has(SecurityOfficer) }
