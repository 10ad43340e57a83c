package controlplane

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// loopMetrics counts what the loop does.
type loopMetrics struct {
	revision prometheus.Gauge
	seconds  prometheus.Histogram
	compiled prometheus.Counter
	failures prometheus.Counter
	// revocations are those of the service that enforces most.
	revocations prometheus.Gauge
}

func newLoopMetrics(r prometheus.Registerer) *loopMetrics {
	m := &loopMetrics{
		revision: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "watchword_revision", Help: "Revision of the store that was published last.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "watchword_publish_seconds", Help: "Time from taking a change to handing it to the streams.",
			Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10),
		}),
		compiled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "watchword_services_compiled_total", Help: "Services whose rulesets were compiled.",
		}),
		failures: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "watchword_translate_failures_total", Help: "Services that could not be translated and kept what they had.",
		}),
	}
	m.revocations = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "watchword_revocations_most", Help: "Revocations of the service that enforces most of them; at most 10000.",
	})
	r.MustRegister(m.revision, m.seconds, m.compiled, m.failures, m.revocations)
	return m
}

func (m *loopMetrics) applied(revision int64, took time.Duration, services int) {
	m.revision.Set(float64(revision))
	m.seconds.Observe(took.Seconds())
	m.compiled.Add(float64(services))
}
