package accesslog

import (
	"fmt"
	"testing"

	logsv1 "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"
)

// BenchmarkRecord is what a record costs from the wire to the ledger, in
// reports of the size that Envoy sends: what Config.Rate is to be seen with.
func BenchmarkRecord(b *testing.B) {
	const batch = 25
	var records []*record
	for i := range batch {
		rec := denied("deny", "consumer_denied[p/0]",
			"watchword_route_shadow_effective_policy_id", "route-0001", "watchword_route_shadow_engine_result", "allowed",
			"watchword_consumer_shadow_effective_policy_id", "acme", "watchword_consumer_shadow_engine_result", "allowed",
			"watchword_verify_enforced_engine_result", "allowed", "watchword_claims_enforced_engine_result", "allowed")
		rec.Attributes = append(rec.Attributes, pairs("method", "GET", "path", "/orders/7", "status", "403", "peer", "10.0.0.9",
			"issuer", "https://a.example", "subject", fmt.Sprint("caller-", i), "observed_issuer", "-", "observed_subject", "-")...)
		records = append(records, rec)
	}
	wire, err := proto.Marshal(from("orders", records...))
	if err != nil {
		b.Fatal(err)
	}
	s := New(Config{Rate: 1 << 40}.forTest())
	b.SetBytes(int64(len(wire)))
	b.ReportAllocs()
	for b.Loop() {
		report := new(logsv1.ExportLogsServiceRequest)
		if err := proto.Unmarshal(wire, report); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Export(b.Context(), report); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/record")
	b.ReportMetric(float64(len(wire))/batch, "B/record")
}
