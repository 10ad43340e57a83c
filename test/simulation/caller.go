package simulation

import (
	"fmt"
	"slices"
	"time"

	"github.com/watchword-mesh/watchword/issuer/keyset"
)

// token is one that a caller got.
type token struct {
	kid, audience, subject string
	issued, expires        time.Time
	// minted is when it was really made.
	minted time.Duration
}

// maySignNow says whether the process signs at all (rule 8).
func (p *proc) maySignNow() bool {
	switch w := p.w; {
	case p.main == nil || p.dead || p.paused > w.now || p.maySign() == 0:
		return false
	case p.stopping && !w.breaks(signStopped):
		return false
	case w.breaks(signHorizon):
		return true
	default:
		return w.now <= p.sign
	}
}

// signs is the key that the process signs with for an audience; empty for none.
func (p *proc) signs(audience string) string {
	open := p.main.keys.Open
	kid := open.For(audience)
	switch {
	case p.w.breaks(signOpen):
		kid = open.Active
	case p.w.breaks(signRevoked) && p.kept != "":
		kid = p.kept
	}
	if p.w.breaks(signRevoked) {
		if p.kept == "" {
			p.kept = kid
		} else if p.main.keys.Records[kid].State != keyset.Revoked {
			p.kept = open.For(audience)
		}
		return kid
	}
	if p.main.keys.Records[kid].State != keyset.Active {
		return ""
	}
	return kid
}

// mint makes a token for a caller.
func (p *proc) mint(audience, subject string) {
	if !p.maySignNow() || p.main.gone[subject] {
		return
	}
	kid := p.signs(audience)
	if kid == "" {
		return
	}
	w, now := p.w, p.clock.now()
	t := &token{kid: kid, audience: audience, subject: subject, issued: now, expires: now.Add(p.maySign()), minted: w.now}
	w.tokens = append(w.tokens, t)
	w.did.tokens++
	w.dirty = true
	w.told(func() string {
		return fmt.Sprintf("%s mints for audience %s, %s, with %s", p.id, audience, subject, kid)
	})
	if p.main.keys.Records[kid].State == keyset.Revoked {
		w.fail("own", "%s has signed with %s, which it has applied to be revoked", p.id, kid)
	}
}

// prune forgets tokens that have ended everywhere.
func (w *world) prune() {
	now := start.Add(w.now)
	w.tokens = slices.DeleteFunc(w.tokens, func(t *token) bool {
		return now.After(t.expires.Add(w.skew + 2*w.bounds.ClockError))
	})
}

// reader reads the JWKS endpoint now and then.
type reader struct {
	w    *world
	link *link
	keys []string
	// until its copy may be used, and the revision that it is of.
	until    time.Duration
	revision int64
	turn     int
}

func (r *reader) tick() {
	w := r.w
	r.turn++
	p := w.slots[r.turn%len(w.slots)].proc
	if p != nil && p.joined && p.hasAuthority() && p.paused <= w.now {
		main, until := p.main, w.now+w.maxAge
		w.after(r.link.delay(w.now), func() {
			r.keys, r.until, r.revision = nil, until, main.revision
			for kid, k := range main.keys.Records {
				if k.State != keyset.Revoked {
					r.keys = append(r.keys, kid)
				}
			}
			slices.Sort(r.keys)
			w.dirty = true
		})
	}
	w.after(w.maxAge/2, r.tick)
}
