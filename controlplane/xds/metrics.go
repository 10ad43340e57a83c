package xds

import "github.com/prometheus/client_golang/prometheus"

// metrics of the server. Labels are types only: nothing that clients choose.
type metrics struct {
	pushes, acks, nacks *prometheus.CounterVec
	tokens, leases      *prometheus.CounterVec
	toLastAck           prometheus.Histogram
}

func newMetrics(s *Server, reg prometheus.Registerer) *metrics {
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watchword_xds_" + name, Help: help}, []string{"type"})
	}
	gauge := func(name, help string, get func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "watchword_xds_" + name, Help: help}, get)
	}
	m := &metrics{
		pushes: counter("pushes_total", "Responses sent to data planes."),
		acks:   counter("acks_total", "Responses that data planes confirmed."),
		nacks:  counter("nacks_total", "Responses that data planes refused."),
		tokens: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watchword_xds_tokens_total",
			Help: "Answers to data planes that want a token: minted, refused or failed."}, []string{"result"}),
		leases: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "watchword_xds_leases_total",
			Help: "Leases that data planes were due: given or withheld."}, []string{"result"}),
		toLastAck: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "watchword_xds_push_to_last_ack_seconds",
			Help:    "From a change of a service until the last of its data planes confirmed it.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
		}),
	}
	if reg == nil {
		return m
	}
	reg.MustRegister(m.pushes, m.acks, m.nacks, m.tokens, m.leases, m.toLastAck,
		gauge("streams", "Open streams.", func() float64 { return float64(s.streams.Load()) }),
		gauge("services", "Services with resources or data planes.", s.countServices),
		gauge("data_planes", "Connected data planes.", func() float64 { total, _ := s.countDataPlanes(); return total }),
		gauge("data_planes_waiting", "Connected data planes that are not in sync.", func() float64 { _, waiting := s.countDataPlanes(); return waiting }),
		gauge("published_revision", "The last revision that was published to data planes.", func() float64 { return float64(s.Published()) }),
	)
	return m
}

func (s *Server) countServices() float64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return float64(len(s.services))
}

func (s *Server) countDataPlanes() (total, waiting float64) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, svc := range s.services {
		svc.mu.Lock()
		total += float64(len(svc.rows))
		waiting += float64(len(svc.waiting))
		svc.mu.Unlock()
	}
	return total, waiting
}
