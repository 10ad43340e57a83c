package envoy

import (
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// RefusalLog is the name of the log in which a managed Envoy reports refusals
// to the control plane.
const RefusalLog = "watchword.refusals"

// Tags of an entry of the RefusalLog.
const (
	MethodTag = "method"
	PathTag   = "path" // without the query
	StatusTag = "status"
)

const (
	// refusalFlush is how long Envoy gathers entries, and refusalBuffer, in
	// bytes, how many: what the control plane doesn't take in time is dropped
	// and counted, in access_logs.grpc_access_log.logs_dropped.
	refusalFlush  = time.Second
	refusalBuffer = 16 << 10
)

// refusalLog reports requests that were refused, or would have been, to the
// control plane; all others cost a look at the metadata. It is the log for TCP,
// whose entries have the metadata but nothing of the request: the one for HTTP
// always sends the path with its query, which may hold a token.
func refusalLog() (*accesslogv3.AccessLog, error) {
	config, err := pack(&grpclogv3.TcpGrpcAccessLogConfig{CommonConfig: &grpclogv3.CommonGrpcAccessLogConfig{
		LogName: RefusalLog,
		GrpcService: &corev3.GrpcService{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: controlPlane}},
		},
		TransportApiVersion: corev3.ApiVersion_V3,
		BufferFlushInterval: durationpb.New(refusalFlush),
		BufferSizeBytes:     wrapperspb.UInt32(refusalBuffer),
		CustomTags: []*tracingv3.CustomTag{
			tag(MethodTag, "%REQ(:METHOD):16%"),
			tag(PathTag, "%PATH(NQ):256%"),
			tag(StatusTag, "%RESPONSE_CODE%"),
		},
	}})
	if err != nil {
		return nil, err
	}
	return &accesslogv3.AccessLog{
		Name:       "envoy.access_loggers.tcp_grpc",
		Filter:     refused(),
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: config},
	}, nil
}

func tag(name, format string) *tracingv3.CustomTag {
	return &tracingv3.CustomTag{Tag: name, Type: &tracingv3.CustomTag_Value{Value: format}}
}

// refused selects what Outcome calls a refusal.
func refused() *accesslogv3.AccessLogFilter {
	or := new(accesslogv3.OrFilter)
	for _, stage := range enforcedStages {
		or.Filters = append(or.Filters, metadataFilter(metadata(rbacNamespace, equals(resultDenied), stage+enforcedResult)))
	}
	for _, stage := range observedStages {
		or.Filters = append(or.Filters, metadataFilter(metadata(rbacNamespace, equals(resultDenied), stage+observedResult)))
	}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{OrFilter: or}}
}

func metadataFilter(m *matcherv3.MetadataMatcher) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_MetadataFilter{
		MetadataFilter: &accesslogv3.MetadataFilter{Matcher: m, MatchIfKeyNotFound: wrapperspb.Bool(false)},
	}}
}
