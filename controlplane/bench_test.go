package controlplane

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/controlplane/xds"
	"github.com/watchword-mesh/watchword/issuer/keyset"
	"github.com/watchword-mesh/watchword/issuer/sts"
)

// BenchmarkInstanceEvent is what an enrolment costs the loop in a mesh of 3,000
// services. x-small is that as a multiple of what it costs in a mesh of three: an
// instance changes nothing that data planes get, so it should not depend on the
// size. Both take turns.
func BenchmarkInstanceEvent(b *testing.B) {
	small, large := loopOfServices(b, 3), loopOfServices(b, 3000)
	var ofSmall, ofLarge time.Duration
	b.ReportAllocs()
	for revision := int64(2); b.Loop(); revision++ {
		ofSmall += enrolled(small, revision)
		ofLarge += enrolled(large, revision)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(ofLarge.Nanoseconds())/float64(b.N), "ns/event")
	b.ReportMetric(float64(ofLarge)/float64(ofSmall), "x-small")
}

func enrolled(l *loop, revision int64) time.Duration {
	next := *l.current.Load()
	next.Revision = revision
	began := time.Now()
	l.apply(store.Event{Snapshot: &next, Instances: []string{"service-1/one"}})
	return time.Since(began)
}

// loopOfServices is a loop whose services each have a policy.
func loopOfServices(b *testing.B, n int) *loop {
	b.Helper()
	var text strings.Builder
	text.WriteString(meshYAML)
	for i := range n {
		fmt.Fprintf(&text, `
---
{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: service-%[1]d}, spec: {}}
---
{apiVersion: watchword.dev/v1, kind: AuthenticationPolicy, metadata: {name: service-%[1]d}, spec: {target: {services: [service-%[1]d]}, jwtRules: [{issuer: idp, audiences: [c]}]}}
`, i)
	}
	registry := prometheus.NewRegistry()
	l := loopOf(hclog.NewNullLogger(), xds.New(xdsConfig(registry)), sts.New(sts.Config{Registerer: registry}), newLoopMetrics(registry))
	key := signingKey(b)
	l.start(&store.Snapshot{Revision: 1, Config: parse(b, text.String()), Keys: map[string]keyset.Record{key.KeyID: key}, Open: keyset.Open{Active: key.KeyID}})
	return l
}
