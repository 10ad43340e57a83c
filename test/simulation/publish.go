package simulation

import (
	"maps"
	"slices"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

// content is what a data plane of a service gets: one value for each of the three
// resources mesh.inbound, mesh.revoked and mesh.lease, without the end of the lease.
type content struct {
	keys     []string // published, sorted
	accepts  []string
	revoked  []entry // sorted
	required bool
	// none: there is nothing for the service. Each of its resources is removed, and who
	// lacks one refuses everything.
	none bool
	// revision that it was made of; no part of it.
	revision int64
}

// The resources; one response has one.
const (
	inbound = iota
	revokedTokens
	leaseKind
	kinds
)

func (c *content) equal(o *content, kind int) bool {
	if c == nil || o == nil {
		return c == o
	}
	if c.none || o.none {
		return c.none == o.none
	}
	switch kind {
	case inbound:
		return slices.Equal(c.keys, o.keys) && slices.Equal(c.accepts, o.accepts)
	case revokedTokens:
		return slices.EqualFunc(c.revoked, o.revoked, func(a, b entry) bool { return a.id == b.id })
	}
	return c.required == o.required
}

func (c *content) same(o *content) bool {
	for kind := range kinds {
		if !c.equal(o, kind) {
			return false
		}
	}
	return true
}

// of makes the content of a service at a revision.
func (r *resources) of(name string) *content {
	s, there := r.services[name]
	if !there {
		return &content{none: true, revision: r.revision}
	}
	c := &content{accepts: s.accepts, required: s.leased, revision: r.revision}
	for kid, k := range r.keys.Records {
		if k.State != keyset.Revoked {
			c.keys = append(c.keys, kid)
		}
	}
	slices.Sort(c.keys)
	for _, id := range slices.Sorted(maps.Keys(r.entries)) {
		c.revoked = append(c.revoked, r.entries[id])
	}
	return c
}

// publish applies a revision, and sends what it changes.
func (p *proc) publish(r *resources) {
	was := p.main
	for _, name := range serviceNames {
		after := r.of(name)
		if was == nil && after.none || was != nil && was.of(name).same(after) {
			continue
		}
		if after.none {
			p.book.Removed(name, r.revision)
		} else {
			p.book.Changed(name, r.revision, after.required)
		}
		for _, s := range p.streams {
			if s.plane.service == name {
				s.held = s.held && !after.none && !after.required
				p.book.Behind(s.row, "", p.clock.now())
			}
		}
	}
	p.book.Applied(r.revision)
	p.main = r
	p.w.dirty = true
	p.sendAll()
	p.step()
	p.receive()
	p.record()
}

func (p *proc) sendAll() {
	for _, s := range slices.Clone(p.streams) {
		p.send(s)
	}
}

// mayServe says whether data planes of a service are served here now (rule 14).
func (p *proc) mayServe(service string) bool {
	return p.joined && !p.stopping && (p.hasAuthority() || !p.main.services[service].leased || p.w.breaks(cutOffServes) || p.w.breaks(renewAuthority))
}

// send sends what differs from what was sent last, one resource a response.
func (p *proc) send(s *stream) {
	if s.ended || !p.mayServe(s.plane.service) {
		return
	}
	c := p.main.of(s.plane.service)
	for kind := range kinds {
		if s.sent[kind].equal(c, kind) && s.sent[kind] != nil {
			continue
		}
		s.sent[kind] = c
		s.acked[kind] = false
		s.nonce++
		nonce := s.nonce
		s.awaits[kind] = nonce
		if p.w.breaks(ackCounts) {
			s.acked[kind] = true
		}
		p.w.after(s.down.delay(p.w.now), func() { s.plane.receive(s, kind, nonce, c) })
	}
	p.judge(s)
}

// confirm is an ACK or NACK that has come.
func (p *proc) confirm(s *stream, kind, nonce int, ok bool) {
	if s.ended || s.awaits[kind] != nonce {
		return
	}
	if ok || p.w.breaks(nackCounts) {
		s.acked[kind] = true
	} else {
		p.book.Behind(s.row, "it refuses", p.clock.now())
	}
	p.judge(s)
	p.record()
}

// judge tells the book whether a data plane is in sync (rule 3).
func (p *proc) judge(s *stream) {
	c := p.main.of(s.plane.service)
	for kind := range kinds {
		if !s.acked[kind] || !s.sent[kind].equal(c, kind) {
			s.inSync = false
			return
		}
	}
	s.inSync, s.synced, s.held = true, true, !c.required && !c.none
	p.book.InSync(s.row)
	p.lend(s)
}

// renew gives data planes the next lease (rule 5).
func (p *proc) renew() {
	if p.joined && !p.stopping {
		for _, s := range p.streams {
			p.lend(s)
		}
	}
}

func (p *proc) lend(s *stream) {
	w, now := p.w, p.clock.now()
	if s.ended || !p.main.services[s.plane.service].leased || !p.hasAuthority() && !w.breaks(renewAuthority) {
		return
	}
	floor := p.main.floor
	if w.breaks(renewFloor) {
		floor = 0
	}
	may := p.book.MayLease(s.row, floor)
	switch {
	case w.breaks(renewSync), w.breaks(renewNewcomer) && s.lent.IsZero():
		may = true
	}
	end := now.Add(p.mayLease())
	if !may || end.Sub(s.lent) < w.lease/4 && !s.lent.IsZero() || p.mayLease() == 0 {
		return
	}
	if !w.breaks(claimLease) {
		p.book.Lease(s.row, end)
	}
	s.lent = end
	given := grant{member: p.id, applied: p.main.revision, end: end}
	// Between this and the sending the process may stand still.
	p.do(time.Duration(p.rng.Int64N(int64(time.Millisecond))), func() {
		if p.main.services[s.plane.service].leased { // one resource has both
			w.after(s.down.delay(w.now), func() { s.plane.lend(s, given) })
		}
	})
}

// accept takes in a data plane that has come; false refuses it.
func (p *proc) accept(pl *plane) *stream {
	if p.main == nil || !p.mayServe(pl.service) {
		return nil
	}
	w := p.w
	w.streams++
	s := &stream{proc: p, plane: pl, row: ledger.Row{Service: pl.service, Instance: pl.name, Node: pl.name},
		down: w.link(1_000_000+2*w.streams, 60*time.Millisecond), up: w.link(1_000_001+2*w.streams, 60*time.Millisecond)}
	s.down.slow = pl.slow
	for _, older := range slices.Clone(p.streams) {
		if older.plane == pl {
			p.lose(older)
		}
	}
	p.streams = append(p.streams, s)
	p.book.Join(s.row, p.clock.now())
	c := p.main.of(pl.service)
	for kind := range kinds {
		if pl.has[kind] != nil && pl.has[kind].equal(c, kind) { // its version was claimed
			s.sent[kind], s.acked[kind] = c, true
		}
	}
	p.send(s)
	return s
}

// lose is what a process does about a stream that it knows to be gone.
func (p *proc) lose(s *stream) {
	i := slices.Index(p.streams, s)
	if i < 0 {
		return
	}
	p.streams = slices.Delete(p.streams, i, i+1)
	s.lost = true
	p.book.Leave(s.row, p.clock.now())
	s.end()
	p.record()
}

// notice finds streams that have ended some time ago.
func (p *proc) notice() {
	for _, s := range slices.Clone(p.streams) {
		if s.ended && p.w.now > s.ends+s.notice {
			p.lose(s)
		}
	}
}
