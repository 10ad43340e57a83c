package proxy

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of one direction, inbound or outbound.
type metrics struct {
	connections prometheus.Counter
	failures    *prometheus.CounterVec
	retries     prometheus.Counter
}

func newMetrics(r prometheus.Registerer, direction string) *metrics {
	labels := prometheus.Labels{"direction": direction}
	m := &metrics{
		connections: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "watchword_proxy_connections_total", ConstLabels: labels, Help: "Connections that were opened to upstreams.",
		}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "watchword_proxy_failures_total", ConstLabels: labels, Help: "Requests that the proxy answered or ended itself, by why.",
		}, []string{"reason"}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "watchword_proxy_token_retries_total", ConstLabels: labels, Help: "Requests that were sent again with a fresh token.",
		}),
	}
	m.connections, m.failures, m.retries = shared(r, m.connections), shared(r, m.failures), shared(r, m.retries)
	return m
}

// shared registers a metric, or gives the one that is registered already: a listener
// that moves is there twice for a while, and counts on.
func shared[C prometheus.Collector](r prometheus.Registerer, c C) C {
	if r == nil {
		return c
	}
	err := r.Register(c)
	if there, ok := errors.AsType[prometheus.AlreadyRegisteredError](err); ok {
		if same, ok := there.ExistingCollector.(C); ok {
			return same
		}
	}
	if err != nil {
		panic(err) // two metrics of one name: a fault of the program
	}
	return c
}
