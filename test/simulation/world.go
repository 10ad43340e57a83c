package simulation

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

// world is one run.
type world struct {
	seed   uint64
	broken rule
	now    time.Duration
	seq    int
	queue  queue

	bounds ledger.Bounds
	lease  time.Duration // L
	skew   time.Duration
	maxAge time.Duration

	etcd     *etcd
	slots    []*slot
	planes   []*plane
	readers  []*reader
	tokens   []*token
	receipts []*receipt
	// emergency has the revision at which a key began to sign for an audience because
	// another was revoked.
	emergency map[[2]string]int64
	members   int
	// became has under which ID a member has joined again.
	became map[string]string
	// accepted has since which revision a service accepts an audience.
	accepted map[[2]string]int64
	// verified is since when the last audience is verified elsewhere; -1: it is not.
	verified time.Duration
	streams  uint64

	// dirty: something has changed that the checks look at.
	dirty  bool
	failed *violation
	story  func(string)
	did    counts
}

// counts is what happened in a run.
type counts struct {
	steps, rotations, revocations, receipts, emergencies, crashes, cuts, tokens, checks int
}

func (c *counts) add(o counts) {
	c.steps += o.steps
	c.rotations += o.rotations
	c.revocations += o.revocations
	c.receipts += o.receipts
	c.emergencies += o.emergencies
	c.crashes += o.crashes
	c.cuts += o.cuts
	c.tokens += o.tokens
	c.checks += o.checks
}

// violation is a claim that was not true.
type violation struct {
	claim string // I1, I2, I3, keys, claims, hold, liveness
	what  string
	at    time.Duration
}

func (v *violation) String() string {
	return fmt.Sprintf("%s broken after %.3f s: %s", v.claim, v.at.Seconds(), v.what)
}

// fail notes the first violation.
func (w *world) fail(claim, format string, args ...any) {
	if w.failed == nil {
		w.failed = &violation{claim, fmt.Sprintf(format, args...), w.now}
		w.told(func() string { return w.failed.String() })
	}
}

// told is for the story of a run, if somebody wants it.
func (w *world) told(text func() string) {
	if w.story != nil {
		w.story(fmt.Sprintf("%9.3f  %s", w.now.Seconds(), text()))
	}
}

func between(rng *rand.Rand, least, most time.Duration) time.Duration {
	return least + time.Duration(rng.Int64N(int64(most-least)+1)).Round(time.Millisecond)
}

// audiences that services accept; the last is also verified elsewhere.
var audiences = []string{"a", "b", "c"}

var serviceNames = []string{"x", "y", "z"}

var subjects = []string{"s0", "s1", "s2", "s3", "s4", "s5"}

var lifetimes = []time.Duration{3 * time.Second, 6 * time.Second, 12 * time.Second}

var algorithms = []string{"ES256", "EdDSA"}

// newWorld makes one of a seed, in which nothing runs yet.
func newWorld(seed uint64, broken rule) *world {
	rng := rand.New(rand.NewPCG(seed, 1))
	second := time.Second
	w := &world{seed: seed, broken: broken, emergency: map[[2]string]int64{}, verified: -1, accepted: map[[2]string]int64{}, became: map[string]string{}}
	w.bounds = ledger.Bounds{
		Authority:  between(rng, 2*second, 4*second),
		ClockError: between(rng, second/50, []time.Duration{second / 10, 2 * second}[rng.IntN(2)]),
		Signing:    between(rng, 2*second, 15*second),
		Grace:      between(rng, second, 12*second),
		Stragglers: ledger.Hold,
	}
	if rng.IntN(4) == 0 {
		w.bounds.Stragglers = ledger.Grant
	}
	w.lease = between(rng, 4*second, 12*second)
	w.skew = between(rng, 0, 2*second)
	w.maxAge = between(rng, second, 5*second)
	w.etcd = newEtcd(w)
	wrong := func() time.Duration {
		half := w.bounds.ClockError / 2
		if rng.IntN(2) == 0 { // the ends are worth more than what is between
			return []time.Duration{-half, half}[rng.IntN(2)]
		}
		return between(rng, -half, half)
	}
	w.etcd.write("the beginning", func(r *resources, revision int64) {
		first := w.etcd.newKey("ES256", start)
		first.State, first.Activated, first.Published, first.Revision = keyset.Active, start, revision, revision
		r.keys.Records[first.KeyID] = first
		r.keys.Open = keyset.Open{Active: first.KeyID, Revision: revision}
		r.settings = settings{lifetime: lifetimes[rng.IntN(3)], algorithm: "ES256"}
		if rng.IntN(2) == 0 {
			r.settings.every = between(rng, 10*second, 40*second)
		}
		for i, name := range serviceNames[:1+rng.IntN(3)] {
			r.services[name] = service{accepts: audiences[i : i+1], leased: rng.IntN(3) > 0}
		}
	})
	for i := range 1 + rng.IntN(4) {
		w.slots = append(w.slots, &slot{w: w, number: i, clock: clock{w, wrong()}})
	}
	for i := range 2 + rng.IntN(5) {
		w.planes = append(w.planes, newPlane(w, i, serviceNames[rng.IntN(3)], clock{w, wrong()}, rng.IntN(2) == 0))
	}
	w.readers = append(w.readers, &reader{w: w, link: w.link(900, 200*time.Millisecond)})
	return w
}

// run does the script, heals everything, and sees whether all comes to rest.
func (w *world) run(script []action) *violation {
	for _, s := range w.slots {
		s.start()
	}
	for i, p := range w.planes {
		p.start(w.slots[i%len(w.slots)])
	}
	for _, r := range w.readers {
		r.tick()
	}
	for _, a := range script {
		w.after(a.at, func() {
			w.told(func() string { return "* " + a.String() })
			w.act(a)
		})
	}
	w.until(chaos)
	w.heal()
	w.until(chaos + w.rest())
	if w.failed == nil {
		w.checkRest()
	}
	return w.failed
}

// until lets time pass.
func (w *world) until(end time.Duration) {
	for w.failed == nil && len(w.queue) > 0 && w.queue[0].at <= end {
		e := w.next()
		w.now = e.at
		w.did.steps++
		e.do()
		if w.dirty {
			w.dirty = false
			w.check()
		}
	}
	w.now = end
}
