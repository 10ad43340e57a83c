package controlplane

import (
	"context"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	accesslogdata "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogservice "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/controlplane/accesslog"
	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// What a data plane reports is shown with the names of the policies in force,
// and under the service if there is one.
func TestRefusalsAreShown(t *testing.T) {
	r := begin(t)
	r.apply(r.edit(`{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: b}, spec: {routes: [{name: read, paths: [/read]}]}}`))
	at := time.Unix(1000, 0).UTC()
	log := accesslog.New(accesslog.Config{Known: r.hasService, RouteName: r.routes.name, Now: func() time.Time { return at }})
	r.serve(log.Register)
	report(t, r, "b", "node-b", at.Add(-time.Second))
	report(t, r, "nobody", "node-n", at.Add(-2*time.Second))
	r.apply(r.edit("", policy.Key{Kind: policy.KindService, Name: "b"}))
	report(t, r, "b", "node-b", at.Add(-3*time.Second))

	caller := &adminv1.Refusal_Caller{Consumer: "acme", Issuer: "http://idp", Subject: "app"}
	count := func(service string, who *adminv1.Refusal_Caller, n int64) *adminv1.RefusalCount {
		return &adminv1.RefusalCount{Service: service, Caller: who, Reason: "consumer_denied", Enforcement: adminv1.Refusal_OBSERVED, Count: n, LastSeen: timestamppb.New(at)}
	}
	refusal := func(service, node, route string, ago time.Duration) *adminv1.Refusal {
		return &adminv1.Refusal{Time: timestamppb.New(at.Add(-ago)), Service: service, Node: node, Peer: "10.0.0.9", Route: route, Method: "GET", Path: "/read",
			Status: 200, Caller: caller, Reason: "consumer_denied", Rule: "later/1", Enforcement: adminv1.Refusal_OBSERVED}
	}
	want := &adminv1.ListRefusalsResponse{
		Since:  timestamppb.New(at),
		Counts: []*adminv1.RefusalCount{count("(other)", &adminv1.Refusal_Caller{Other: true}, 2), count("b", caller, 1)},
		Sample: []*adminv1.Refusal{
			refusal("b", "node-b", "read", time.Second),
			refusal("(other)", "node-n", "route-0000", 2*time.Second),
			refusal("(other)", "node-b", "route-0000", 3*time.Second), // its policies are gone
		},
	}
	if diff := cmp.Diff(want, refusals{log: log}.List(""), protocmp.Transform()); diff != "" {
		t.Errorf("refusals (-want +got):\n%s", diff)
	}
}

// report sends what an Envoy does of a request that would have been refused on
// the first route, and waits for the answer.
func report(t *testing.T, r *replicaInMemory, service, node string, at time.Time) {
	t.Helper()
	facts := map[string]any{
		"envoy.filters.http.rbac": map[string]any{
			"watchword_observed_deny_shadow_engine_result":       "denied",
			"watchword_observed_deny_shadow_effective_policy_id": "consumer_denied[later/1]",
			"watchword_route_shadow_effective_policy_id":         "route-0000",
			"watchword_consumer_shadow_effective_policy_id":      "acme",
		},
		"envoy.filters.http.jwt_authn": map[string]any{"watchword_jwt": map[string]any{"iss": "http://idp", "sub": "app"}},
	}
	md := &core.Metadata{FilterMetadata: map[string]*structpb.Struct{}}
	for namespace, values := range facts {
		s, err := structpb.NewStruct(values.(map[string]any))
		if err != nil {
			t.Fatal(err)
		}
		md.FilterMetadata[namespace] = s
	}
	stream, err := accesslogservice.NewAccessLogServiceClient(r.conn).StreamAccessLogs(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	err = stream.Send(&accesslogservice.StreamAccessLogsMessage{
		Identifier: &accesslogservice.StreamAccessLogsMessage_Identifier{LogName: envoy.RefusalLog, Node: &core.Node{Id: node, Cluster: service}},
		LogEntries: &accesslogservice.StreamAccessLogsMessage_TcpLogs{TcpLogs: &accesslogservice.StreamAccessLogsMessage_TCPAccessLogEntries{
			LogEntry: []*accesslogdata.TCPAccessLogEntry{{CommonProperties: &accesslogdata.AccessLogCommon{
				StartTime:  timestamppb.New(at),
				Metadata:   md,
				CustomTags: map[string]string{envoy.MethodTag: "GET", envoy.PathTag: "/read", envoy.StatusTag: "200"},
				DownstreamDirectRemoteAddress: &core.Address{Address: &core.Address_SocketAddress{
					SocketAddress: &core.SocketAddress{Address: "10.0.0.9"}}},
			}}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.CloseAndRecv(); err != nil {
		t.Fatal(err)
	}
}
