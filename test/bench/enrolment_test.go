package bench

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
)

// BenchmarkEnrolment measures enrolments from the first byte of a connection to
// the certificate, several at once, each with a connection, a handshake and a key
// of its own, which it makes, and the write to etcd with its fsync. What it is
// compared with runs inside the process of its server: one bare transaction of
// etcd and one bare signature of a certificate for each, as many at once. Both
// take turns.
//
//	x-bare      the time of it, with what the clients take, on the same processors
//	x-bare-cpu  the CPU time of the server alone
//
// All use one join token, or each of those that run at the same time another.
func BenchmarkEnrolment(b *testing.B) {
	for _, tokens := range []int{1, enrolling} {
		b.Run(fmt.Sprintf("tokens=%d", tokens), func(b *testing.B) { enrolments(b, tokens) })
	}
}

const (
	enrolmentRounds = 5
	perRound        = 80
)

func enrolments(b *testing.B, tokens int) {
	bare := launch(b, "bare enrolment", "", 0, inFolder(b))
	defer bare.stop()
	floor := &side{child: bare}
	var elapsed, cpu []time.Duration
	for b.Loop() {
		// Each time another, since a source may enrol 500 at once, and then few.
		own := launch(b, "watchword", "127.0.0.1:0", tokens, inFolder(b))
		for range enrolmentRounds {
			floor.change(perRound)
			took, used := own.enrolRound(perRound)
			elapsed, cpu = append(elapsed, took), append(cpu, used)
		}
		own.stop()
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(perRound/median(elapsed).Seconds(), "enrolments/s")
	b.ReportMetric(perRound/median(floor.elapsed).Seconds(), "bare/s")
	b.ReportMetric(ms(median(elapsed))/ms(median(floor.elapsed)), "x-bare")
	b.ReportMetric(ms(median(cpu))/perRound, "cpu-ms/enrolment")
	b.ReportMetric(ms(median(cpu))/ms(median(floor.cpu)), "x-bare-cpu")
}

// enrolRound enrols n instances with new join tokens, one of each service.
func (c *child) enrolRound(n int) (elapsed, cpu time.Duration) {
	c.b.Helper()
	tokens := strings.Fields(c.ask("join %d", n))
	before, start := c.used(), time.Now()
	g, ctx := errgroup.WithContext(context.Background())
	for worker := range enrolling {
		i := worker % len(tokens)
		g.Go(func() error {
			for range n / enrolling {
				if _, err := enrolOne(ctx, c.address, serviceName(i), tokens[i]); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		c.b.Fatal(err)
	}
	return time.Since(start), c.used() - before
}
