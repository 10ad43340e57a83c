package bundle

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the Manager. The label issuer is the name of a resource.
type metrics struct {
	fetches *prometheus.CounterVec
	age     *prometheus.Desc
	manager *Manager
}

func newMetrics(m *Manager, r prometheus.Registerer) *metrics {
	out := &metrics{
		manager: m,
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_jwks_fetches_total", Help: "Fetches of key sets from URIs: changed, unchanged, not_modified (304) or failed.",
		}, []string{"issuer", "outcome"}),
		age: prometheus.NewDesc("watchword_jwks_age_seconds", "Time since the source of a key set last gave or confirmed it.", []string{"issuer"}, nil),
	}
	if r != nil {
		r.MustRegister(out.fetches, out)
	}
	return out
}

func (m *metrics) fetched(issuer, outcome string) { m.fetches.WithLabelValues(issuer, outcome).Inc() }

func (m *metrics) forget(issuer string) {
	m.fetches.DeletePartialMatch(prometheus.Labels{"issuer": issuer})
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) { ch <- m.age }

// Collect implements prometheus.Collector: ages are those of the moment.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	m.manager.mu.Lock()
	defer m.manager.mu.Unlock()
	for name, e := range m.manager.entries {
		if !e.fetched.IsZero() {
			ch <- prometheus.MustNewConstMetric(m.age, prometheus.GaugeValue, time.Since(e.fetched).Seconds(), name)
		}
	}
}
