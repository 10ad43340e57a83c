package access

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// MayChange says what of a change the actor may not make, each resource once. Both
// states count: what a resource was, so that nobody takes it from its owner, and
// what it becomes, so that nobody gives itself more than it has.
func (a Actor) MayChange(before, after policy.State, changed []policy.Key) []Denial {
	c := change{actor: a, before: before, after: after, bindings: [2][]*policyv1.RoleBindingSpec{bindings(before), bindings(after)}}
	var out []Denial
	for _, k := range changed {
		if d := c.denial(k); d != nil {
			d.Key = k
			out = append(out, *d)
		}
	}
	return out
}

type change struct {
	actor         Actor
	before, after policy.State
	// Of both states.
	bindings [2][]*policyv1.RoleBindingSpec
	// What takes the word of an Issuer for who somebody is, by its name; made when
	// it is asked for.
	vouchers map[string]policy.Key
	// Of both states; nil until they are asked for.
	secrets *secretsOf
}

// denial is nil for what the actor may change.
func (c *change) denial(k policy.Key) *Denial {
	switch k.Kind {
	case policy.KindRoleBinding:
		return c.needs("", SecurityOfficer)
	case policy.KindIssuer:
		if by := c.vouchesFor(k.Name); by != "" && !c.actor.Has(SecurityOfficer) {
			return &Denial{Message: fmt.Sprintf("%s says by it who somebody is: needs the role SECURITY_OFFICER", by)}
		}
		return c.needs("", Operator, SecurityOfficer)
	case policy.KindConsumer:
		return c.needs("", Operator)
	case policy.KindService:
		return c.service(k)
	case policy.KindAuthenticationPolicy, policy.KindAuthorizationPolicy:
		if c.actor.Has(Operator) || !c.owns(k) {
			return c.needs("", Operator)
		}
		return c.givesSecrets(k)
	}
	return &Denial{Message: "no role may change this kind"}
}

func (c *change) needs(field string, any ...policyv1.RoleBindingSpec_Role) *Denial {
	if c.actor.Has(any...) {
		return nil
	}
	return &Denial{Field: field, Message: "needs the role " + orList(any)}
}

// owns says whether a policy, as it was and as it is to be, is about services of
// the actor and nothing else. A policy of the mesh is not.
func (c *change) owns(k policy.Key) bool {
	for _, state := range []policy.State{c.before, c.after} {
		r := state[k]
		if r == nil {
			continue
		}
		services := targetOf(r).GetServices()
		if len(services) == 0 || slices.ContainsFunc(services, func(s string) bool { return !c.actor.Owns(s) }) {
			return false
		}
	}
	return true
}

func targetOf(r *policyv1.Resource) *policyv1.Target {
	if p := r.GetAuthenticationPolicy(); p != nil {
		return p.GetTarget()
	}
	return r.GetAuthorizationPolicy().GetTarget()
}

// vouchesFor returns what takes the word of an Issuer for who somebody is, in
// either state, or "".
func (c *change) vouchesFor(issuer string) string {
	if c.vouchers == nil {
		c.vouchers = map[string]policy.Key{}
		for _, state := range []policy.State{c.after, c.before} {
			for k, r := range state {
				for _, w := range r.GetService().GetBootstrap().GetKubernetes() {
					c.vouch(w.GetIssuer(), k)
				}
				for _, s := range r.GetRoleBinding().GetSubjects() {
					c.vouch(s.GetToken().GetIssuer(), k)
				}
			}
		}
	}
	if by, is := c.vouchers[issuer]; is {
		return by.String()
	}
	return ""
}

// vouch keeps the first by name, so that equal changes get equal answers.
func (c *change) vouch(issuer string, k policy.Key) {
	if by, is := c.vouchers[issuer]; issuer != "" && (!is || k.Compare(by) < 0) {
		c.vouchers[issuer] = k
	}
}

// service: besides OPERATOR, the owner may change some fields. Neither may change
// a service that has a role which they have not: they could act as it then.
func (c *change) service(k policy.Key) *Denial {
	if !c.actor.Has(Operator) {
		if d := c.ownService(k); d != nil {
			return d
		}
	}
	for _, all := range c.bindings {
		if d := c.actor.actAs(k.Name, rolesOf(all, (&Evidence{Services: []string{k.Name}}).is)); d != nil {
			return d
		}
	}
	return nil
}

// ownFields of a Service are what its owner may change.
var ownFields = []protoreflect.Name{"routes", "inbound"}

func (c *change) ownService(k policy.Key) *Denial {
	was, is := c.before[k], c.after[k]
	if !c.actor.Owns(k.Name) || was == nil || is == nil {
		return c.needs("", Operator)
	}
	for name, v := range is.GetMetadata().GetLabels() {
		if old, there := was.GetMetadata().GetLabels()[name]; !there || old != v {
			return c.needs("metadata.labels", Operator)
		}
	}
	if len(was.GetMetadata().GetLabels()) != len(is.GetMetadata().GetLabels()) {
		return c.needs("metadata.labels", Operator)
	}
	for _, fd := range differing(was.GetService(), is.GetService()) {
		if !slices.Contains(ownFields, fd.Name()) {
			return c.needs("spec."+fd.JSONName(), Operator)
		}
		if by := c.routesNamedBy(k.Name); fd.Name() == "routes" && by != "" {
			return &Denial{Field: "spec.routes", Message: fmt.Sprintf("%s, which is about other services too, names routes of it: needs the role OPERATOR", by)}
		}
	}
	return nil
}

// differing are the fields that differ between two specs.
func differing(a, b *policyv1.ServiceSpec) []protoreflect.FieldDescriptor {
	x, y := a.ProtoReflect(), b.ProtoReflect()
	var out []protoreflect.FieldDescriptor
	for i := range x.Descriptor().Fields().Len() {
		fd := x.Descriptor().Fields().Get(i)
		if x.Has(fd) != y.Has(fd) || x.Has(fd) && !x.Get(fd).Equal(y.Get(fd)) {
			out = append(out, fd)
		}
	}
	return out
}

// routesNamedBy returns a policy that the actor may not change and that holds for
// routes of a service, in either state: by moving a route out from under it, the
// owner would escape it. Or "".
func (c *change) routesNamedBy(service string) string {
	for _, state := range []policy.State{c.before, c.after} {
		for _, k := range state.Keys() {
			t := targetOf(state[k])
			if len(t.GetRoutes()) > 0 && slices.Contains(t.GetServices(), service) && !c.owns(k) {
				return k.String()
			}
		}
	}
	return ""
}
