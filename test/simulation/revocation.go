package simulation

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

// revocation is what somebody asked to be refused.
type revocation struct {
	what, subject, kid string
	// before, if issued: tokens that were made before it.
	issued bool
	at     time.Duration
	// revision, once it is written.
	revision int64
}

func (r *revocation) forbids(t *token) bool {
	switch {
	case r.kid != "":
		return t.kid == r.kid
	case r.issued:
		return t.subject == r.subject && t.minted < r.at
	}
	return t.subject == r.subject
}

// receipt is what a process waits for, and then promises (rule 12).
type receipt struct {
	*revocation
	services []string
	departed map[string]bool
}

// excuses says whether a receipt lists the member that a data plane goes by as departed:
// who has its lease from it, or has moved to it since and got what is older.
func (r *receipt) excuses(pl *plane) bool {
	return r.lists(pl.w, pl.lease.member) || slices.ContainsFunc(pl.from[:], func(id string) bool { return r.lists(pl.w, id) })
}

// lists says whether a member is listed, or whom it has become by joining again.
func (r *receipt) lists(w *world, id string) bool {
	for ; id != ""; id = w.became[id] {
		if r.departed[id] {
			return true
		}
	}
	return false
}

// revokeSubject revokes all tokens of a subject, or those issued until now.
func (p *proc) revokeSubject(subject string, issued bool) {
	if p.main == nil || p.main.gone[subject] {
		return
	}
	w := p.w
	r := &revocation{what: "subject " + subject, subject: subject, issued: issued, at: w.now}
	e := entry{subject: subject}
	if issued {
		r.what = "what was issued to " + subject
		e.until = p.clock.now()
	}
	p.ask(func() func() {
		r.revision = w.etcd.write("revokes "+r.what, func(m *resources, revision int64) {
			e.id, e.revision = fmt.Sprintf("e%d", revision), revision
			m.entries[e.id] = e
			if !issued {
				m.gone[subject] = true
			}
			if !w.breaks(revokeFloor) {
				m.floor = revision
			}
		})
		w.did.revocations++
		return func() { p.receiving = append(p.receiving, &receipt{revocation: r}) }
	})
}

// revokeKey is an emergency (rule 11). which counts the keys in their order; -1 is all.
func (p *proc) revokeKey(which int) {
	if p.main == nil {
		return
	}
	w, keys, now := p.w, p.main.keys, p.clock.now()
	var list []string
	for _, k := range keys.InOrder() {
		if k.State != keyset.Revoked {
			list = append(list, k.KeyID)
		}
	}
	spares := [2]keyset.Record{w.etcd.newKey(p.main.settings.algorithm, now), w.etcd.newKey(p.main.settings.algorithm, now)}
	var c keyset.Change
	if which >= 0 {
		list = []string{list[which%len(list)]}
		c, _ = keyset.Revoke(keys, list[0], spares, now)
	} else {
		c = keyset.RevokeAll(keys, spares, now)
	}
	p.ask(func() func() {
		e := w.etcd
		if !e.main.same(keys) && !w.breaks(revokeSwap) {
			return func() { p.do(200*time.Millisecond, func() { p.revokeKey(which) }) }
		}
		w.did.emergencies++
		what := fmt.Sprintf("emergency at %s: %v", p.id, list)
		if w.breaks(revokeOpen) {
			first := c
			first.Open = nil
			revision := e.change(what, first, now, true)
			return func() { p.ask(func() func() { e.change(what, c, now, true); _ = revision; return nil }) }
		}
		revision := e.change(what, c, now, !w.breaks(revokeFloor))
		return func() {
			for _, kid := range list {
				r := &revocation{what: "key " + kid, kid: kid, at: w.now, revision: revision}
				p.receiving = append(p.receiving, &receipt{revocation: r})
			}
		}
	})
}

// receive sees which receipts can be given.
func (p *proc) receive() {
	if !p.joined || p.main == nil {
		return
	}
	p.receiving = slices.DeleteFunc(p.receiving, func(r *receipt) bool {
		if p.main.revision < r.revision {
			return false
		}
		return p.give(r)
	})
}

func (p *proc) give(r *receipt) bool {
	w := p.w
	r.services = slices.Sorted(maps.Keys(p.main.services))
	waits, unknown := p.observer.Receipt(r.revision, r.services, p.clock.now())
	waits = slices.DeleteFunc(waits, func(wait ledger.Wait) bool {
		return wait.Why == ledger.NotApplied && w.breaks(receiptApplied) || wait.Why == ledger.Behind && w.breaks(receiptLease)
	})
	if len(waits) > 0 {
		return false
	}
	r.departed = map[string]bool{}
	for _, u := range unknown {
		if u.Why == ledger.Departed && !w.breaks(receiptDeparted) {
			r.departed[u.Member] = true
		}
	}
	w.receipts = append(w.receipts, r)
	w.checkReceipt(r, unknown)
	w.did.receipts++
	w.dirty = true
	w.told(func() string {
		return fmt.Sprintf("%s gives a receipt for %s, but for %v", p.id, r.what, slices.Sorted(maps.Keys(r.departed)))
	})
	return true
}
