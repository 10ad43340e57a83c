package tokens

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests *prometheus.CounterVec
	dropped  prometheus.Counter
	seconds  prometheus.Histogram
	// unregister takes them back.
	unregister func()
}

// Results of a request to the STS.
const (
	resultIssued  = "issued"
	resultRefused = "refused"
	resultFailed  = "failed"
)

// newMetrics makes the metrics and, if there is a Registerer, publishes them.
func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_dataplane_token_requests_total",
			Help: "Requests to the STS: issued, refused (it said no), or failed (it could not be asked).",
		}, []string{"result"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "watchword_dataplane_tokens_dropped_total",
			Help: "Tokens dropped before their end: their key or the instance was revoked, or a callee refused them.",
		}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "watchword_dataplane_token_request_seconds",
			Help:    "Time that a request to the STS took.",
			Buckets: prometheus.DefBuckets,
		}),
		unregister: func() {},
	}
	for _, result := range []string{resultIssued, resultRefused, resultFailed} {
		m.requests.WithLabelValues(result) // from 0 on, so that the first can be seen
	}
	if r == nil {
		return m, nil
	}
	var registered []prometheus.Collector
	m.unregister = func() {
		for _, c := range registered {
			r.Unregister(c)
		}
	}
	for _, c := range []prometheus.Collector{m.requests, m.dropped, m.seconds} {
		if err := r.Register(c); err != nil {
			m.unregister()
			return nil, fmt.Errorf("token source: publishing its metrics: %w; give each source of a process a Registerer of its own, such as by prometheus.WrapRegistererWith", err)
		}
		registered = append(registered, c)
	}
	return m, nil
}

func (m *metrics) asked(err *Error) {
	switch {
	case err == nil:
		m.requests.WithLabelValues(resultIssued).Inc()
	case err.final():
		m.requests.WithLabelValues(resultRefused).Inc()
	default:
		m.requests.WithLabelValues(resultFailed).Inc()
	}
}
