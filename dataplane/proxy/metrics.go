package proxy

import "github.com/prometheus/client_golang/prometheus"

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
	if r != nil {
		r.MustRegister(m.connections, m.failures, m.retries)
	}
	return m
}
