package simulation

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
)

// slot is a place that replicas run at, one after the other.
type slot struct {
	w      *world
	number int
	clock  clock
	starts int
	proc   *proc
	// cut: no message goes between here and etcd.
	cut bool
	// slowMain and slowCluster are for watches that lag.
	slowMain, slowCluster time.Duration
}

// proc is one process of a replica, from its start to its end.
type proc struct {
	*slot
	id   string
	dead bool
	// paused until then; what it would have done meanwhile waits.
	paused  time.Duration
	waiting []func()

	toEtcd, fromEtcd, mainWatch, clusterWatch *link

	// main and cluster are what it has taken in; nil before it has joined.
	main    *resources
	cluster *members
	// joined: it has loaded what there was when it joined, or later.
	joined, joining bool
	// authority and sign are the ends of what it may do, by the monotonic clock.
	authority, sign time.Duration
	stopping        bool

	book     *ledger.Book
	observer *ledger.Observer
	streams  []*stream

	recorder
	leading
	receiving []*receipt
	// kept is for a broken rule: a key that it goes on signing with.
	kept string
	rng  *rand.Rand
}

func (s *slot) start() {
	if s.proc != nil {
		return
	}
	w := s.w
	s.starts++
	name := uint64(1000*(s.number+1) + s.starts*10)
	p := &proc{
		slot: s, book: ledger.NewBook(w.bounds), observer: ledger.NewObserver(w.bounds),
		toEtcd: w.link(name, 40*time.Millisecond), fromEtcd: w.link(name+1, 40*time.Millisecond),
		mainWatch: w.link(name+2, 150*time.Millisecond), clusterWatch: w.link(name+3, 150*time.Millisecond),
		rng: rand.New(rand.NewPCG(w.seed, name+4)),
	}
	s.proc = p
	p.join("")
	p.keepAlive()
	p.tick()
}

// kill ends the process without a word.
func (p *proc) kill() {
	p.dead = true
	p.slot.proc = nil
	for _, s := range p.streams {
		s.end()
	}
	p.w.dirty = true
}

// do lets the process do something in d, unless it is dead or stands still.
func (p *proc) do(d time.Duration, f func()) { p.w.after(d, func() { p.now(f) }) }

func (p *proc) now(f func()) {
	switch {
	case p.dead:
	case p.paused > p.w.now:
		p.waiting = append(p.waiting, f)
	default:
		f()
	}
}

// pause stands still, and goes on with what it had.
func (p *proc) pause(d time.Duration) {
	if p.paused > p.w.now {
		return
	}
	p.paused = p.w.now + d
	p.w.after(d, func() {
		waiting := p.waiting
		p.waiting = nil
		for _, f := range waiting {
			p.now(f)
		}
	})
}

// ask sends something to etcd, which is done there, and brings back the answer; both
// may be lost.
func (p *proc) ask(f func() (answer func())) {
	p.w.after(p.toEtcd.delay(p.w.now), func() {
		if p.cut || p.slot.proc != p && !p.dead {
			return
		}
		answer := f()
		p.w.after(p.fromEtcd.delay(p.w.now), func() {
			if !p.cut && answer != nil {
				p.now(answer)
			}
		})
	})
}

// join takes a place among the members: a new one, or one instead of that which was
// lost (rule 1).
func (p *proc) join(old string) {
	p.joined, p.joining = false, true
	w := p.w
	w.members++
	id := fmt.Sprintf("m%d.%d", p.number, w.members)
	sent := w.now
	p.ask(func() func() {
		e := w.etcd
		e.writeCluster(fmt.Sprintf("%s joins instead of %q", id, old), func(m *members, revision int64) {
			record, wrote := m.Records[old]
			if old != "" {
				w.became[old] = id
				m.take(old, revision)
				delete(m.Members, old)
				delete(m.Records, old)
			}
			m.Members[id] = ledger.Member{ID: id, Joined: revision}
			m.Alive[id] = true
			m.Joined = revision
			if wrote && w.carries() {
				m.Records[id] = record
			}
		})
		e.grant(id)
		// The load comes after the write, and sees it: the answer of both.
		main, cluster := e.main, e.cluster
		if w.breaks(joinLoad) && len(e.older) > 0 {
			main = e.older[max(0, len(e.older)-1-p.rng.IntN(6))]
		}
		return func() { p.enter(id, sent, main, cluster) }
	})
	p.do(2*time.Second, func() { // no answer
		if p.joining && p.id != id {
			p.join(old)
		}
	})
}

// enter serves what was loaded.
func (p *proc) enter(id string, sent time.Duration, main *resources, cluster *members) {
	if !p.joining {
		return
	}
	p.id, p.joined, p.joining = id, true, false
	p.recorder.forget()
	p.leading = leading{}
	for _, s := range p.streams {
		s.held, s.synced = false, false // nobody has waited for them
	}
	// What was loaded comes before the authority: who joins again serves nothing of what
	// it had before.
	p.cluster = cluster
	p.see()
	p.publish(main)
	p.extend(sent)
	p.mainChanged()
	p.clusterChanged()
	p.record()
}

// extend counts authority from when the request was sent that has been answered now
// (rule 2).
func (p *proc) extend(sent time.Duration) {
	had := p.hasAuthority() && p.authority > 0
	p.authority = max(p.authority, sent+p.w.bounds.Authority)
	p.sign = p.authority + p.w.bounds.Signing
	if !had && p.main != nil {
		p.sendAll()
	}
	p.w.dirty = true
}

// hasAuthority by what the process knows.
func (p *proc) hasAuthority() bool {
	return p.joined && (p.w.now <= p.authority || p.w.breaks(authorityEnds))
}

// keepAlive asks for the lease again and again.
func (p *proc) keepAlive() {
	if p.joined && !p.stopping {
		sent, id := p.w.now, p.id
		p.ask(func() func() {
			kept := p.w.etcd.keep(id)
			return func() {
				switch {
				case p.id != id || !p.joined:
				case kept:
					p.extend(sent)
				default:
					p.join(id)
				}
			}
		})
	}
	p.do(p.w.bounds.Authority/4, p.keepAlive)
}

// tick does what is done from time to time.
func (p *proc) tick() {
	if p.joined {
		p.see()
		p.notice()
		p.renew()
		p.record()
		p.elect()
		p.step()
		p.receive()
	}
	p.do(300*time.Millisecond, p.tick)
}

// mainChanged has the watch bring what is new, in which several writes may have become
// one.
func (p *proc) mainChanged() {
	if p.cut || !p.joined || p.dead {
		return
	}
	main := p.w.etcd.main
	p.do(p.mainWatch.delay(p.w.now)+p.slowMain, func() {
		if p.joined && main.revision > p.main.revision {
			p.publish(main)
		}
	})
}

func (p *proc) clusterChanged() {
	if p.cut || !p.joined || p.dead {
		return
	}
	cluster := p.w.etcd.cluster
	p.do(p.clusterWatch.delay(p.w.now)+p.slowCluster, func() {
		if p.joined && cluster.revision > p.cluster.revision {
			p.take(cluster)
		}
	})
}

// take takes in what is stored of the replicas.
func (p *proc) take(c *members) {
	p.cluster = c
	p.see()
	p.step()
	p.receive()
}

// see lets the observer see it.
func (p *proc) see() {
	c := p.cluster.Cluster
	now := p.clock.now()
	if p.w.breaks(departedRestart) {
		// Without records nothing but who is gone is seen.
		p.observer.See(ledger.Cluster{Members: c.Members, Alive: c.Alive}, now.Add(-time.Hour))
	}
	p.observer.See(c, now)
}

// stop is clean: it says that it signs no more, and leaves.
func (p *proc) stop() {
	if !p.joined || p.stopping {
		return
	}
	p.stopping = true
	p.writeRecord(true, func() { p.leave() })
	p.do(3*time.Second, p.leave)
}

// leave gives its lease back, and ends.
func (p *proc) leave() {
	w, id := p.w, p.id
	if w.breaks(signStopped) {
		p.ask(func() func() { w.etcd.expire(id); return nil })
		p.do(6*time.Second, func() {
			if p.slot.proc == p {
				p.kill()
			}
		})
		return
	}
	if !p.cut {
		w.after(p.toEtcd.delay(w.now), func() { w.etcd.expire(id) })
	}
	p.kill()
}

// carries says whether a member that joins again takes its record along.
func (w *world) carries() bool { return !w.breaks(rejoinRecord) }
