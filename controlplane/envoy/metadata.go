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
//
// Under jwtNamespace, and with "watchword_observed_" for what is only observed:
// watchword_jwt has the claims of the token that was verified, watchword_by_N its
// JOSE header, if the rule with the mark N has verified it, and watchword_failed_N
// why the rule at position N of the route has not ({code, message}).
const (
	jwtNamespace  = "envoy.filters.http.jwt_authn"
	rbacNamespace = "envoy.filters.http.rbac"

	payloadKey = "watchword_jwt"

	// Under rbacNamespace.
	routeStatPrefix     = "watchword_route_"
	routeKey            = routeStatPrefix + effectivePolicy
	treatmentStatPrefix = "watchword_treatment_"
	treatmentKey        = treatmentStatPrefix + effectivePolicy
	consumerStatPrefix  = "watchword_consumer_"
	consumerKey         = consumerStatPrefix + effectivePolicy

	effectivePolicy = "shadow_effective_policy_id"
	shadowResult    = "shadow_engine_result"

	// Filter state.
	routeStateKey     = "watchword.route.v1"
	treatmentStateKey = "watchword.treatment.v1"
)

// payloadFormat is a claim of the verified token for a format string.
func payloadFormat(claim string) string {
	return metadataFormat(jwtNamespace, payloadKey, claim)
}

func routeFormat() string { return metadataFormat(rbacNamespace, routeKey) }

func metadataFormat(namespace string, path ...string) string {
	f := namespace
	for _, p := range path {
		f += ":" + p
	}
	return fmt.Sprintf("%%DYNAMIC_METADATA(%s)%%", f)
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

func present() *matcherv3.ValueMatcher {
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_PresentMatch{PresentMatch: true}}
}

func null() *matcherv3.ValueMatcher {
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_NullMatch_{NullMatch: &matcherv3.ValueMatcher_NullMatch{}}}
}

func equals(s string) *matcherv3.ValueMatcher { return matchValue(matchExact(s)) }

func matchValue(m *matcherv3.StringMatcher) *matcherv3.ValueMatcher {
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: m}}
}
