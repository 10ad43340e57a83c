package bench

import (
	"fmt"
	"testing"
)

// BenchmarkTLS is what TLS costs a bare gRPC server with 1,000 streams, each of an
// instance of its own: two floors, with TLS and without, take turns.
func BenchmarkTLS(b *testing.B) {
	if err := raiseFileLimit(); err != nil {
		b.Fatal(err)
	}
	const message = 16 << 10 // about that of a service with a few policies
	m := mesh{streams: 1000, services: 1, perInstance: 1}
	size := fmt.Sprintf("%s=%d", envSize, message)
	secure, plain := newSide(b, "floor", m, size), newSide(b, "floor", m, size, envPlain+"=1")
	defer secure.close()
	defer plain.close()
	for b.Loop() {
		takeTurns(m.streams, plain, secure)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(median(secure.elapsed))/ms(median(plain.elapsed)), "x-plain")
	b.ReportMetric(median(secure.cpu).Seconds()/median(plain.cpu).Seconds(), "x-plain-cpu")
	b.ReportMetric((secure.filled-secure.empty)/1024/float64(m.streams), "KiB/stream")
	b.ReportMetric((plain.filled-plain.empty)/1024/float64(m.streams), "plain-KiB/stream")
}
