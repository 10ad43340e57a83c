package simulation

import (
	"maps"
	"slices"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/controlplane/rotation"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

// leading is what a process knows of its being the leader.
type leading struct {
	leads   bool
	elected int64
	asked   time.Duration
	// stepping: there is no answer yet.
	stepping bool
	// unsigned is since when nobody signs by what was before an entry.
	unsigned map[string]time.Time
}

// elect tries to become the leader if there is none.
func (p *proc) elect() {
	if p.leads && (p.cluster.elected > p.elected || p.cluster.Leader == "" && p.cluster.revision > p.elected) {
		p.leads = false
	}
	if p.leads || p.stopping || p.cluster.Leader != "" && p.cluster.Leader != p.id || !p.hasAuthority() || p.w.now < p.asked+time.Second {
		return
	}
	p.asked = p.w.now
	id := p.id
	p.ask(func() func() {
		e := p.w.etcd
		// Its own ID is there if the answer was lost.
		if e.cluster.Leader != "" && e.cluster.Leader != id || !e.cluster.Alive[id] {
			return nil
		}
		e.writeCluster(id+" leads", func(m *members, revision int64) { m.Leader, m.elected = id, revision })
		elected := e.cluster.elected
		return func() {
			if p.id == id {
				p.leads, p.elected, p.stepping, p.unsigned = true, elected, false, map[string]time.Time{}
			}
		}
	})
}

// moment is all that the process knows.
func (p *proc) moment() rotation.Moment {
	m := rotation.Mesh{Audiences: map[string]rotation.Verifiers{}, Every: p.main.settings.every, Algorithm: p.main.settings.algorithm, Skew: p.w.skew}
	for _, name := range serviceNames {
		for _, a := range p.main.services[name].accepts {
			v := m.Audiences[a]
			v.Services = append(v.Services, name)
			v.Elsewhere = a == audiences[len(audiences)-1]
			m.Audiences[a] = v
		}
	}
	return rotation.Moment{Now: p.clock.now(), Keys: p.main.keys, Mesh: m, Observer: p.observer, Bounds: p.w.bounds, MaxAge: p.w.maxAge}
}

// step does what the leader has to do next.
func (p *proc) step() {
	if !p.joined || !p.leads || p.stopping || p.stepping && p.w.now < p.asked+time.Second || !p.hasAuthority() {
		return
	}
	w := p.w
	p.dropEntries()
	p.forgetMembers()
	m := p.moment()
	c := w.stepBroken(p, m)
	if c.Empty() {
		return
	}
	p.stepping, p.asked = true, w.now
	id, elected, joined, now := p.id, p.elected, p.cluster.Joined, p.clock.now()
	p.ask(func() func() {
		e := w.etcd
		done := func() { p.stepping = false }
		switch {
		case (e.cluster.Leader != id || e.cluster.elected != elected) && !w.breaks(fenceLeader),
			e.cluster.Joined > joined && !w.breaks(fenceMember),
			!e.main.same(m.Keys) && !w.breaks(fenceKeys):
			return done
		}
		if c.Open != nil && c.Open.Active != e.main.keys.Open.Active {
			w.did.rotations++
		}
		e.change("leader "+id, c, now, true)
		return done
	})
}

// dropEntries takes out revocation entries that forbid nothing that is still valid
// (rule 13).
func (p *proc) dropEntries() {
	now := p.clock.now()
	for _, id := range slices.Sorted(maps.Keys(p.main.entries)) {
		e := p.main.entries[id]
		if p.w.breaks(entryLeaves) {
			p.drop(id)
			continue
		}
		if len(p.observer.Unsigned(e.revision, now)) > 0 {
			continue
		}
		since, noted := p.unsigned[id]
		if !noted {
			p.unsigned[id], since = now, now
		}
		if now.After(since.Add(p.observer.Lifetime() + p.w.skew + 2*p.w.bounds.ClockError)) {
			p.drop(id)
		}
	}
}

func (p *proc) drop(id string) {
	w, member, elected := p.w, p.id, p.elected
	delete(p.unsigned, id)
	p.ask(func() func() {
		e := w.etcd
		if _, there := e.main.entries[id]; there && e.cluster.Leader == member && e.cluster.elected == elected {
			e.write("entry "+id+" leaves", func(r *resources, _ int64) { delete(r.entries, id) })
		}
		return nil
	})
}

// forgetMembers takes out those that are gone and of whom nothing is waited for.
func (p *proc) forgetMembers() {
	w, member, elected := p.w, p.id, p.elected
	for _, id := range p.observer.Forgettable(p.clock.now()) {
		p.ask(func() func() {
			e := w.etcd
			if _, there := e.cluster.Members[id]; there && !e.cluster.Alive[id] && e.cluster.Leader == member && e.cluster.elected == elected {
				e.writeCluster(id+" is forgotten", func(m *members, _ int64) {
					delete(m.Members, id)
					delete(m.Records, id)
				})
			}
			return nil
		})
	}
}

// stepBroken is rotation.Step, or what it would be if a rule was broken.
func (w *world) stepBroken(p *proc, m rotation.Moment) keyset.Change {
	c := rotation.Step(m)
	f := keyset.Facts{Now: m.Now, Every: m.Mesh.Every, Algorithm: m.Mesh.Algorithm, Skew: m.Mesh.Skew,
		ClockError: m.Bounds.ClockError, Lifetime: m.Observer.Lifetime(),
		Gate:     func(published int64, a string) bool { return len(m.Gate(published, a)) == 0 },
		Unsigned: func(revision int64) bool { return len(m.Observer.Unsigned(revision, m.Now)) == 0 },
	}
	for _, a := range audiences {
		if _, there := m.Mesh.Audiences[a]; there {
			f.Audiences = append(f.Audiences, a)
		}
	}
	without := func(waits []ledger.Wait, why ledger.Why) bool {
		return !slices.ContainsFunc(waits, func(w ledger.Wait) bool { return w.Why != why })
	}
	switch w.broken {
	case gateAll:
		f.Gate = func(int64, string) bool { return true }
	case gateApplied:
		f.Gate = func(published int64, a string) bool { return without(m.Gate(published, a), ledger.NotApplied) }
	case departedBlocks:
		f.Gate = func(published int64, a string) bool { return without(m.Gate(published, a), ledger.Departed) }
	case gateClaims:
		f.Gate = func(published int64, a string) bool { return without(m.Gate(published, a), ledger.Behind) }
	case gateJWKS:
		f.Gate = func(published int64, a string) bool { return without(m.Gate(published, a), rotation.Cached) }
	case oneByOne:
		f.Gate = func(published int64, _ string) bool {
			return slices.ContainsFunc(f.Audiences, func(a string) bool { return len(m.Gate(published, a)) == 0 })
		}
	case goneApplied:
		f.Unsigned = func(revision int64) bool { return without(m.Observer.Unsigned(revision, m.Now), ledger.NotApplied) }
	case goneDeparted:
		f.Unsigned = func(revision int64) bool { return without(m.Observer.Unsigned(revision, m.Now), ledger.MaySign) }
	case goneLifetime:
		m.Keys = withoutLifetime(m.Keys)
		f.Lifetime = 0
	case goneSkew:
		f.Skew = 0
	case goneClock:
		f.ClockError = 0
	case threeKeys:
		if _, there := m.Keys.Standby(); !there && c.Publish == "" {
			c.Publish = m.Mesh.Algorithm
		}
		return c
	default:
		return c
	}
	return keyset.Step(m.Keys, f)
}

func withoutLifetime(k keyset.Keys) keyset.Keys {
	out := keyset.Keys{Records: map[string]keyset.Record{}, Open: k.Open}
	for kid, r := range k.Records {
		r.Lifetime = 0
		out.Records[kid] = r
	}
	return out
}
