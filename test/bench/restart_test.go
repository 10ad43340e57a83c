package bench

import (
	"fmt"
	"testing"
	"time"
)

// BenchmarkRestart measures from the kill of a server, whose successor starts at
// once, until all streams are served again. Clients come back after 0.1 s, with
// jitter, make a new TLS handshake each, and claim what they hold; all of it is
// still current. The floor comes back with the same handshakes, and sends its
// message again.
func BenchmarkRestart(b *testing.B) {
	m := mesh{streams: 3000, services: 300}
	b.Run(fmt.Sprintf("streams=%d/services=%d", m.streams, m.services), func(b *testing.B) {
		if err := raiseFileLimit(); err != nil {
			b.Fatal(err)
		}
		own := newRestarted(b, "watchword", m)
		defer own.close()
		floor := newRestarted(b, "floor", m, fmt.Sprintf("%s=%d", envSize, own.fleet.largest.Load()))
		defer floor.close()
		for b.Loop() {
			for range restarts {
				floor.restart(m)
				own.restart(m)
			}
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(median(own.elapsed).Seconds(), "s/restart")
		b.ReportMetric(median(floor.elapsed).Seconds(), "floor-s/restart")
		b.ReportMetric(median(own.elapsed).Seconds()/median(floor.elapsed).Seconds(), "x-floor")
		b.ReportMetric(median(own.cpu).Seconds(), "cpu-s/restart")
		b.ReportMetric(median(floor.cpu).Seconds(), "floor-cpu-s/restart")
	})
}

const restarts = 3

// restarted is a side that is killed and comes back with what is in its folder.
type restarted struct {
	*side
	name string
	env  []string
}

func newRestarted(b *testing.B, name string, m mesh, env ...string) *restarted {
	b.Helper()
	env = append(env, inFolder(b))
	return &restarted{side: newSide(b, name, m, env...), name: name, env: env}
}

func (r *restarted) restart(m mesh) {
	r.b.Helper()
	start := time.Now()
	r.stop()
	r.child = launch(r.b, r.name, r.address, m.services, r.env...)
	r.ask("served %d", m.streams)
	r.elapsed, r.cpu = append(r.elapsed, time.Since(start)), append(r.cpu, r.used())
}
