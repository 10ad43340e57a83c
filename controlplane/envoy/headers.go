package envoy

import (
	"regexp"
	"slices"
	"strings"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// Headers that tell the service who called. They are there only if that is
// known.
const (
	// CallerHeader has the `sub` claim.
	CallerHeader = "x-watchword-caller"
	// IssuerHeader has the `iss` claim.
	IssuerHeader = "x-watchword-issuer"
	// ConsumerHeader has the name of the Consumer.
	ConsumerHeader = "x-watchword-consumer"

	headerPrefix = "x-watchword-"
)

// stripHeaders removes what only we may set, from every request: also on
// routes where no token is looked at. Then it sets what jwt_authn reads.
func stripHeaders(p *plan) *headermutationv3.HeaderMutation {
	names := []*mutationv3.HeaderMutation{removeHeader(headerPrefix, ".+")}
	for _, h := range outputHeaders(p.rs) {
		if !strings.HasPrefix(h, headerPrefix) {
			names = append(names, removeHeader(h, ""))
		}
	}
	// Some servers take trailers for headers that came late (RFC 9110 section 6.5.1).
	m := &headermutationv3.Mutations{RequestTrailersMutations: names, RequestMutations: slices.Clone(names)}
	if p.enforced != nil || p.observed != nil {
		m.RequestMutations = append(m.RequestMutations, setHeader(passHeader, passingToken))
	}
	return &headermutationv3.HeaderMutation{Mutations: m}
}

// removeHeader removes name and whatever reads the same: servers that hand
// headers on as variables (CGI, RFC 3875 section 4.1.18) can't tell a hyphen
// from an underscore. Envoy has made header names lower case by then.
func removeHeader(name, suffix string) *mutationv3.HeaderMutation {
	re := strings.ReplaceAll(regexp.QuoteMeta(strings.ReplaceAll(name, "_", "-")), "-", "[-_]") + suffix
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
		RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{KeyMatcher: matchRegex(re)},
	}}
}

// outputHeaders are the headers that any route fills and that a caller must not,
// sorted.
func outputHeaders(rs *dataplanev1.Ruleset) []string {
	out := slices.Clone(rs.GetStrippedHeaders())
	for _, r := range rs.GetRoutes() {
		for _, h := range r.GetAuthentication().GetConsumerHeaders() {
			out = append(out, h.GetHeader())
		}
		for _, tr := range r.GetAuthentication().GetRules() {
			if tr.GetPayloadHeader() != "" {
				out = append(out, tr.GetPayloadHeader())
			}
			for _, oc := range tr.GetOutputClaims() {
				if oc.GetHeader() != "" && !oc.GetKeepExisting() {
					out = append(out, oc.GetHeader())
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// identityHeaders tells the service who called, after all that only the chain
// needs is removed. Envoy adds no header when the metadata that it names is not
// there.
func identityHeaders(p *plan) *headermutationv3.HeaderMutation {
	m := &headermutationv3.Mutations{RequestMutations: []*mutationv3.HeaderMutation{
		removeHeader(headerPrefix, ".+"),
		setHeader(CallerHeader, payloadFormat("sub")),
		setHeader(IssuerHeader, payloadFormat("iss")),
		setHeader(ConsumerHeader, metadataFormat(rbacNamespace, consumerKey)),
	}}
	for i, h := range consumerHeaders(p) {
		m.RequestMutations = append(m.RequestMutations, h.set(i))
	}
	return &headermutationv3.HeaderMutation{Mutations: m}
}

func setHeader(name, value string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_Append{
		Append: &corev3.HeaderValueOption{
			Header:       &corev3.HeaderValue{Key: name, Value: value},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		},
	}}
}

func matchRegex(re string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: re},
	}}
}

func matchExact(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

func matchPrefix(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: s}}
}
