package accesslog

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/watchword-mesh/watchword/dataplane/reason"
)

// limits of a ledger.
type limits struct {
	// counts in all.
	counts int
	// callers of one service that are told apart.
	callers int
	// sample of one service, and of all together.
	sample, samples int
}

var defaultLimits = limits{counts: 10000, callers: 64, sample: 64, samples: 10000}

const (
	// callerIdle is after how much time without a refusal a caller gives its
	// place to another one.
	callerIdle = time.Hour
	// sampleRate is how many refusals of a service come into the sample in a
	// second, so that a flood does not wash out all others.
	sampleRate = 10
)

// ledger counts refusals, and keeps a sample.
type ledger struct {
	limits
	since time.Time

	mu       sync.Mutex
	services map[string]*service
	counts   int
	sampled  int
}

type service struct {
	callers map[Caller]*caller
	sampler *rate.Limiter
	// sample is a ring: next is the oldest, once it does not grow any more.
	sample []Refusal
	next   int
}

type caller struct {
	last   time.Time
	counts map[kind]*count
}

type kind struct {
	reason   reason.Word
	observed bool
}

type count struct {
	n    uint64
	last time.Time
}

func newLedger(l limits, since time.Time) *ledger {
	return &ledger{limits: l, since: since, services: map[string]*service{}}
}

// reserved is the room for counts under no service, which is always there.
func reserved() int { return 2 * (len(reason.All()) + 1) }

// add counts a refusal, and returns the service under which it did: its own, or
// Other.
func (l *ledger) add(r Refusal, now time.Time) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := r.Service
	if !l.count(name, r, now) {
		name = Other
		l.count(name, r, now)
	}
	l.keep(l.services[name], r, now)
	return name
}

// count finds the count for a refusal, or one that tells less, and adds to it.
// It fails if there is no room at all for the service.
func (l *ledger) count(name string, r Refusal, now time.Time) bool {
	k := kind{r.Reason, r.Observed}
	for _, who := range []Caller{r.Caller, {Other: true}} {
		if c := l.find(name, who, k, now); c != nil {
			c.n++
			c.last = now
			l.services[name].callers[who].last = now
			return true
		}
	}
	return false
}

// find returns a count, made anew if the limits allow it, or nil.
func (l *ledger) find(name string, who Caller, k kind, now time.Time) *count {
	s := l.services[name]
	if s != nil && s.callers[who] != nil && s.callers[who].counts[k] != nil {
		return s.callers[who].counts[k]
	}
	if !l.mayGrow(name, who, now) {
		return nil
	}
	if s == nil {
		s = &service{callers: map[Caller]*caller{}, sampler: rate.NewLimiter(sampleRate, max(1, l.sample))}
		l.services[name] = s
	}
	if s.callers[who] == nil {
		s.callers[who] = &caller{counts: map[kind]*count{}}
	}
	c := new(count)
	s.callers[who].counts[k] = c
	l.counts++
	return c
}

// mayGrow says whether there is room for one more count. The last quarter is
// for those without the name of a caller, so that services with many callers
// don't keep others from being counted at all.
func (l *ledger) mayGrow(name string, who Caller, now time.Time) bool {
	room := l.limits.counts - reserved() - l.counts
	switch {
	case name == Other:
		return who.Other
	case who.Other || who == Caller{}:
		return room > 0
	case room <= l.limits.counts/4:
		return false
	}
	s := l.services[name]
	return s == nil || s.callers[who] != nil || s.named() < l.callers || l.foldIdle(s, now)
}

// named is how many callers of a service have a name.
func (s *service) named() int {
	n := len(s.callers)
	for _, who := range []Caller{{}, {Other: true}} {
		if s.callers[who] != nil {
			n--
		}
	}
	return n
}

// foldIdle adds the caller that was refused least recently to the others, if
// that was long ago.
func (l *ledger) foldIdle(s *service, now time.Time) bool {
	var oldest Caller
	for who, c := range s.callers {
		if !who.Other && who != (Caller{}) && (oldest == Caller{} || c.last.Before(s.callers[oldest].last)) {
			oldest = who
		}
	}
	idle := s.callers[oldest]
	if idle == nil || now.Sub(idle.last) < callerIdle {
		return false
	}
	delete(s.callers, oldest)
	others := s.callers[Caller{Other: true}]
	if others == nil {
		others = &caller{counts: map[kind]*count{}}
		s.callers[Caller{Other: true}] = others
	}
	for k, c := range idle.counts {
		if o := others.counts[k]; o != nil {
			o.n += c.n
			o.last = later(o.last, c.last)
			l.counts--
			continue
		}
		others.counts[k] = c
	}
	others.last = later(others.last, idle.last)
	return true
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// keep puts a refusal into the sample of its service, in place of the oldest.
func (l *ledger) keep(s *service, r Refusal, now time.Time) {
	switch {
	case !s.sampler.AllowN(now, 1):
	case len(s.sample) < l.sample && l.sampled < l.samples:
		s.sample = append(s.sample, r)
		l.sampled++
	case len(s.sample) > 0:
		s.sample[s.next] = r
		s.next = (s.next + 1) % len(s.sample)
	}
}

// Forget drops all that was counted for a service, in the metrics too. It is to
// be called when Config.Known no longer knows the service: what is reported late
// then counts under Other.
func (s *Server) Forget(service string) {
	s.booking.Lock()
	defer s.booking.Unlock()
	s.ledger.forget(service)
	s.metrics.forget(service)
}

func (l *ledger) forget(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := l.services[name]
	if s == nil {
		return
	}
	for _, c := range s.callers {
		l.counts -= len(c.counts)
	}
	l.sampled -= len(s.sample)
	delete(l.services, name)
}

// Count is how often something was refused.
type Count struct {
	Service  string
	Caller   Caller
	Reason   reason.Word
	Observed bool
	Count    uint64
	Last     time.Time
}

// Report is what is known about refusals.
type Report struct {
	// Since is when counting began.
	Since time.Time
	// Counts by service, the largest first.
	Counts []Count
	// Sample of the last refusals, the newest first.
	Sample []Refusal
}

// Report returns what is known about a service; about all, if name is empty.
func (s *Server) Report(name string) Report { return s.ledger.report(name) }

func (l *ledger) report(name string) Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := Report{Since: l.since}
	for n, s := range l.services {
		if name != "" && n != name {
			continue
		}
		out.Sample = append(out.Sample, s.sample...)
		for who, c := range s.callers {
			for k, x := range c.counts {
				out.Counts = append(out.Counts, Count{Service: n, Caller: who, Reason: k.reason, Observed: k.observed, Count: x.n, Last: x.last})
			}
		}
	}
	slices.SortFunc(out.Counts, compareCounts)
	slices.SortStableFunc(out.Sample, func(a, b Refusal) int { return b.Time.Compare(a.Time) })
	return out
}

func compareCounts(a, b Count) int {
	return cmp.Or(
		strings.Compare(a.Service, b.Service),
		-cmp.Compare(a.Count, b.Count),
		strings.Compare(string(a.Reason), string(b.Reason)),
		compareCallers(a.Caller, b.Caller),
		compareBools(a.Observed, b.Observed),
	)
}

func compareCallers(a, b Caller) int {
	return cmp.Or(
		compareBools(a.Other, b.Other),
		strings.Compare(a.Consumer, b.Consumer),
		strings.Compare(a.Issuer, b.Issuer),
		strings.Compare(a.Subject, b.Subject),
	)
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}
