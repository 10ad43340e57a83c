package controlplane

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	logsv1 "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	logsdatav1 "go.opentelemetry.io/proto/otlp/logs/v1"
	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/controlplane/accesslog"
	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// What a data plane reports is shown with the names of the policies in force,
// and under the service if there is one. A service that is gone is forgotten.
func TestRefusalsAreShown(t *testing.T) {
	r := begin(t)
	r.apply(r.edit(`{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: b}, spec: {routes: [{name: read, paths: [/read]}]}}`))
	at := time.Unix(1000, 0).UTC()
	log := accesslog.New(accesslog.Config{Identify: serviceOf, Known: r.hasService, RouteName: r.routes.name, Now: func() time.Time { return at }})
	r.loop.refusals = log
	r.serve(log.Register)
	report(t, r, "b", "node-b", at.Add(-time.Second))
	report(t, r, "nobody", "node-n", at.Add(-2*time.Second))

	caller := &adminv1.Refusal_Caller{Consumer: "acme", Issuer: "http://idp", Subject: "app"}
	count := func(service string, who *adminv1.Refusal_Caller, n int64) *adminv1.RefusalCount {
		return &adminv1.RefusalCount{Service: service, Caller: who, Reason: "consumer_denied", Enforcement: adminv1.Refusal_OBSERVED, Count: n, LastSeen: timestamppb.New(at)}
	}
	refusal := func(service, node, route string, ago time.Duration) *adminv1.Refusal {
		return &adminv1.Refusal{Time: timestamppb.New(at.Add(-ago)), Service: service, Node: node, Peer: "10.0.0.9", Route: route, Method: "GET", Path: "/read",
			Status: 200, Caller: caller, Reason: "consumer_denied", Rule: "later/1", Enforcement: adminv1.Refusal_OBSERVED}
	}
	list := func(counts ...*adminv1.RefusalCount) *adminv1.ListRefusalsResponse {
		return &adminv1.ListRefusalsResponse{Since: timestamppb.New(at), Counts: counts}
	}
	check := func(when string, want *adminv1.ListRefusalsResponse, sample ...*adminv1.Refusal) {
		t.Helper()
		want.Sample = sample
		if diff := cmp.Diff(want, refusals{log: log}.List(""), protocmp.Transform()); diff != "" {
			t.Errorf("refusals %s (-want +got):\n%s", when, diff)
		}
	}
	other := &adminv1.Refusal_Caller{Other: true}
	nobody := refusal("(other)", "node-n", "route-0000", 2*time.Second)
	check("of b", list(count("(other)", other, 1), count("b", caller, 1)), refusal("b", "node-b", "read", time.Second), nobody)
	r.apply(r.edit("", policy.Key{Kind: policy.KindService, Name: "b"}))
	report(t, r, "b", "node-b", at.Add(-3*time.Second))
	check("after b is gone", list(count("(other)", other, 2)), nobody, refusal("(other)", "node-b", "route-0000", 3*time.Second))
}

// report sends what an Envoy does of a request that would have been refused on
// the first route.
func report(t *testing.T, r *replicaInMemory, service, node string, at time.Time) {
	t.Helper()
	_, err := logsv1.NewLogsServiceClient(r.conn).Export(asService(t.Context(), service), &logsv1.ExportLogsServiceRequest{ResourceLogs: []*logsdatav1.ResourceLogs{{
		Resource: &resourcev1.Resource{Attributes: texts(envoy.SenderLog, envoy.RefusalLog, envoy.SenderNode, node, envoy.SenderService, service)},
		ScopeLogs: []*logsdatav1.ScopeLogs{{LogRecords: []*logsdatav1.LogRecord{{
			TimeUnixNano: uint64(at.UnixNano()),
			Attributes: texts(
				envoy.ReportedMethod, "GET", envoy.ReportedPath, "/read", envoy.ReportedStatus, "200", envoy.ReportedPeer, "10.0.0.9",
				"issuer", "http://idp", "subject", "app", "facts", `{
					"watchword_observed_deny_shadow_engine_result": "denied",
					"watchword_observed_deny_shadow_effective_policy_id": "consumer_denied[later/1]",
					"watchword_route_shadow_effective_policy_id": "route-0000",
					"watchword_consumer_shadow_effective_policy_id": "acme"}`),
		}}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
}

func texts(pairs ...string) []*commonv1.KeyValue {
	var out []*commonv1.KeyValue
	for i := 0; i+1 < len(pairs); i += 2 {
		out = append(out, &commonv1.KeyValue{Key: pairs[i], Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: pairs[i+1]}}})
	}
	return out
}
