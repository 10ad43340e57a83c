package simulation

import (
	"maps"
	"slices"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
)

// recorder is what a process has written down under its ID.
type recorder struct {
	sent ledger.Record
	// writing: there is no answer yet, and since when.
	writing bool
	since   time.Duration
	// wrote is what etcd has confirmed.
	wrote ledger.Record
	// lease and lifetime are the longest that are wanted.
	lease, lifetime time.Duration
}

// forget is for a new ID.
func (r *recorder) forget() { r.sent, r.wrote, r.writing = ledger.Record{}, ledger.Record{}, false }

// throttle is how long a process waits between two records, and resend how long for an
// answer.
const (
	throttle = 200 * time.Millisecond
	resend   = time.Second
)

// record writes down what is new, not too often.
func (p *proc) record() {
	if !p.joined || p.stopping || p.writing && p.w.now < p.since+resend || p.w.now < p.since+throttle {
		return
	}
	p.writeRecord(false, nil)
}

func (p *proc) writeRecord(stopped bool, then func()) {
	r := p.newRecord()
	r.SigningStopped = stopped
	if same(r, p.sent) && same(r, p.wrote) && then == nil {
		return
	}
	id := p.id
	p.sent, p.writing, p.since = r, true, p.w.now
	p.ask(func() func() {
		e := p.w.etcd
		if _, there := e.cluster.Members[id]; !there {
			return nil
		}
		e.writeCluster("", func(m *members, _ int64) { m.Records[id] = r })
		return func() {
			if p.id != id {
				return
			}
			p.writing, p.wrote = false, r
			if then != nil {
				then()
				return
			}
			p.renew()
		}
	})
}

func (p *proc) newRecord() ledger.Record {
	applied, held, _ := p.book.Claims(p.clock.now())
	if p.w.breaks(claimHeld) {
		held = nil
	}
	r := ledger.Record{Applied: applied, Claim: applied, Held: held, Clock: p.clock.now()}
	p.lifetime = max(p.lifetime, p.main.settings.lifetime)
	p.lease = max(p.lease, p.w.lease)
	r.Lifetime, r.Lease = p.lifetime, p.lease
	if p.w.breaks(leaseRecord) {
		r.Lease = time.Millisecond
	}
	if p.w.breaks(lifetimeRecord) {
		r.Lifetime = time.Millisecond
	}
	return r
}

// same but for the clock.
func same(a, b ledger.Record) bool {
	return a.Applied == b.Applied && a.Claim == b.Claim && a.Lifetime == b.Lifetime && a.Lease == b.Lease && a.SigningStopped == b.SigningStopped &&
		maps.EqualFunc(a.Held, b.Held, func(x, y ledger.Held) bool {
			return x.Claim == y.Claim && x.Count == y.Count && x.Gone == y.Gone && x.Left == y.Left && x.Has == y.Has && x.Until.Equal(y.Until) && slices.Equal(x.Who, y.Who)
		})
}

// mayLease is the longest lease that the process has written down.
func (p *proc) mayLease() time.Duration {
	if p.w.breaks(leaseRecord) {
		return p.w.lease
	}
	return min(p.w.lease, p.wrote.Lease)
}

// maySign is the longest life of a token that the process has written down.
func (p *proc) maySign() time.Duration {
	if p.w.breaks(lifetimeRecord) {
		return p.main.settings.lifetime
	}
	return min(p.main.settings.lifetime, p.wrote.Lifetime)
}
