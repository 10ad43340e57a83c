package xds

import (
	"bytes"
	"fmt"
	"strconv"
	"testing"
	"time"
)

// BenchmarkVersion is what a changed resource of the size of a filter chain costs
// to be named.
func BenchmarkVersion(b *testing.B) {
	for _, size := range []int{0, 8 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			r := filter("mesh.inbound/orders", string(bytes.Repeat([]byte("x"), size)))
			b.ReportAllocs()
			for b.Loop() {
				version(testKey, r)
			}
		})
	}
}

// BenchmarkStreams is what it costs to count the streams of one instance beside
// 10,000 others. x-alone is that as a multiple of what it costs where there is no
// other: a list of all instances asks for each, and so does a revocation.
func BenchmarkStreams(b *testing.B) {
	crowd, alone := serverOfInstances(10_000), serverOfInstances(1)
	var inCrowd, byItself time.Duration
	for b.Loop() {
		began := time.Now()
		for range 100 {
			alone.Streams("orders", "0")
		}
		middle := time.Now()
		for range 100 {
			crowd.Streams("orders", "0")
		}
		inCrowd, byItself = inCrowd+time.Since(middle), byItself+middle.Sub(began)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(inCrowd.Nanoseconds())/100/float64(b.N), "ns/instance")
	b.ReportMetric(float64(inCrowd)/float64(byItself), "x-alone")
}

func serverOfInstances(n int) *Server {
	s := New(Config{VersionKey: testKey})
	for i := range n {
		s.instances[Identity{Service: "orders", Instance: strconv.Itoa(i)}] = map[*stream]struct{}{{}: {}}
	}
	return s
}
