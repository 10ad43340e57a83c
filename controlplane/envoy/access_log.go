package envoy

import (
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	otelv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/open_telemetry/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// RefusalLog is the name of the log in which a managed Envoy reports refusals
// to the control plane.
const RefusalLog = "watchword.refusals"

// Attributes of the sender of a RefusalLog. Envoy adds the last two itself.
const (
	SenderService = ServiceMetadata
	SenderNode    = "node_name"
	SenderLog     = "log_name"
)

// Attributes of a record of a RefusalLog, all of them text; see Reported for
// those that say why.
const (
	ReportedMethod = "method"
	ReportedPath   = "path" // without the query
	ReportedStatus = "status"
	ReportedPeer   = "peer" // IP address of the client

	reportedFacts           = "facts" // all of rbacNamespace, in JSON
	reportedIssuer          = "issuer"
	reportedSubject         = "subject"
	reportedObservedIssuer  = "observed_issuer"
	reportedObservedSubject = "observed_subject"
)

const (
	// refusalFlush is how long Envoy gathers records, and refusalBuffer, in
	// bytes, how many at most: what the control plane doesn't take in time is
	// dropped and counted, in access_logs.open_telemetry_access_log.logs_dropped.
	refusalFlush  = time.Second
	refusalBuffer = 16 << 10
	// refusalRequests is how many of those may be unanswered.
	refusalRequests = 8
)

// refusalLog reports requests that were refused, or would have been, to the
// control plane; all others cost a look at the metadata (0.4 microseconds).
//
// It is OpenTelemetry's log, since only that sends what we ask for and nothing
// else: Envoy's own log for HTTP always has the path with its query, which may
// hold a token, and its log for TCP, which has not, grows without bound while
// the control plane takes nothing (measured).
func refusalLog(service string) (*accesslogv3.AccessLog, error) {
	config, err := pack(&otelv3.OpenTelemetryAccessLogConfig{
		LogName: RefusalLog,
		GrpcService: &corev3.GrpcService{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: refusalCluster}},
		},
		BufferFlushInterval: durationpb.New(refusalFlush),
		BufferSizeBytes:     wrapperspb.UInt32(refusalBuffer),
		ResourceAttributes:  attributes(SenderService, service),
		Attributes: attributes(
			ReportedMethod, "%REQ(:METHOD):16%",
			ReportedPath, "%PATH(NQ):256%",
			ReportedStatus, "%RESPONSE_CODE%",
			ReportedPeer, "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT%",
			reportedFacts, metadataFormat(rbacNamespace),
			reportedIssuer, metadataFormat(jwtNamespace, payloadKey, "iss"),
			reportedSubject, metadataFormat(jwtNamespace, payloadKey, "sub"),
			reportedObservedIssuer, metadataFormat(jwtNamespace, observedPayload, "iss"),
			reportedObservedSubject, metadataFormat(jwtNamespace, observedPayload, "sub"),
		),
	})
	if err != nil {
		return nil, err
	}
	return &accesslogv3.AccessLog{
		Name:       "envoy.access_loggers.open_telemetry",
		Filter:     refused(),
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: config},
	}, nil
}

// attributes are pairs of a name and a format.
func attributes(pairs ...string) *commonv1.KeyValueList {
	list := new(commonv1.KeyValueList)
	for i := 0; i+1 < len(pairs); i += 2 {
		list.Values = append(list.Values, &commonv1.KeyValue{
			Key:   pairs[i],
			Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: pairs[i+1]}},
		})
	}
	return list
}

// refused selects what Outcome calls a refusal.
func refused() *accesslogv3.AccessLogFilter {
	or := new(accesslogv3.OrFilter)
	for _, stage := range enforcedStatPrefixes {
		or.Filters = append(or.Filters, metadataFilter(metadata(rbacNamespace, equals(resultDenied), stage+enforcedResult)))
	}
	for _, stage := range observedStatPrefixes {
		or.Filters = append(or.Filters, metadataFilter(metadata(rbacNamespace, equals(resultDenied), stage+shadowResult)))
	}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{OrFilter: or}}
}

func metadataFilter(m *matcherv3.MetadataMatcher) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_MetadataFilter{
		MetadataFilter: &accesslogv3.MetadataFilter{Matcher: m, MatchIfKeyNotFound: wrapperspb.Bool(false)},
	}}
}

// absent is what Envoy writes for what is not there.
const absent = "-"

// Reported puts the metadata that Outcome reads together again from the
// attributes of a record. Facts that can't be read are none.
func Reported(attributes map[string]string) *corev3.Metadata {
	rbac := new(structpb.Struct)
	if protojson.Unmarshal([]byte(attributes[reportedFacts]), rbac) != nil {
		rbac = nil
	}
	jwt := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	payload(jwt, payloadKey, attributes[reportedIssuer], attributes[reportedSubject])
	payload(jwt, observedPayload, attributes[reportedObservedIssuer], attributes[reportedObservedSubject])
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{rbacNamespace: rbac, jwtNamespace: jwt}}
}

func payload(jwt *structpb.Struct, key, issuer, subject string) {
	claims := map[string]*structpb.Value{}
	for name, v := range map[string]string{"iss": issuer, "sub": subject} {
		if v != "" && v != absent {
			claims[name] = structpb.NewStringValue(v)
		}
	}
	if len(claims) > 0 {
		jwt.Fields[key] = structpb.NewStructValue(&structpb.Struct{Fields: claims})
	}
}
