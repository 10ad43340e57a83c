package envoy

import (
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	streamlogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	filterchainv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/filter_chain/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

const (
	// firstConfigTimeout is how long a new listener waits for its filters
	// before it opens and refuses everything.
	firstConfigTimeout = 3 * time.Second
	// idleTimeout ends streams on which nothing moves.
	idleTimeout = 5 * time.Minute
	// keepOpen is how long a connection without streams stays open.
	keepOpen = time.Hour
	// headersTimeout is how long a client may take to send the headers.
	headersTimeout = 10 * time.Second
)

// inboundListener takes the requests of a service. It holds
// nothing that a policy or a key can change, so it is never replaced while
// connections are open.
func inboundListener(service string, in *dataplanev1.Inbound) (*listenerv3.Listener, error) {
	manager, err := connectionManager(service)
	if err != nil {
		return nil, err
	}
	filter, err := pack(manager)
	if err != nil {
		return nil, err
	}
	chain := &listenerv3.FilterChain{
		Filters: []*listenerv3.Filter{{
			Name:       "envoy.filters.network.http_connection_manager",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: filter},
		}},
	}
	if in.GetTls() {
		if chain.TransportSocket, err = serviceTLS(); err != nil {
			return nil, err
		}
	}
	return &listenerv3.Listener{
		Name:                          ListenerName(service),
		Address:                       socketAddress(in.GetAddress(), in.GetPort()),
		FilterChains:                  []*listenerv3.FilterChain{chain},
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(1 << 20),
	}, nil
}

// connectionManager normalises paths before any filter sees them. Escaped
// slashes are refused, not decoded: decoded, /a%2Fb becomes /a/b, which the
// service may never have meant by either.
func connectionManager(service string) (*hcmv3.HttpConnectionManager, error) {
	filters, err := httpFilters(service)
	if err != nil {
		return nil, err
	}
	log, err := accessLog(service)
	if err != nil {
		return nil, err
	}
	refusals, err := refusalLog(service)
	if err != nil {
		return nil, err
	}
	return &hcmv3.HttpConnectionManager{
		CodecType:  hcmv3.HttpConnectionManager_AUTO, // HTTP/1.1, or HTTP/2 with prior knowledge
		StatPrefix: "inbound",
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{
			RouteConfig: localRoute(service),
		},
		HttpFilters: filters,
		AccessLog:   []*accesslogv3.AccessLog{log, refusals},

		NormalizePath:                wrapperspb.Bool(true),
		MergeSlashes:                 true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_REJECT_REQUEST,
		StripTrailingHostDot:         true,
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			// x_watchword_caller would be X-Watchword-Caller to many servers.
			HeadersWithUnderscoresAction: corev3.HttpProtocolOptions_REJECT_REQUEST,
			IdleTimeout:                  durationpb.New(keepOpen),
		},

		// The peer is the client; what x-forwarded-for says is handed on, but
		// trusted by nothing here, and nobody is "internal".
		UseRemoteAddress:           wrapperspb.Bool(true),
		InternalAddressConfig:      nobodyInternal(),
		ServerHeaderTransformation: hcmv3.HttpConnectionManager_PASS_THROUGH,

		StreamIdleTimeout:     durationpb.New(idleTimeout),
		RequestHeadersTimeout: durationpb.New(headersTimeout),
	}, nil
}

// nobodyInternal keeps callers from steering Envoy with x-envoy- headers, which
// it believes of peers with a private or loopback address. No range at all
// would mean that default, so this is one that no peer can have.
func nobodyInternal() *hcmv3.HttpConnectionManager_InternalAddressConfig {
	return &hcmv3.HttpConnectionManager_InternalAddressConfig{
		CidrRanges: []*corev3.CidrRange{{AddressPrefix: "255.255.255.255", PrefixLen: wrapperspb.UInt32(32)}},
	}
}

// localRoute forwards everything. There is no timeout for a whole response:
// callers have their own, and streams may be long.
func localRoute(service string) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{
		Name: ClusterName(service),
		VirtualHosts: []*routev3.VirtualHost{{
			Name:    "all",
			Domains: []string{"*"},
			Routes: []*routev3.Route{{
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{
					ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: ClusterName(service)},
					Timeout:          durationpb.New(0),
				}},
			}},
		}},
	}
}

// httpFilters are those that we fill, and the router.
func httpFilters(service string) ([]*hcmv3.HttpFilter, error) {
	inbound, err := discovered(InboundName(service), new(filterchainv3.FilterChainConfig))
	if err != nil {
		return nil, err
	}
	revoked, err := discovered(RevokedName(service), new(rbacv3.RBAC))
	if err != nil {
		return nil, err
	}
	lease, err := discovered(LeaseName, new(rbacv3.RBAC))
	if err != nil {
		return nil, err
	}
	router, err := pack(new(routerv3.Router))
	if err != nil {
		return nil, err
	}
	return []*hcmv3.HttpFilter{inbound, revoked, lease, {
		Name:       "envoy.filters.http.router",
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: router},
	}}, nil
}

// discovered is a filter whose config comes over ADS, and which refuses every
// request until it does.
func discovered(name string, config proto.Message) (*hcmv3.HttpFilter, error) {
	deny, err := pack(&rbacv3.RBAC{Rules: &rbacconfigv3.RBAC{}})
	if err != nil {
		return nil, err
	}
	return &hcmv3.HttpFilter{
		Name: name,
		ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: &corev3.ExtensionConfigSource{
			ConfigSource:  adsSource(firstConfigTimeout),
			DefaultConfig: deny,
			TypeUrls:      typeURLs(config),
		}},
	}, nil
}

// typeURLs are the type of the config, and that of the default, which Envoy
// looks up in the same list.
func typeURLs(config proto.Message) []string {
	deny := typeURL(new(rbacv3.RBAC))
	if u := typeURL(config); u != deny {
		return []string{u, deny}
	}
	return []string{deny}
}

func typeURL(m proto.Message) string {
	return "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName())
}

func adsSource(firstFetch time.Duration) *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   durationpb.New(firstFetch),
	}
}

// accessLog writes one JSON object a request to stdout; `details` says why a
// request was refused. Neither the query nor any header that may hold a token is
// in it.
func accessLog(service string) (*accesslogv3.AccessLog, error) {
	return stdoutLog(map[string]any{
		"time":        "%START_TIME%",
		"service":     service,
		"method":      "%REQ(:METHOD)%",
		"host":        "%REQ(:AUTHORITY)%",
		"path":        "%PATH(NQ)%",
		"protocol":    "%PROTOCOL%",
		"status":      "%RESPONSE_CODE%",
		"grpc_status": "%GRPC_STATUS_NUMBER%",
		"details":     "%RESPONSE_CODE_DETAILS%",
		"flags":       "%RESPONSE_FLAGS%",
		"route":       routeFormat(),
		"caller":      payloadFormat("sub"),
		"issuer":      payloadFormat("iss"),
		"token_id":    payloadFormat("jti"),
		"peer":        "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
		"request_id":  "%REQ(X-REQUEST-ID)%",
		"duration_ms": "%DURATION%",
		"bytes_in":    "%BYTES_RECEIVED%",
		"bytes_out":   "%BYTES_SENT%",
	})
}

// stdoutLog has one member for each field that is not empty.
func stdoutLog(fields map[string]any) (*accesslogv3.AccessLog, error) {
	format, err := structpb.NewStruct(fields)
	if err != nil {
		return nil, err
	}
	config, err := pack(&streamlogv3.StdoutAccessLog{
		AccessLogFormat: &streamlogv3.StdoutAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
			Format:          &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: format},
			OmitEmptyValues: true,
		}},
	})
	if err != nil {
		return nil, err
	}
	return &accesslogv3.AccessLog{
		Name:       "envoy.access_loggers.stdout",
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: config},
	}, nil
}
