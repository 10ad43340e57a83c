package tokens

import (
	"slices"
	"time"
)

// mostWithdrawn is how many withdrawn keys are remembered. A key is withdrawn once
// in a rotation.
const mostWithdrawn = 64

// drops is what was dropped, for answers that come later. A flight notes where the
// counters stand when it asks; what they say when it lands was not known to the STS
// for sure.
type drops struct {
	mark
	// keys of the last Keep.
	keys []string
	// withdrawn are keys that were in use, and then not in a Keep.
	withdrawn []string
}

type mark struct{ all, keeps uint64 }

type verdict int

const (
	good verdict = iota
	droppedOnTheWay
	withdrawn
)

// judge says what becomes of a token that was asked for when the counters stood at
// mark. A key that is not in the list but was never seen either is newer than the
// list: its tokens are good.
func (d *drops) judge(m mark, kid string) verdict {
	switch {
	case m.all != d.all:
		return droppedOnTheWay
	case slices.Contains(d.withdrawn, kid):
		return withdrawn
	case m.keeps != d.keeps && !slices.Contains(d.keys, kid):
		d.withdraw(kid)
		return droppedOnTheWay
	}
	return good
}

// keep takes a new list.
func (d *drops) keep(keys []string) {
	was := d.keys
	d.keys = slices.Clone(keys)
	d.keeps++
	for _, kid := range was {
		if !slices.Contains(keys, kid) {
			d.withdraw(kid)
		}
	}
	d.withdrawn = slices.DeleteFunc(d.withdrawn, func(kid string) bool { return slices.Contains(keys, kid) })
}

func (d *drops) withdraw(kid string) {
	if kid == "" || slices.Contains(d.withdrawn, kid) {
		return
	}
	if len(d.withdrawn) == mostWithdrawn {
		d.withdrawn = slices.Delete(d.withdrawn, 0, 1)
	}
	d.withdrawn = append(d.withdrawn, kid)
}

func (s *Source) mark() mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.drops.mark
}

// Keep drops all tokens that another key than these has signed, by the `kid` of
// their header (dataplane.v1.Outbound.signing_keys): nobody accepts them any more.
// When it returns, none of them is given out, also none that the STS is sending
// right now; who asks next waits for a new one. Later tokens of a key that was
// dropped are refused until it is in the list again. A token without kid is
// dropped each time.
func (s *Source) Keep(signingKeys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drops.keep(signingKeys)
	for _, a := range *s.audiences.Load() {
		if h := a.held.Load(); h != nil && !slices.Contains(signingKeys, h.kid) {
			s.drops.withdraw(h.kid)
			s.drop(a)
		}
	}
}

// DropAll drops all tokens, since the instance was revoked. When it returns, none of
// them is given out, also none that the STS is sending right now.
func (s *Source) DropAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drops.all++
	for _, a := range *s.audiences.Load() {
		if a.held.Load() != nil {
			s.drop(a)
		}
	}
}

// drop takes the token away. The caller has the lock.
func (s *Source) drop(a *audience) {
	a.held.Store(nil)
	a.next = time.Time{}
	s.metrics.dropped.Inc()
	s.config.Logger.Debug("dropped a token", "audience", a.name)
}

// refusedPause is how often a refusal by a callee drops a token: one that refuses
// whatever it gets shall not make every call a request to the STS.
const refusedPause = 10 * time.Second

// Refused says that a callee has not accepted a token: see [Tokens].
func (s *Source) Refused(name string, refused Token) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := (*s.audiences.Load())[name]
	if a == nil || s.closed {
		return false
	}
	h := a.held.Load()
	if h == nil || !h.token.same(refused) {
		return true // another has dropped it
	}
	now := s.config.Now()
	if !a.refused.IsZero() && now.Sub(a.refused) < refusedPause {
		return false
	}
	a.refused = now
	s.drop(a)
	return true
}
