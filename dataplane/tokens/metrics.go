package tokens

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	requests *prometheus.CounterVec
	dropped  prometheus.Counter
	seconds  prometheus.Histogram
}

// Results of a request to the STS.
const (
	resultIssued  = "issued"
	resultRefused = "refused"
	resultFailed  = "failed"
)

// newMetrics makes the metrics and, if there is a Registerer, publishes them.
func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	return &metrics{
		requests: f.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_dataplane_token_requests_total",
			Help: "Requests to the STS: issued, refused (it said no), or failed (it could not be asked).",
		}, []string{"result"}),
		dropped: f.NewCounter(prometheus.CounterOpts{
			Name: "watchword_dataplane_tokens_dropped_total",
			Help: "Tokens dropped before their end: their key or the instance was revoked, or a callee refused them.",
		}),
		seconds: f.NewHistogram(prometheus.HistogramOpts{
			Name:    "watchword_dataplane_token_request_seconds",
			Help:    "Time that a request to the STS took.",
			Buckets: prometheus.DefBuckets,
		}),
	}
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
