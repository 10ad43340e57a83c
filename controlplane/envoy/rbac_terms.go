package envoy

import (
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// The terms of RBAC policies. Permissions are about the request, principals
// about the caller; a policy matches when both do.

func policy(to *rbacconfigv3.Permission, from *rbacconfigv3.Principal) *rbacconfigv3.Policy {
	return &rbacconfigv3.Policy{
		Permissions: []*rbacconfigv3.Permission{to},
		Principals:  []*rbacconfigv3.Principal{from},
	}
}

func anything() *rbacconfigv3.Permission {
	return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_Any{Any: true}}
}

// allPermissions of none is anything, as an empty list in a ruleset is.
func allPermissions(list []*rbacconfigv3.Permission) *rbacconfigv3.Permission {
	switch len(list) {
	case 0:
		return anything()
	case 1:
		return list[0]
	}
	return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_AndRules{
		AndRules: &rbacconfigv3.Permission_Set{Rules: list},
	}}
}

func anyPermission(list []*rbacconfigv3.Permission) *rbacconfigv3.Permission {
	if len(list) == 1 {
		return list[0]
	}
	return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_OrRules{
		OrRules: &rbacconfigv3.Permission_Set{Rules: list},
	}}
}

func notPermission(p *rbacconfigv3.Permission) *rbacconfigv3.Permission {
	return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_NotRule{NotRule: p}}
}

func onRoute(i int) *rbacconfigv3.Permission {
	return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_SourcedMetadata{
		SourcedMetadata: &rbacconfigv3.SourcedMetadata{
			MetadataMatcher: metadata(rbacNamespace, equals(routeID(i)), routeKey),
			MetadataSource:  rbacconfigv3.MetadataSource_DYNAMIC,
		},
	}}
}

func anyone() *rbacconfigv3.Principal {
	return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_Any{Any: true}}
}

func metadataPrincipal(m *matcherv3.MetadataMatcher) *rbacconfigv3.Principal {
	return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_SourcedMetadata{
		SourcedMetadata: &rbacconfigv3.SourcedMetadata{MetadataMatcher: m, MetadataSource: rbacconfigv3.MetadataSource_DYNAMIC},
	}}
}

func not(p *rbacconfigv3.Principal) *rbacconfigv3.Principal {
	return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_NotId{NotId: p}}
}

// allPrincipals of none is anyone.
func allPrincipals(list []*rbacconfigv3.Principal) *rbacconfigv3.Principal {
	switch len(list) {
	case 0:
		return anyone()
	case 1:
		return list[0]
	}
	return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_AndIds{
		AndIds: &rbacconfigv3.Principal_Set{Ids: list},
	}}
}

func anyPrincipal(list []*rbacconfigv3.Principal) *rbacconfigv3.Principal {
	if len(list) == 1 {
		return list[0]
	}
	return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_OrIds{
		OrIds: &rbacconfigv3.Principal_Set{Ids: list},
	}}
}

// valueMatch compares type and value; check refuses other kinds of values.
func valueMatch(v *structpb.Value) *matcherv3.ValueMatcher {
	switch k := v.GetKind().(type) {
	case *structpb.Value_NumberValue:
		return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_DoubleMatch{
			DoubleMatch: &matcherv3.DoubleMatcher{MatchPattern: &matcherv3.DoubleMatcher_Exact{Exact: k.NumberValue}},
		}}
	case *structpb.Value_BoolValue:
		return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_BoolMatch{BoolMatch: k.BoolValue}}
	default:
		return equals(v.GetStringValue())
	}
}
