package keyset

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// MaxPublished is how many keys an issuer publishes at most: one that signs, the one
// that is to sign next, and one whose tokens are still valid.
const MaxPublished = 3

// keepRevoked is how long it is remembered that a key was revoked.
const keepRevoked = 30 * 24 * time.Hour

// Keys is what is stored of the keys of an issuer.
type Keys struct {
	// Records by key ID. Step looks at no private key.
	Records map[string]Record
	Open    Open
}

// Facts is what Step goes by, besides the keys.
type Facts struct {
	// Now is the clock of who steps.
	Now time.Time
	// Every is how long a key signs before the next takes over; 0: until somebody
	// asks for it.
	Every time.Duration
	// Algorithm is the JWA name that new keys are made for. If the key that signs is of
	// another, the next takes over at once.
	Algorithm string
	// Audiences are all that tokens are issued for.
	Audiences []string
	// Gate says whether everybody who verifies tokens for an audience has what was
	// published at a revision.
	Gate func(published int64, audience string) bool
	// Unsigned says whether everybody who signs goes by what was open at a revision, or
	// by what came later.
	Unsigned func(revision int64) bool
	// Lifetime is the longest of a token that anybody has signed, Skew how long after
	// its end a verifier may take it, and ClockError the largest difference between
	// two clocks.
	Lifetime, Skew, ClockError time.Duration
}

// Change is what is to be written, all in one transaction that nothing else comes
// between.
type Change struct {
	// Put are records that differ, without what etcd counts.
	Put []Record
	// Delete are the IDs of the keys that go.
	Delete []string
	// Open, if it differs.
	Open *Open
	// Publish is the algorithm of a standby that is to be made and published; empty
	// for none.
	Publish string
	// Removes: a key that verified tokens does so no more.
	Removes bool
}

// Empty says that there is nothing to write.
func (c Change) Empty() bool {
	return len(c.Put)+len(c.Delete) == 0 && c.Open == nil && c.Publish == ""
}

// Step says what happens next to the keys of an issuer, by the rules 7, 9 and 10. It
// is asked again whenever something of what it goes by has changed, and at Due.
func Step(k Keys, f Facts) Change {
	s := step{Keys: Keys{maps.Clone(k.Records), k.Open}, facts: f, before: k}
	s.remove()
	s.goOn()
	s.begin()
	s.retire()
	s.publish()
	return s.change()
}

// step works on copies and compares at the end.
type step struct {
	Keys
	before    Keys
	facts     Facts
	publishes string
}

// published are the keys that verifiers have, or are about to.
func (k Keys) published() []Record {
	return k.in(Standby, Active, Retiring)
}

// in are the keys in some states, the oldest first.
func (k Keys) in(states ...State) []Record {
	var out []Record
	for _, r := range k.Records {
		if slices.Contains(states, r.State) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b Record) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.KeyID, b.KeyID))
	})
	return out
}

// InOrder are all keys: those that sign, the next, those that retire, the revoked ones;
// of each the oldest first.
func (k Keys) InOrder() []Record {
	return slices.Concat(k.in(Active), k.in(Standby), k.in(Retiring), k.in(Revoked))
}

// Standby is the key that is to sign next; false if there is none.
func (k Keys) Standby() (Record, bool) {
	list := k.in(Standby)
	if len(list) == 0 {
		return Record{}, false
	}
	return list[0], true
}

// remove takes out the keys whose last token has ended, and notes of others since when
// nobody signs with them.
func (s *step) remove() {
	for _, r := range s.in(Retiring) {
		switch {
		case r.Unsigned.IsZero() && s.facts.Unsigned(r.Revision):
			r.Unsigned, r.Lifetime = s.facts.Now, max(r.Lifetime, s.facts.Lifetime)
			s.Records[r.KeyID] = r
		case !r.Unsigned.IsZero() && s.facts.Now.After(s.facts.Ends(r)):
			delete(s.Records, r.KeyID)
		}
	}
	for _, r := range s.in(Revoked) {
		if s.facts.Now.Sub(r.Unsigned) > keepRevoked {
			delete(s.Records, r.KeyID)
		}
	}
}

// Ends is when no token is valid any more that a key has signed, which nobody signs
// with: Unsigned is of one clock, `exp` of another, and a third one looks at it.
func (f Facts) Ends(r Record) time.Time {
	return r.Unsigned.Add(max(r.Lifetime, f.Lifetime) + f.Skew + 2*f.ClockError)
}

// goOn opens audiences that an older key signs for.
func (s *step) goOn() {
	left := map[string]string{}
	for audience, kid := range s.Open.Except {
		if slices.Contains(s.facts.Audiences, audience) && !s.facts.Gate(s.Records[s.Open.Active].Published, audience) {
			left[audience] = kid
		}
	}
	if len(left) < len(s.Open.Except) {
		s.Open.Except = left
	}
}

// begin lets the standby sign, if that is due and an audience is ready for it. The
// others stay with the key that signs for them. An audience that is not known here is
// of a service that comes later, and gets the keys of then with its first content.
func (s *step) begin() {
	next, ok := s.Standby()
	if !ok || next.Published == 0 || next.Algorithm != s.facts.Algorithm || s.facts.Now.Before(s.due()) {
		return
	}
	except := map[string]string{}
	for _, audience := range s.facts.Audiences {
		if !s.facts.Gate(next.Published, audience) {
			except[audience] = s.Open.For(audience)
		}
	}
	if len(except) > 0 && len(except) == len(s.facts.Audiences) {
		return
	}
	next.State, next.Activated = Active, s.facts.Now
	s.Records[next.KeyID] = next
	s.Open.Active, s.Open.Except, s.Open.Asked = next.KeyID, except, time.Time{}
}

// due is when the next rotation begins.
func (s *step) due() time.Time {
	at, _ := Due(s.Keys, s.facts.Every, s.facts.Algorithm)
	return at
}

// Due is when the standby is to take over; false if nobody has said. The zero time is
// at once.
func Due(k Keys, every time.Duration, algorithm string) (time.Time, bool) {
	active := k.Records[k.Open.Active]
	switch {
	case active.Algorithm != algorithm, !k.Open.Asked.IsZero():
		return time.Time{}, true
	case every > 0:
		return active.Activated.Add(every), true
	}
	return time.Unix(1<<40, 0), false
}

// retire takes from the active keys those that sign for no audience any more.
func (s *step) retire() {
	for _, r := range s.in(Active) {
		if r.KeyID == s.Open.Active || slices.Contains(slices.Collect(maps.Values(s.Open.Except)), r.KeyID) {
			continue
		}
		r.State = Retiring
		s.Records[r.KeyID] = r
	}
}

// publish asks for a standby if there is none, and replaces one of another algorithm:
// it has never signed.
func (s *step) publish() {
	if next, ok := s.Standby(); ok {
		if next.Algorithm == s.facts.Algorithm {
			return
		}
		delete(s.Records, next.KeyID)
	}
	if len(s.published()) < MaxPublished {
		s.publishes = s.facts.Algorithm
	}
}

// change is how what is now differs from before.
func (s *step) change() Change {
	c := Change{Publish: s.publishes}
	for _, kid := range slices.Sorted(maps.Keys(s.before.Records)) {
		was := s.before.Records[kid]
		switch is, there := s.Records[kid]; {
		case !there:
			c.Delete = append(c.Delete, kid)
			c.Removes = c.Removes || was.State == Retiring
		case is.State != was.State || !is.Unsigned.Equal(was.Unsigned):
			c.Put = append(c.Put, is)
		}
	}
	if s.Open.Active != s.before.Open.Active || !maps.Equal(s.Open.Except, s.before.Open.Except) {
		c.Open = &s.Open
	}
	return c
}
