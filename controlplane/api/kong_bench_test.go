package api

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// BenchmarkKong is what a script waits that makes a consumer, and then reads it,
// beside 10,000 others; and reads it again after the resources have come to another
// revision unchanged. Each is a metric of its own, without etcd.
func BenchmarkKong(b *testing.B) {
	s, m := open(b)
	m.state = m.state.Clone()
	for i := range 10_000 {
		r := &policyv1.Resource{Metadata: &policyv1.Metadata{Name: fmt.Sprint("c", i), Uid: fmt.Sprint("u", i), Revision: 11},
			Spec: &policyv1.Resource_Consumer{Consumer: &policyv1.ConsumerSpec{Username: fmt.Sprint("c", i),
				Credentials: []*policyv1.Credential{{Key: fmt.Sprint("k", i), KeySet: &policyv1.KeySet{Source: &policyv1.KeySet_Secret{
					Secret: &policyv1.SecretKeys{Keys: []*policyv1.SecretKey{{Secret: fmt.Sprintf("%032d", i)}}}}}}}}}}
		m.state[policy.KeyOf(r)] = r
	}
	ask := kongOf(s, access.Operator)
	var ofPost, ofGet, ofAgain time.Duration
	timed := func(sum *time.Duration, want int, method, target, form string) {
		began := time.Now()
		code, body := ask(method, target, form)
		if *sum += time.Since(began); code != want {
			b.Fatalf("%s %s: %d %s", method, target, code, body)
		}
	}
	for i := 0; b.Loop(); i++ {
		name := fmt.Sprint("new", i)
		timed(&ofPost, http.StatusCreated, "POST", "/consumers", "username="+name)
		timed(&ofGet, http.StatusOK, "GET", "/consumers/"+name, "")
		m.mu.Lock()
		m.revision++ // as when an instance renews
		m.mu.Unlock()
		timed(&ofAgain, http.StatusOK, "GET", "/consumers?size=1", "")
	}
	b.ReportMetric(0, "ns/op")
	for what, sum := range map[string]time.Duration{"POST": ofPost, "GET": ofGet, "GET-again": ofAgain} {
		b.ReportMetric(float64(sum.Microseconds())/1000/float64(b.N), "ms/"+what)
	}
}
