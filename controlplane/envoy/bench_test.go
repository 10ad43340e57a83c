package envoy

import (
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// BenchmarkResources translates a service with two issuers, two routes and
// rules of both actions: what a changed key costs for each service that takes
// tokens of its issuer.
func BenchmarkResources(b *testing.B) {
	text, err := os.ReadFile("testdata/authorization.txtar")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "-- ruleset --\n")
	input, _, _ := strings.Cut(rest, "-- resources --")
	rs := &dataplanev1.Ruleset{}
	if err := protojson.Unmarshal([]byte(input), rs); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Resources(rs); err != nil {
			b.Fatal(err)
		}
	}
}
