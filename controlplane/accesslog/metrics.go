package accesslog

import "github.com/prometheus/client_golang/prometheus"

// metrics of the server. No label is a caller: strangers choose their number.
type metrics struct {
	refusals *prometheus.CounterVec
	dropped  prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_refusals_total",
			Help: "Requests that data planes reported as refused (enforcement is enforced), or as let through though a policy that is only observed would have refused them (observed).",
		}, []string{"service", "reason", "enforcement"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "watchword_refusal_records_dropped_total",
			Help: "Reported requests that were not counted: too many at once, about no refusal, or by who may not report for the service.",
		}),
	}
	if reg != nil {
		reg.MustRegister(m.refusals, m.dropped)
	}
	return m
}

// refused counts under the service that the ledger has counted under.
func (m *metrics) refused(service string, r Refusal) {
	m.refusals.WithLabelValues(service, string(r.Reason), Enforcement(r.Observed)).Inc()
}

func (m *metrics) forget(service string) {
	m.refusals.DeletePartialMatch(prometheus.Labels{"service": service})
}

// Enforcement is the word for whether a refusal was only observed.
func Enforcement(observed bool) string {
	if observed {
		return "observed"
	}
	return "enforced"
}
