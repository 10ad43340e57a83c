package enrolment

import "github.com/prometheus/client_golang/prometheus"

type metrics struct {
	enrolled, renewed, refused prometheus.Counter
}

func newMetrics(r prometheus.Registerer) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &metrics{
		enrolled: counter("watchword_enrolments_total", "Instances that have enrolled, those that did so again included."),
		renewed:  counter("watchword_enrolment_renewals_total", "Certificates that were renewed."),
		refused:  counter("watchword_enrolments_refused_total", "Enrolments that were refused."),
	}
	if r != nil {
		r.MustRegister(m.enrolled, m.renewed, m.refused)
	}
	return m
}
