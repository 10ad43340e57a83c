package simulation

import (
	"fmt"
	"slices"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

// check looks at all that is to be true at every moment.
func (w *world) check() {
	w.did.checks++
	w.prune()
	w.checkSigners()
	for _, pl := range w.planes {
		switch {
		case pl.leased():
			w.checkLeased(pl)
		case pl.free():
			w.checkFree(pl)
		}
	}
}

// signer is a key that can sign for an audience now, and who does it.
type signer struct{ member, audience, kid string }

func (w *world) signers() []signer {
	var all []signer
	for _, s := range w.slots {
		p := s.proc
		if p == nil || !p.maySignNow() {
			continue
		}
		for _, a := range audiences {
			if kid := p.signs(a); kid != "" && !w.revoked(kid) {
				all = append(all, signer{p.id, a, kid})
			}
		}
	}
	return all
}

func (w *world) revoked(kid string) bool {
	return w.etcd.main.keys.Records[kid].State == keyset.Revoked
}

// excused says whether who goes by a revision need not have a key that signs for an
// audience because another was revoked.
func (w *world) excused(kid, audience string, applied int64) bool {
	return applied < w.emergency[[2]string{kid, audience}]
}

// checkSigners is I1, and I2 for who still signs.
func (w *world) checkSigners() {
	for _, s := range w.signers() {
		if _, there := w.etcd.main.keys.Records[s.kid]; !there {
			w.fail("I2", "%s can sign for audience %s with %s, which is gone", s.member, s.audience, s.kid)
		}
		for _, pl := range w.planes {
			if pl.leased() && pl.counts(s.audience) && !pl.hasKey(s.kid) && !w.excused(s.kid, s.audience, pl.lease.applied) {
				w.fail("I1", "%s can sign for audience %s with %s, which %s of service %s does not have: it has %v and a lease from %s", s.member, s.audience, s.kid, pl.name, pl.service, pl.has[inbound].keys, pl.lease.member)
			}
		}
		w.checkHeld(s)
		if s.audience != audiences[len(audiences)-1] || !w.elsewhere() {
			continue
		}
		for _, r := range w.readers {
			if _, has := slices.BinarySearch(r.keys, s.kid); !has && r.until > w.now && !w.excused(s.kid, s.audience, r.revision) {
				w.fail("I1", "%s can sign for audience %s with %s, which a reader of the JWKS endpoint does not have: it has %v", s.member, s.audience, s.kid, r.keys)
			}
		}
	}
}

// checkHeld proves that a data plane without leases that is connected, and was in sync
// once on this stream, holds back the keys that it refuses.
func (w *world) checkHeld(s signer) {
	if w.bounds.Stragglers != ledger.Hold {
		return
	}
	for _, pl := range w.planes {
		st := pl.stream
		if st != nil && !st.ended && st.held && st.proc.hasAuthority() && pl.free() && pl.counts(s.audience) && !pl.hasKey(s.kid) && !w.excused(s.kid, s.audience, st.proc.main.revision) && w.emergency[[2]string{s.kid, s.audience}] == 0 {
			w.fail("hold", "%s can sign for audience %s with %s, which %s of service %s, connected to %s, has not confirmed", s.member, s.audience, s.kid, pl.name, pl.service, st.proc.id)
		}
	}
}

// checkReceipt proves of data planes without leases what a receipt says of the moment
// that it is given: of those that are connected it lists who has not confirmed.
func (w *world) checkReceipt(r *receipt, unknown []ledger.Wait) {
	for _, pl := range w.planes {
		s := pl.stream
		if s == nil || s.ended || !s.proc.hasAuthority() || !s.synced || !pl.free() || !slices.Contains(r.services, pl.service) {
			continue
		}
		listed := slices.ContainsFunc(unknown, func(u ledger.Wait) bool {
			return u.Member == s.proc.id && (u.Service == "" || u.Service == pl.service)
		})
		for _, t := range w.tokens {
			if r.forbids(t) && pl.takes(t) && !listed {
				w.fail("I3", "%s of service %s, without leases and connected to %s, accepts a token of %s (%s) in spite of the receipt for %s at revision %d that does not list it", pl.name, pl.service, s.proc.id, t.subject, t.kid, r.what, r.revision)
			}
		}
	}
}

// elsewhere: the last audience is verified elsewhere since somebody has made a service
// that accepts it; and that for long enough that who reads the JWKS endpoint for its
// sake has read since.
func (w *world) elsewhere() bool { return w.verified >= 0 && w.now > w.verified+w.maxAge }

// checkElsewhere notes since when that is.
func (w *world) checkElsewhere(r *resources) {
	for _, s := range r.services {
		if slices.Contains(s.accepts, audiences[len(audiences)-1]) {
			if w.verified < 0 {
				w.verified = w.now
			}
			return
		}
	}
	w.verified = -1
}

// noteAccepted notes since which revision services accept audiences without a break.
func (w *world) noteAccepted(r *resources) {
	for _, name := range serviceNames {
		for _, a := range audiences {
			at := [2]string{name, a}
			_, was := w.accepted[at]
			switch is := slices.Contains(r.services[name].accepts, a); {
			case is && !was:
				w.accepted[at] = r.revision
			case !is:
				delete(w.accepted, at)
			}
		}
	}
}

// valid: a token that nothing forbids and that has not ended for a data plane, not
// even without the skew.
func (w *world) valid(t *token, pl *plane) bool {
	return !pl.clock.now().After(t.expires) && !w.revoked(t.kid)
}

// checkLeased is I2 and I3 of a data plane with a lease.
func (w *world) checkLeased(pl *plane) {
	for _, t := range w.tokens {
		if pl.counts(t.audience) && w.valid(t, pl) && !pl.hasKey(t.kid) && !w.excused(t.kid, t.audience, pl.lease.applied) {
			w.fail("I2", "%s of service %s has no key %s, and refuses a token for audience %s that is valid until %v", pl.name, pl.service, t.kid, t.audience, t.expires.Sub(start))
		}
		for _, r := range w.receipts {
			if r.forbids(t) && slices.Contains(r.services, pl.service) && !r.excuses(pl) && pl.takes(t) {
				w.fail("I3", "%s of service %s, with a lease from %s until %v, accepts a token of %s (%s) in spite of the receipt for %s at revision %d", pl.name, pl.service, pl.lease.member, pl.lease.end.Sub(start), t.subject, t.kid, r.what, r.revision)
			}
		}
	}
}

// checkFree is what is promised without leases.
func (w *world) checkFree(pl *plane) {
	s := pl.stream
	if w.bounds.Stragglers != ledger.Hold || s == nil || s.ended || !s.inSync || !s.proc.hasAuthority() || s.proc.paused > w.now || !pl.confirmed(s) {
		return
	}
	for _, t := range w.tokens {
		if pl.counts(t.audience) && w.valid(t, pl) && !pl.hasKey(t.kid) && !w.excused(t.kid, t.audience, s.proc.main.revision) {
			w.fail("hold", "%s of service %s, in sync at %s, has no key %s, and refuses a token for audience %s that is valid until %v", pl.name, pl.service, s.proc.id, t.kid, t.audience, t.expires.Sub(start))
		}
	}
}

// confirmed: it has all that its replica has published, and has said so.
func (pl *plane) confirmed(s *stream) bool {
	c := s.proc.main.of(pl.service)
	for kind := range kinds {
		if !s.acked[kind] || !pl.has[kind].equal(c, kind) {
			return false
		}
	}
	return true
}

// checkWrite looks at a change of resources.
func (w *world) checkWrite(before, after *resources) {
	w.checkElsewhere(after)
	w.noteAccepted(after)
	published := 0
	for _, k := range after.keys.Records {
		if k.State != keyset.Revoked {
			published++
		}
	}
	if published > keyset.MaxPublished {
		w.fail("keys", "%d keys are published", published)
	}
	open := after.keys.Open
	for _, a := range audiences {
		if kid := open.For(a); after.keys.Records[kid].State != keyset.Active {
			w.fail("keys", "%s is to sign for audience %s, and is %q", kid, a, after.keys.Records[kid].State)
		}
	}
	for kid, k := range before.keys.Records {
		if _, there := after.keys.Records[kid]; !there && k.State != keyset.Revoked {
			w.checkGone(kid)
		}
	}
	for _, a := range audiences {
		was := before.keys.Open.For(a)
		if was != open.For(a) && after.keys.Records[was].State == keyset.Revoked {
			w.emergency[[2]string{open.For(a), a}] = after.revision
		}
	}
}

// checkGone is I2 at the moment that a key goes.
func (w *world) checkGone(kid string) {
	for _, t := range w.tokens {
		for _, pl := range w.planes {
			if t.kid == kid && !pl.ended(t) {
				w.fail("I2", "%s goes, and for %s a token of it, minted after %.3f s, is valid until %v + %v", kid, pl.name, t.minted.Seconds(), t.expires.Sub(start), w.skew)
			}
		}
	}
}

// checkCluster proves that claims never fall.
func (w *world) checkCluster(before, after *members) {
	for id, was := range before.Records {
		is, there := after.Records[id]
		if !there {
			continue
		}
		for _, name := range serviceNames {
			if claim(is, name) < claim(was, name) {
				w.fail("claims", "%s claims %d for service %s, after %d", id, claim(is, name), name, claim(was, name))
			}
		}
	}
}

func claim(r ledger.Record, service string) int64 {
	if h, held := r.Held[service]; held {
		return h.Claim
	}
	return r.Applied
}

// checkRest looks whether all has come to rest.
func (w *world) checkRest() {
	m := w.etcd.main
	if !m.keys.Open.Asked.IsZero() || len(m.keys.Open.Except) > 0 {
		w.fail("liveness", "a rotation was asked for and is not done: %+v", m.keys.Open)
	}
	for kid, k := range m.keys.Records {
		if k.State == keyset.Retiring || k.State == keyset.Active && kid != m.keys.Open.Active {
			w.fail("liveness", "key %s is still %s", kid, k.State)
		}
	}
	if _, ok := m.keys.Standby(); !ok {
		w.fail("liveness", "there is no standby")
	}
	if len(m.entries) > 0 {
		w.fail("liveness", "%d revocation entries are left", len(m.entries))
	}
	for id := range w.etcd.cluster.Members {
		if !w.etcd.cluster.Alive[id] {
			w.fail("liveness", "member %s is gone and not forgotten", id)
		}
	}
	for _, pl := range w.planes {
		w.checkPlaneRests(pl)
	}
	for _, s := range w.slots {
		if n := len(s.proc.receiving); n > 0 {
			w.fail("liveness", "%d receipts are not given: %s", n, s.proc.receiving[0].what)
		}
		if s.proc.main != m {
			w.fail("liveness", "%s has applied revision %d, not %d", s.proc.id, s.proc.main.revision, m.revision)
		}
	}
}

func (w *world) checkPlaneRests(pl *plane) {
	service, there := w.etcd.main.services[pl.service]
	switch s := pl.stream; {
	case s == nil || !s.inSync:
		w.fail("liveness", "%s is not in sync", pl.name)
	case there && service.leased && !pl.leased():
		w.fail("liveness", "%s of service %s has no lease", pl.name, pl.service)
	case there && !service.leased && !pl.free():
		w.fail("liveness", "%s of service %s still wants a lease", pl.name, pl.service)
	}
}

func (w *world) String() string {
	return fmt.Sprintf("seed %d: bounds %+v, lease %v, skew %v, max-age %v; replicas %d, data planes %d", w.seed, w.bounds, w.lease, w.skew, w.maxAge, len(w.slots), len(w.planes))
}
