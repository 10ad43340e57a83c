package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// outboundListener takes the service's own requests, without TLS. It holds
// nothing that a policy can change.
func outboundListener(o *dataplanev1.Outbound) (*listenerv3.Listener, error) {
	manager, err := outboundManager(o.GetService())
	if err != nil {
		return nil, err
	}
	filter, err := pack(manager)
	if err != nil {
		return nil, err
	}
	return &listenerv3.Listener{
		Name:    OutboundName(o.GetService()),
		Address: socketAddress(o.GetListener().GetAddress(), o.GetListener().GetPort()),
		FilterChains: []*listenerv3.FilterChain{{
			Filters: []*listenerv3.Filter{{
				Name:       "envoy.filters.network.http_connection_manager",
				ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: filter},
			}},
		}},
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(1 << 20),
	}, nil
}

// outboundManager hands paths on as they are: what they mean, the callee decides.
func outboundManager(service string) (*hcmv3.HttpConnectionManager, error) {
	strip, err := pack(stripIdentity())
	if err != nil {
		return nil, err
	}
	router, err := pack(new(routerv3.Router))
	if err != nil {
		return nil, err
	}
	log, err := outboundLog(service)
	if err != nil {
		return nil, err
	}
	return &hcmv3.HttpConnectionManager{
		CodecType:  hcmv3.HttpConnectionManager_AUTO, // HTTP/1.1, or HTTP/2 with prior knowledge
		StatPrefix: "outbound",
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			ConfigSource:    adsSource(firstConfigTimeout),
			RouteConfigName: OutboundName(service),
		}},
		HttpFilters: []*hcmv3.HttpFilter{
			{Name: "watchword.strip", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: strip}},
			{Name: "envoy.filters.http.router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: router}},
		},
		AccessLog: []*accesslogv3.AccessLog{log},

		StripTrailingHostDot:      true,
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: durationpb.New(keepOpen)},

		// The service is no proxy that Envoy would believe x-envoy- headers of:
		// its own callers may have sent them.
		UseRemoteAddress:           wrapperspb.Bool(true),
		SkipXffAppend:              true,
		InternalAddressConfig:      nobodyInternal(),
		PreserveExternalRequestId:  true,
		ServerHeaderTransformation: hcmv3.HttpConnectionManager_PASS_THROUGH,

		StreamIdleTimeout:     durationpb.New(idleTimeout),
		RequestHeadersTimeout: durationpb.New(headersTimeout),
	}, nil
}

// stripIdentity removes what tells a service who called: a program that hands on
// the headers that it got would speak for its caller.
func stripIdentity() *headermutationv3.HeaderMutation {
	names := []*mutationv3.HeaderMutation{removeHeader(headerPrefix, ".+")}
	return &headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{
		RequestMutations: names, RequestTrailersMutations: names,
	}}
}

// outboundLog writes one JSON object a request to stdout, as accessLog does.
func outboundLog(service string) (*accesslogv3.AccessLog, error) {
	return stdoutLog(map[string]any{
		"time":        "%START_TIME%",
		"service":     service,
		"callee":      "%UPSTREAM_CLUSTER%",
		"method":      "%REQ(:METHOD)%",
		"host":        "%REQ(:AUTHORITY)%",
		"path":        "%PATH(NQ)%",
		"protocol":    "%PROTOCOL%",
		"status":      "%RESPONSE_CODE%",
		"grpc_status": "%GRPC_STATUS_NUMBER%",
		"details":     "%RESPONSE_CODE_DETAILS%",
		"flags":       "%RESPONSE_FLAGS%",
		"endpoint":    "%UPSTREAM_HOST%",
		"failure":     "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
		"request_id":  "%REQ(X-REQUEST-ID)%",
		"duration_ms": "%DURATION%",
		"bytes_in":    "%BYTES_RECEIVED%",
		"bytes_out":   "%BYTES_SENT%",
	})
}
