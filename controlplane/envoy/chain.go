package envoy

import (
	filterchainv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/filter_chain/v3"
	"google.golang.org/protobuf/proto"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// filter is one of the chain. Nil messages are left out.
type filter struct {
	name string
	msg  proto.Message
}

// inboundChain is mesh.inbound: all filters in one resource, so that they
// change together, between two requests.
func inboundChain(rs *dataplanev1.Ruleset) (string, proto.Message, error) {
	chain := new(filterchainv3.FilterChain)
	for _, f := range newPlan(rs).filters() {
		if f.msg == nil || !f.msg.ProtoReflect().IsValid() {
			continue
		}
		ext, err := extension(f.name, f.msg, nil)
		if err != nil {
			return "", nil, err
		}
		chain.Filters = append(chain.Filters, ext)
	}
	return InboundName(rs.GetService()), &filterchainv3.FilterChainConfig{DefaultFilterChain: chain}, nil
}

func (p *plan) filters() []filter {
	list := []filter{
		{"watchword.refusal", refusalScript(p)},
		{"watchword.strip", stripHeaders(p)},
		{"watchword.guard", requestGuard(p.rs)},
		{"watchword.route", routeLookup(p.rs.GetRoutes())},
	}
	selected := []stateValue{{routeStateKey, routeFormat()}}
	if p.shared() {
		list = append(list, filter{"watchword.select.route", filterState(selected)}, filter{"watchword.treatment", treatmentFact(p)})
		selected = []stateValue{{treatmentStateKey, metadataFormat(rbacNamespace, treatmentKey)}}
	}
	list = append(list, filter{"watchword.token", p.script.filter(p)})
	for _, v := range []*verification{p.observed, p.enforced} {
		if v != nil {
			selected = append(selected, v.ready()...)
		}
	}
	list = append(list, filter{"watchword.select", filterState(selected)})
	var results []stateValue
	for _, v := range []*verification{p.observed, p.enforced} {
		if v != nil {
			list = append(list, v.filters()...)
			results = append(results, v.results()...)
		}
	}
	list = append(list, permissive(p)...)
	if len(results) > 0 {
		list = append(list, filter{"watchword.results", filterState(results)})
	}
	list = append(list, filter{"watchword.consumer", consumerFact(p)})
	if signer := signerFact(p); signer != nil {
		list = append(list, filter{"watchword.signer", signer}, filter{"watchword.revocable", filterState(revocable(p))})
	}
	for i, h := range consumerHeaders(p) {
		list = append(list, filter{"watchword.attribute." + h.header, h.fact(p, i)})
	}
	list = append(list,
		filter{"watchword.verify", verifyFilter(p)},
		filter{"watchword.claims", claimsFilter(p)},
		filter{"watchword.deny", denyFilter(p)},
		filter{"watchword.allow", allowFact(p)},
		filter{"watchword.authorize", authorizeFilter()},
		filter{"watchword.observed.verify", observedVerifyFilter(p)},
		filter{"watchword.observed.claims", observedClaimsFilter(p)},
	)
	list = append(list, observedAuthorization(p)...)
	return append(list,
		filter{"watchword.output.script", outputScript(p)},
		filter{"watchword.output", outputMutations(p)},
		filter{"watchword.identity", identityHeaders(p)},
	)
}

// filters are the instances in order, and between them what keeps a later one
// from looking at a token that is verified.
func (v *verification) filters() []filter {
	var list []filter
	for _, in := range v.instances {
		list = append(list, filter{in.name, v.jwtAuthn(in)})
		if done := v.done(in); len(done) > 0 {
			list = append(list, filter{in.name + ".done", filterState(done)})
		}
	}
	return list
}
