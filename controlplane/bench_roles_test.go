package controlplane

import (
	"fmt"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// largeMesh has services and consumers, each with a credential.
func largeMesh(services, consumers int) policy.State {
	s := policy.State{}
	put := func(r *policyv1.Resource) { s[policy.KeyOf(r)] = r }
	for i := range services {
		put(&policyv1.Resource{Metadata: &policyv1.Metadata{Name: fmt.Sprintf("s%d", i)}, Spec: &policyv1.Resource_Service{Service: &policyv1.ServiceSpec{}}})
	}
	for i := range consumers {
		name := fmt.Sprintf("c%d", i)
		put(&policyv1.Resource{Metadata: &policyv1.Metadata{Name: name}, Spec: &policyv1.Resource_Consumer{Consumer: &policyv1.ConsumerSpec{
			Id: name, Username: name, Credentials: []*policyv1.Credential{{Id: name, Key: name}}}}})
	}
	return s
}

// BenchmarkClients is what the token service is told of 2,000 services, beside 10,000
// consumers. x-small is that as a multiple of what it is for 20 services beside the
// same consumers; both take turns.
func BenchmarkClients(b *testing.B) {
	small, large := largeMesh(20, 10_000), largeMesh(2000, 10_000)
	var ofSmall, ofLarge time.Duration
	for b.Loop() {
		began := time.Now()
		clients(small)
		between := time.Now()
		clients(large)
		ofSmall, ofLarge = ofSmall+between.Sub(began), ofLarge+time.Since(between)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(ofLarge.Nanoseconds())/float64(b.N), "ns/change")
	b.ReportMetric(float64(ofLarge)/float64(ofSmall), "x-small")
}
