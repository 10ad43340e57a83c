// Package policy is what users write: resources in YAML or JSON, read with the
// place of every field, checked alone and against each other.
//
// It has three parts. Parse turns documents into resources and finds faults of
// form (unknown fields, wrong types). Check finds faults of meaning in a whole
// State, so that nothing half valid is ever stored. Manifest turns a resource
// back into the form that users write, with secrets redacted.
//
// Each of them reports all faults at once. The package is pure: no clock, no
// I/O.
package policy

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// APIVersion is the apiVersion of every resource.
const APIVersion = "watchword.dev/v1"

// BuiltinIssuer is the name of the Issuer whose tokens this control plane
// signs.
const BuiltinIssuer = "watchword"

// AdminAudience is the `aud` of tokens for the admin API. No service may have it:
// a token that it is sent would be good there.
const AdminAudience = "watchword-admin"

// Kind is the kind of a resource as users write it.
type Kind string

// The kinds, in the order in which a set of resources becomes valid when it is
// stored step by step: what is referred to comes first.
const (
	KindIssuer               Kind = "Issuer"
	KindConsumer             Kind = "Consumer"
	KindService              Kind = "Service"
	KindAuthenticationPolicy Kind = "AuthenticationPolicy"
	KindAuthorizationPolicy  Kind = "AuthorizationPolicy"
	KindRoleBinding          Kind = "RoleBinding"
)

// Kinds lists every kind in the order above.
var Kinds = []Kind{KindIssuer, KindConsumer, KindService, KindAuthenticationPolicy, KindAuthorizationPolicy, KindRoleBinding}

// KindNames lists the kinds in a sentence.
func KindNames() string {
	var names []string
	for _, k := range Kinds {
		names = append(names, string(k))
	}
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " and " + names[last]
}

// specField names the member of policyv1.Resource's oneof for each kind.
var specField = map[Kind]string{
	KindIssuer:               "issuer",
	KindConsumer:             "consumer",
	KindService:              "service",
	KindAuthenticationPolicy: "authentication_policy",
	KindAuthorizationPolicy:  "authorization_policy",
	KindRoleBinding:          "role_binding",
}

// Key names one resource.
type Key struct {
	Kind Kind
	Name string
}

// String is Kind/NAME.
func (k Key) String() string { return string(k.Kind) + "/" + k.Name }

// Compare orders keys by kind, in the order of Kinds, then by name.
func (k Key) Compare(o Key) int {
	if k.Kind == o.Kind { // most are: Consumers
		return cmp.Compare(k.Name, o.Name)
	}
	return cmp.Or(cmp.Compare(slices.Index(Kinds, k.Kind), slices.Index(Kinds, o.Kind)), cmp.Compare(k.Name, o.Name))
}

// KeyOf returns the key of a resource; its Kind is empty if it has no spec.
func KeyOf(r *policyv1.Resource) Key {
	var kind Kind
	switch r.GetSpec().(type) {
	case *policyv1.Resource_Issuer:
		kind = KindIssuer
	case *policyv1.Resource_Consumer:
		kind = KindConsumer
	case *policyv1.Resource_Service:
		kind = KindService
	case *policyv1.Resource_AuthenticationPolicy:
		kind = KindAuthenticationPolicy
	case *policyv1.Resource_AuthorizationPolicy:
		kind = KindAuthorizationPolicy
	case *policyv1.Resource_RoleBinding:
		kind = KindRoleBinding
	}
	return Key{Kind: kind, Name: r.GetMetadata().GetName()}
}

// State is all resources of a mesh. It is not changed once it is shared.
type State map[Key]*policyv1.Resource

// Clone returns a shallow copy to change.
func (s State) Clone() State {
	if s == nil {
		return State{}
	}
	return maps.Clone(s)
}

// Keys returns the keys in order.
func (s State) Keys() []Key { return slices.SortedFunc(maps.Keys(s), Key.Compare) }

// Service returns the spec of a Service, or nil.
func (s State) Service(name string) *policyv1.ServiceSpec {
	return s[Key{KindService, name}].GetService()
}

// Issuer returns the spec of an Issuer, or nil.
func (s State) Issuer(name string) *policyv1.IssuerSpec {
	return s[Key{KindIssuer, name}].GetIssuer()
}

// Consumer returns the spec of a Consumer, or nil.
func (s State) Consumer(name string) *policyv1.ConsumerSpec {
	return s[Key{KindConsumer, name}].GetConsumer()
}

// RoleBinding returns the spec of a RoleBinding, or nil.
func (s State) RoleBinding(name string) *policyv1.RoleBindingSpec {
	return s[Key{KindRoleBinding, name}].GetRoleBinding()
}

// RoleBindings returns the names of all RoleBindings in order.
func (s State) RoleBindings() []string { return s.names(KindRoleBinding) }

// Services returns the names of all Services in order.
func (s State) Services() []string { return s.names(KindService) }

func (s State) names(kind Kind) []string {
	var names []string
	for k := range s {
		if k.Kind == kind {
			names = append(names, k.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Audiences returns the audiences of a Service: its own list, or its name.
func Audiences(name string, spec *policyv1.ServiceSpec) []string {
	if len(spec.GetAudiences()) > 0 {
		return spec.GetAudiences()
	}
	return []string{name}
}

// Fault is one thing that is wrong with the input, for the person who wrote it.
type Fault struct {
	// Source and Line (from 1) say where; Line is 0 when it is not known.
	Source string
	Line   int
	// Key names the resource, Field the place in it, such as
	// spec.rules[0].to.paths[1]; either may be empty.
	Key   Key
	Field string
	// Message says what is wrong, and what would be right.
	Message string
}
