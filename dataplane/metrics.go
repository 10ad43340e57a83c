package dataplane

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-mesh/watchword/dataplane/reason"
)

// metrics of what is decided here. Those of the stream and of tokens are theirs.
type metrics struct {
	allowed      prometheus.Counter
	refusals     map[reason.Word]prometheus.Counter
	observations map[reason.Word]prometheus.Counter
	accepted     prometheus.Gauge
	registered   []prometheus.Collector
	registerer   prometheus.Registerer
}

func newMetrics(d *DataPlane, registerer prometheus.Registerer) (*metrics, error) {
	decisions := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "watchword_dataplane_requests_total",
		Help: "Requests by what became of them: allowed, refused, or allowed and recorded as one that would be refused (observed).",
	}, []string{"outcome", "reason"})
	m := &metrics{
		registerer: registerer,
		allowed:    decisions.WithLabelValues("allowed", ""),
		refusals:   map[reason.Word]prometheus.Counter{}, observations: map[reason.Word]prometheus.Counter{},
		accepted: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "watchword_dataplane_ruleset_accepted_timestamp_seconds",
			Help: "When the ruleset in force was accepted from the control plane, in seconds since 1970; of one from the file, when it was saved.",
		}),
	}
	for _, w := range append(reason.All(), reason.NotReady, reason.LeaseExpired, reason.BodyUnreadable) {
		m.refusals[w] = decisions.WithLabelValues("refused", string(w))
		m.observations[w] = decisions.WithLabelValues("observed", string(w))
	}
	lease := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "watchword_dataplane_lease_expires_timestamp_seconds",
		Help: "When the lease ends, in seconds since 1970; 0: there is none.",
	}, func() float64 { return float64(d.guard.lease.Load()) })
	serving := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "watchword_dataplane_serving",
		Help: "Whether requests are decided on: 1, or 0 if all are refused.",
	}, func() float64 {
		if d.Serving() {
			return 1
		}
		return 0
	})
	return m, m.register(decisions, m.accepted, lease, serving)
}

func (m *metrics) register(all ...prometheus.Collector) error {
	if m.registerer == nil {
		return nil
	}
	for _, c := range all {
		if err := m.registerer.Register(c); err != nil {
			m.unregister()
			return fmt.Errorf("publishing its metrics: %w; give each data plane of a process a Registerer of its own, such as by prometheus.WrapRegistererWith", err)
		}
		m.registered = append(m.registered, c)
	}
	return nil
}

func (m *metrics) unregister() {
	for _, c := range m.registered {
		m.registerer.Unregister(c)
	}
}

func (m *metrics) refused(w reason.Word)  { m.refusals[w].Inc() }
func (m *metrics) observed(w reason.Word) { m.observations[w].Inc() }
func (m *metrics) took(at time.Time)      { m.accepted.Set(float64(at.Unix())) }
