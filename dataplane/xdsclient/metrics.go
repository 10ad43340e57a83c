package xdsclient

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics of a client. The label is a type that was asked for.
type metrics struct {
	now               func() time.Time
	accepted, refused *prometheus.CounterVec
	reconnects        prometheus.Counter
	unregister        func()

	isUp atomic.Bool
	// contact is in Unix nanoseconds, 0 for never.
	contact atomic.Int64
	// before: there was a stream before; run's goroutine alone has it.
	before bool
}

func newMetrics(c *client) (*metrics, error) {
	const prefix = "watchword_dataplane_"
	counter := func(name, help string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: prefix + name, Help: help}, []string{"type"})
	}
	gauge := func(name, help string, get func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: prefix + name, Help: help}, get)
	}
	m := &metrics{
		now:        c.Now,
		accepted:   counter("updates_accepted_total", "Updates of resources that were put in force."),
		refused:    counter("updates_refused_total", "Updates of resources that were refused."),
		reconnects: prometheus.NewCounter(prometheus.CounterOpts{Name: prefix + "reconnects_total", Help: "Streams to the control plane after the first."}),
	}
	for _, t := range c.types {
		m.accepted.WithLabelValues(t.label)
		m.refused.WithLabelValues(t.label)
	}
	var err error
	m.unregister, err = register(c.Registerer, m.accepted, m.refused, m.reconnects,
		gauge("connected", "1 while there is a stream to the control plane.", func() float64 {
			if m.isUp.Load() {
				return 1
			}
			return 0
		}),
		gauge("last_contact_timestamp_seconds", "When the control plane was last heard, 0 for never; it is asked every 10 s.", func() float64 {
			return float64(m.contact.Load()) / 1e9
		}),
	)
	return m, err
}

// register takes part in a program that is not ours: it gives an error where
// MustRegister would end that.
func register(reg prometheus.Registerer, all ...prometheus.Collector) (undo func(), err error) {
	if reg == nil {
		return func() {}, nil
	}
	var done []prometheus.Collector
	undo = func() {
		for _, c := range done {
			reg.Unregister(c)
		}
	}
	for _, c := range all {
		if e := reg.Register(c); e != nil {
			err = errors.Join(err, e)
			continue
		}
		done = append(done, c)
	}
	if err != nil {
		undo()
		return nil, fmt.Errorf("registering metrics; give each data plane of a process a registerer of its own: %w", err)
	}
	return undo, nil
}

func (m *metrics) up() {
	m.isUp.Store(true)
	m.heard()
	if m.before {
		m.reconnects.Inc()
	}
	m.before = true
}

func (m *metrics) down() { m.isUp.Store(false) }

// heard is called for whatever is read. Before the stream is up it may be anybody.
func (m *metrics) heard() {
	if m.isUp.Load() {
		m.contact.Store(m.now().UnixNano())
	}
}

func (m *metrics) update(t subscribedType, err error) {
	if err != nil {
		m.refused.WithLabelValues(t.label).Inc()
		return
	}
	m.accepted.WithLabelValues(t.label).Inc()
}
