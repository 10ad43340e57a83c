package simulation

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// act does one action.
func (w *world) act(a action) {
	slot := w.slots[a.who%len(w.slots)]
	pl := w.planes[a.who%len(w.planes)]
	switch a.do {
	case move, cutStream, refuse, restart, slowPlane:
		w.actPlane(a, pl)
	case ask, reschedule, changeAlgorithm, changeLifetime, changeLease, makeService, deleteService, switchLease, changeAudiences:
		w.actOperator(a)
	case shiftClock:
		c := &pl.clock
		if a.other%2 == 0 {
			c = &slot.clock
		}
		c.wrong = -c.wrong
		w.dirty = true
	default:
		w.actReplica(a, slot)
	}
}

func (w *world) actReplica(a action, s *slot) {
	if a.do == begin {
		s.start()
		return
	}
	p := s.proc
	if p == nil {
		return
	}
	switch a.do {
	case mint:
		p.now(func() { p.mint(audiences[a.other%3], subjects[a.other/3%len(subjects)]) })
	case kill:
		w.did.crashes++
		p.kill()
	case loseAndKill:
		w.did.crashes++
		w.did.cuts++
		s.cut = true
		w.after(w.bounds.Authority*11/10, s.mend)
		w.after(w.bounds.Authority*11/10+a.lasts, func() {
			if s.proc == p {
				p.kill()
			}
		})
	case stopCleanly:
		p.now(p.stop)
	case pause:
		p.pause(a.lasts)
	case cutOff:
		w.did.cuts++
		s.cut = true
		w.after(a.lasts, s.mend)
	case lagMain:
		s.slowMain = a.lasts
		w.after(a.lasts, func() { s.slowMain = 0 })
	case lagCluster:
		s.slowCluster = a.lasts
		w.after(a.lasts, func() { s.slowCluster = 0 })
	case revokeSubject, revokeIssued:
		p.now(func() { p.revokeSubject(subjects[a.other%len(subjects)], a.do == revokeIssued) })
	case revokeKey:
		p.now(func() { p.revokeKey(a.other % 4) })
	case revokeAllKeys:
		p.now(func() { p.revokeKey(-1) })
	}
}

// mend ends a cut: the watches list again.
func (s *slot) mend() {
	if !s.cut {
		return
	}
	s.cut = false
	if p := s.proc; p != nil {
		p.mainChanged()
		p.clusterChanged()
	}
}

func (w *world) actPlane(a action, pl *plane) {
	switch a.do {
	case move:
		pl.move(a.other % len(w.slots))
	case cutStream:
		w.did.cuts++
		if pl.stream != nil {
			pl.stream.end()
		}
	case refuse:
		pl.refuses = w.now + a.lasts
		w.after(a.lasts, func() {
			if pl.stream != nil {
				pl.stream.end()
			}
		})
	case restart:
		pl.restart(a.other%2 == 1)
	case slowPlane:
		pl.slow = a.lasts / 10
		w.after(a.lasts, func() { pl.slow = 0 })
	}
}

func (w *world) actOperator(a action) {
	name := serviceNames[a.who%len(serviceNames)]
	change := func(what string, f func(r *resources)) {
		w.etcd.write(fmt.Sprintf("%s (%s)", what, name), func(r *resources, _ int64) { f(r) })
	}
	s, there := w.etcd.main.services[name]
	switch a.do {
	case ask:
		w.ask()
	case reschedule:
		change("another schedule", func(r *resources) { r.settings.every = time.Duration(a.other%3) * 10 * time.Second })
	case changeAlgorithm:
		change("another algorithm", func(r *resources) { r.settings.algorithm = algorithms[a.other%2] })
	case changeLifetime:
		change("another lifetime", func(r *resources) { r.settings.lifetime = lifetimes[a.other%3] })
	case changeLease:
		w.lease = time.Duration(4+a.other%9) * time.Second
	case makeService:
		change("service is made", func(r *resources) {
			r.services[name] = service{accepts: accepts(a.other / 2), leased: a.other%2 == 1}
		})
	case deleteService:
		if there && len(w.etcd.main.services) > 1 {
			change("service is deleted", func(r *resources) { delete(r.services, name) })
		}
	case switchLease:
		if there {
			s.leased = !s.leased
			change(fmt.Sprintf("leases: %v", s.leased), func(r *resources) { r.services[name] = s })
		}
	case changeAudiences:
		if there {
			s.accepts = accepts(a.other)
			change(fmt.Sprintf("accepts %v", s.accepts), func(r *resources) { r.services[name] = s })
		}
	}
}

// accepts makes one of all sets of audiences that are not empty.
func accepts(n int) []string {
	var out []string
	for i, a := range audiences {
		if (n%7+1)>>i&1 == 1 {
			out = append(out, a)
		}
	}
	return out
}

func (w *world) ask() {
	w.etcd.write("somebody asks for a rotation", func(r *resources, revision int64) {
		r.keys.Open.Asked, r.keys.Open.Revision = start.Add(w.now), revision
		r.keys.Open.Except = maps.Clone(r.keys.Open.Except)
	})
}

// heal ends all that is wrong, and asks for a rotation when there was time to get over it.
func (w *world) heal() {
	w.told(func() string { return "* everything heals" })
	for _, s := range w.slots {
		s.slowMain, s.slowCluster = 0, 0
		s.mend()
		for d := 5 * time.Second; d <= 25*time.Second; d += 5 * time.Second {
			w.after(d, s.start)
		}
	}
	for _, pl := range w.planes {
		pl.slow, pl.refuses = 0, 0
		if pl.stream != nil {
			pl.stream.down.slow = 0
			pl.stream.end()
		}
	}
	w.etcd.write("no schedule any more", func(r *resources, _ int64) { r.settings.every = 0 })
	w.after(w.rest()/2, w.ask)
}

// rest is within which time all is to be well after everything has healed.
func (w *world) rest() time.Duration {
	b := w.bounds
	most := b.Authority + 13*time.Second + b.Signing + b.Grace + slices.Max(lifetimes) + w.skew + 4*b.ClockError
	return 30*time.Second + 2*most
}
