package envoy

import (
	"fmt"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// How facts travel along the chain. The names are our own, so that a jwt_authn
// or RBAC filter that the owner of an Envoy has in front of the chain can't
// write to them by accident. The filter state is also read by mesh.revoked,
// which may be older or newer than the chain: a change of meaning needs a new
// version in the name.
const (
	jwtNamespace  = "envoy.filters.http.jwt_authn"
	rbacNamespace = "envoy.filters.http.rbac"

	// Under jwtNamespace: claims of the verified token.
	payloadKey = "watchword_jwt"
	// Under jwtNamespace: why a token was refused ({code, message}). It is also
	// there when a later token rule took the token.
	failedKey = "watchword_failed"
	// Under jwtNamespace, with the provider's name: JOSE header of the token
	// that this provider verified, which marks who verified it.
	verifiedByKey = "watchword_by_"

	// Under rbacNamespace: the route.
	routeStatPrefix = "watchword_route_"
	routeKey        = routeStatPrefix + "shadow_effective_policy_id"

	// Filter state: the route again.
	routeStateKey = "watchword.route.v1"
)

// payloadFormat is a claim of the verified token for a format string.
func payloadFormat(claim string) string {
	return fmt.Sprintf("%%DYNAMIC_METADATA(%s:%s:%s)%%", jwtNamespace, payloadKey, claim)
}

func routeFormat() string {
	return fmt.Sprintf("%%DYNAMIC_METADATA(%s:%s)%%", rbacNamespace, routeKey)
}

func metadata(namespace string, v *matcherv3.ValueMatcher, path ...string) *matcherv3.MetadataMatcher {
	m := &matcherv3.MetadataMatcher{Filter: namespace, Value: v}
	for _, p := range path {
		m.Path = append(m.Path, &matcherv3.MetadataMatcher_PathSegment{
			Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: p},
		})
	}
	return m
}

// claim matches the value of a claim of the verified token.
func claim(v *matcherv3.ValueMatcher, path ...string) *matcherv3.MetadataMatcher {
	return metadata(jwtNamespace, v, append([]string{payloadKey}, path...)...)
}

func present() *matcherv3.ValueMatcher {
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_PresentMatch{PresentMatch: true}}
}

func equals(s string) *matcherv3.ValueMatcher {
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: matchExact(s)}}
}
