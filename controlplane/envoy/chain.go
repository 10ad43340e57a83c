package envoy

import (
	filterchainv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/filter_chain/v3"
	"google.golang.org/protobuf/proto"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// inboundChain is mesh.inbound: all filters in one resource, so that they
// change together, between two requests.
func inboundChain(rs *dataplanev1.Ruleset) (string, proto.Message, error) {
	type filter struct {
		name string
		msg  proto.Message
	}
	providers := newProviders(rs)
	filters := []filter{
		{"watchword.strip", stripHeaders(rs)},
	}
	if guard := requestGuard(rs); guard != nil {
		filters = append(filters, filter{"watchword.guard", guard})
	}
	filters = append(filters,
		filter{"watchword.route", routeLookup(rs.GetRoutes())},
		filter{"watchword.select", routeState()},
		filter{"watchword.jwt", jwtAuthn(rs, providers)},
		filter{"watchword.deny", denyFilter(rs)},
		filter{"watchword.allow", allowFilter(rs, providers)},
		filter{"watchword.identity", identityHeaders()},
	)

	chain := new(filterchainv3.FilterChain)
	for _, f := range filters {
		ext, err := extension(f.name, f.msg, nil)
		if err != nil {
			return "", nil, err
		}
		chain.Filters = append(chain.Filters, ext)
	}
	return InboundName(rs.GetService()), &filterchainv3.FilterChainConfig{DefaultFilterChain: chain}, nil
}
