package simulation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
)

// grant is a lease as a data plane has it, with what only the checks know of it.
type grant struct {
	end time.Time
	// member gave it, when it had applied a revision.
	member  string
	applied int64
}

// plane is a data plane. It enforces what it receives at once, and confirms then.
type plane struct {
	w             *world
	name, service string
	clock         clock
	// durable: it has a file.
	durable bool
	up      bool
	has     [kinds]*content
	// from are the members that it has each of them from; only the checks know.
	from   [kinds]string
	lease  grant
	file   *saved
	stream *stream
	// home is where it goes first.
	home int
	// tries counts ways to a replica, of which the last is the one that counts.
	tries   int
	slow    time.Duration
	refuses time.Duration // until then it confirms no mesh.inbound
	rng     *rand.Rand
}

// saved is what the file of a data plane has (rule 15).
type saved struct {
	has   [kinds]*content
	lease grant
}

// stream is one connection of a data plane to a process.
type stream struct {
	proc     *proc
	plane    *plane
	row      ledger.Row
	down, up *link
	// sent was sent last of each resource, with the nonce that awaits an answer.
	sent   [kinds]*content
	awaits [kinds]int
	acked  [kinds]bool
	nonce  int
	inSync bool
	// held: it was in sync once, without leases; from then what it has holds its service.
	held bool
	// synced: it was in sync once.
	synced bool
	lent   time.Time
	// ended: nothing goes through; the process notices after a while.
	ended, lost  bool
	ends, notice time.Duration
}

func newPlane(w *world, i int, service string, c clock, durable bool) *plane {
	return &plane{w: w, name: fmt.Sprintf("d%d", i), service: service, clock: c, durable: durable, rng: rand.New(rand.NewPCG(w.seed, uint64(5000+i)))}
}

func (s *stream) end() {
	if s.ended {
		return
	}
	s.ended, s.ends = true, s.proc.w.now
	s.notice = time.Duration(s.plane.rng.Int64N(int64(2 * time.Second)))
	pl := s.plane
	if pl.stream == s {
		pl.stream = nil
		pl.connect(time.Duration(pl.rng.Int64N(int64(time.Second))), pl.home)
	}
}

func (pl *plane) start(s *slot) {
	pl.up = true
	pl.connect(0, s.number)
}

// move goes to another place.
func (pl *plane) move(to int) {
	pl.home = to
	if s := pl.stream; s != nil {
		pl.stream = nil
		s.end()
	}
	pl.connect(0, to)
}

// connect goes to a replica, and on to the next until one takes it.
func (pl *plane) connect(d time.Duration, to int) {
	w := pl.w
	pl.tries++
	try := pl.tries
	way := time.Duration(pl.rng.Int64N(int64(50 * time.Millisecond)))
	w.after(d+way, func() {
		if !pl.up || pl.tries != try {
			return
		}
		again := func() { pl.connect(300*time.Millisecond, (to+1)%len(w.slots)) }
		p := w.slots[to%len(w.slots)].proc
		if p == nil {
			again()
			return
		}
		answered := false
		p.now(func() {
			if pl.up && pl.tries == try {
				answered = true
				if pl.stream = p.accept(pl); pl.stream == nil {
					again()
				}
			}
		})
		w.after(2*time.Second, func() {
			if !answered && pl.tries == try {
				again()
			}
		})
	})
}

// receive takes a response of one resource.
func (pl *plane) receive(s *stream, kind, nonce int, c *content) {
	if pl.stream != s || s.ended {
		return
	}
	w := pl.w
	ok := kind != inbound || w.now >= pl.refuses
	if ok {
		pl.has[kind], pl.from[kind] = c, s.proc.id
		// Who has moved to a replica that is not as far has what is older again.
		pl.lease.applied = min(pl.lease.applied, c.revision)
		w.dirty = true
		pl.save()
	}
	w.after(s.up.delay(w.now), func() { s.proc.now(func() { s.proc.confirm(s, kind, nonce, ok) }) })
}

// lend takes a lease.
func (pl *plane) lend(s *stream, g grant) {
	if pl.stream != s || s.ended {
		return
	}
	pl.lease = g
	if c := pl.has[leaseKind]; c == nil || !c.required {
		pl.has[leaseKind] = &content{required: true}
	}
	pl.w.dirty = true
	pl.save()
}

// save writes the file.
func (pl *plane) save() {
	if !pl.durable {
		return
	}
	file := &saved{pl.has, pl.lease}
	if !pl.w.breaks(fileLater) {
		pl.file = file
		return
	}
	pl.w.after(2*time.Second, func() { pl.file = file })
}

// restart begins again with what the file has, or with nothing.
func (pl *plane) restart(withFile bool) {
	s := pl.stream
	pl.stream, pl.has, pl.lease = nil, [kinds]*content{}, grant{}
	if s != nil {
		s.end()
	}
	if pl.durable && withFile && pl.file != nil {
		pl.has, pl.lease = pl.file.has, pl.file.lease
	}
	pl.up = true
	pl.w.dirty = true
	pl.connect(time.Duration(pl.rng.Int64N(int64(500*time.Millisecond))), pl.home)
}

// complete: it has something of each resource.
func (pl *plane) complete() bool {
	return pl.up && !slices.ContainsFunc(pl.has[:], func(c *content) bool { return c == nil || c.none })
}

// leased says whether it goes by a lease that has not ended by its clock.
func (pl *plane) leased() bool {
	return pl.complete() && pl.has[leaseKind].required && !pl.clock.now().After(pl.lease.end)
}

// free says whether it needs no lease.
func (pl *plane) free() bool { return pl.complete() && !pl.has[leaseKind].required }

func (pl *plane) accepts(audience string) bool {
	return slices.Contains(pl.has[inbound].accepts, audience)
}

// counts says whether a data plane verifies tokens for an audience: it accepts them,
// and so its service does, without a break since what it has. In a break nobody waits
// for it with that audience, since its tokens are to be refused.
func (pl *plane) counts(audience string) bool {
	since, accepted := pl.w.accepted[[2]string{pl.service, audience}]
	return accepted && pl.accepts(audience) && pl.has[inbound].revision >= since
}

func (pl *plane) hasKey(kid string) bool {
	_, has := slices.BinarySearch(pl.has[inbound].keys, kid)
	return has
}

// takes says whether it accepts a token.
func (pl *plane) takes(t *token) bool {
	return (pl.leased() || pl.free()) && pl.accepts(t.audience) && pl.hasKey(t.kid) && !pl.ended(t) &&
		!slices.ContainsFunc(pl.has[revokedTokens].revoked, func(e entry) bool { return pl.w.forbids(e, t) })
}

// ended says whether a token has ended for it.
func (pl *plane) ended(t *token) bool { return pl.clock.now().After(t.expires.Add(pl.w.skew)) }

// forbids says whether an entry is for a token.
func (w *world) forbids(e entry, t *token) bool {
	if e.subject != t.subject {
		return false
	}
	until := e.until.Add(w.bounds.ClockError)
	if w.breaks(issuedBefore) {
		until = e.until
	}
	return e.until.IsZero() || !t.issued.After(until)
}
