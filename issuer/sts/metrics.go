package sts

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	issued  prometheus.Counter
	refused *prometheus.CounterVec
	seconds prometheus.Histogram
}

// newMetrics makes the metrics and, if there is a Registerer, publishes them.
func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	return &metrics{
		issued: f.NewCounter(prometheus.CounterOpts{
			Name: "watchword_sts_tokens_issued_total",
			Help: "Tokens issued.",
		}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_sts_tokens_refused_total",
			Help: "Requests for a token that were refused, by error code (RFC 6749 section 5.2).",
		}, []string{"code"}),
		seconds: f.NewHistogram(prometheus.HistogramOpts{
			Name: "watchword_sts_token_request_seconds",
			Help: "Time that the token endpoint took for a request.",
			// A signature is 30 microseconds; a request waits a second for it at most.
			Buckets: []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2},
		}),
	}
}
