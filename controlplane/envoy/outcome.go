package envoy

import (
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/watchword-mesh/watchword/dataplane/reason"
)

// The RBAC filters that refuse, and those that only record what they would
// refuse, in the order in which a reason counts. Each begins what it writes
// under rbacNamespace with its prefix.
var (
	enforcedStages = []string{
		"watchword_guard_", "watchword_verify_", "watchword_claims_",
		"watchword_deny_", "watchword_authorize_", "watchword_revoked_",
	}
	observedStages = []string{
		"watchword_observed_verify_", "watchword_observed_claims_",
		"watchword_observed_deny_", "watchword_observed_authorize_",
	}
)

// What Envoy's RBAC filter appends to the prefix: whether it refuses, and the
// policy or the action that says so.
const (
	enforcedResult = "enforced_engine_result"
	enforcedPolicy = "enforced_effective_policy_id"
	observedResult = "shadow_engine_result"
	observedPolicy = "shadow_effective_policy_id"
	resultDenied   = "denied"

	callingConsumer = "watchword_consumer_" + observedPolicy
	// Under jwtNamespace: claims that only an observed policy has verified.
	observedPayload = "watchword_observed_jwt"
)

// unnamed is the reason of a filter that refuses and names none, which no filter
// of ours does.
const unnamed reason.Word = "unnamed"

// Refusal is why a request was refused, or would have been, and who made it.
type Refusal struct {
	// Reason is empty if the request was let through.
	Reason reason.Word
	// Rule is the authorization rule that refused, POLICY/INDEX, if one did.
	Rule string
	// Observed is the reason for which the request would have been refused, if
	// what is only observed were enforced; else it is empty.
	Observed     reason.Word
	ObservedRule string
	// RouteID names the route of the ruleset: see RouteIndex.
	RouteID string
	// Issuer and Subject are the `iss` and `sub` of the token, if it was
	// verified.
	Issuer, Subject string
	// Consumer that the token identifies, if any.
	Consumer string
}

// Outcome reads what the filters of a service have left in the dynamic metadata
// of a request; false means that nothing refused it, or would have. Of the claims
// of the token it takes two, and leaves the others where they are.
func Outcome(md *corev3.Metadata) (Refusal, bool) {
	facts := md.GetFilterMetadata()[rbacNamespace].GetFields()
	var r Refusal
	r.Reason, r.Rule = refusedBy(facts, enforcedStages, enforcedResult, enforcedPolicy)
	r.Observed, r.ObservedRule = refusedBy(facts, observedStages, observedResult, observedPolicy)
	if r.Reason == "" && r.Observed == "" {
		return Refusal{}, false
	}
	r.RouteID = facts[routeKey].GetStringValue()
	r.Consumer = facts[callingConsumer].GetStringValue()
	claims := callerClaims(md, r.Reason == "")
	r.Issuer, r.Subject = claims["iss"].GetStringValue(), claims["sub"].GetStringValue()
	return r, true
}

// RouteIndex is the place in its ruleset of the route that an id names.
func RouteIndex(id string) (int, bool) {
	_, digits, _ := strings.Cut(id, "-")
	i, err := strconv.Atoi(digits)
	return i, err == nil && i >= 0 && routeID(i) == id
}

// refusedBy finds the first stage that has refused.
func refusedBy(facts map[string]*structpb.Value, stages []string, result, policy string) (reason.Word, string) {
	for _, stage := range stages {
		if facts[stage+result].GetStringValue() == resultDenied {
			return splitReason(facts[stage+policy].GetStringValue())
		}
	}
	return "", ""
}

// splitReason takes apart what reason.Word.Of has put together, whatever
// number follows.
func splitReason(id string) (reason.Word, string) {
	word := reason.Parse(id)
	if word == "" {
		return unnamed, ""
	}
	_, rest, _ := strings.Cut(id, "[")
	if end := strings.LastIndex(rest, "]"); end >= 0 {
		return word, rest[:end]
	}
	return word, ""
}

// callerClaims are those of the token that was verified; for a request that was
// let through also of one that only an observed policy has verified.
func callerClaims(md *corev3.Metadata, letThrough bool) map[string]*structpb.Value {
	jwt := md.GetFilterMetadata()[jwtNamespace].GetFields()
	claims := jwt[payloadKey].GetStructValue().GetFields()
	if claims == nil && letThrough {
		claims = jwt[observedPayload].GetStructValue().GetFields()
	}
	return claims
}
