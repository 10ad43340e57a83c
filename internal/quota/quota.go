// Package quota bounds what each of many may have of something that all share:
// places at the same time ([Places]), and how often ([Pace]). Who asks for too much
// is refused at once, and never waits here.
package quota

import (
	"container/list"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// Places are a number of places, of which nobody has more than a share.
type Places struct {
	total, share int

	mu    sync.Mutex
	taken int
	by    map[string]int
}

// NewPlaces makes so many places in total, and so many for each key.
func NewPlaces(total, share int) *Places {
	return &Places{total: total, share: share, by: map[string]int{}}
}

// Take takes a place, which leave gives back; calling it again does nothing. The
// empty key has no share: the total alone bounds it.
func (p *Places) Take(key string) (leave func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken >= p.total || key != "" && p.by[key] >= p.share {
		return nil, false
	}
	p.taken++
	p.by[key]++
	return sync.OnceFunc(func() { p.leave(key) }), true
}

func (p *Places) leave(key string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if p.by[key]--; p.by[key] == 0 {
		delete(p.by, key)
	}
}

// Taken is how many places are taken.
func (p *Places) Taken() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.taken
}

// mostKeys is how many keys a Pace remembers; the one that was there least recently
// is forgotten first, and begins anew with a whole burst.
const mostKeys = 8192

// Pace is how often each key may do something: a burst, and so many a second.
type Pace struct {
	perSecond rate.Limit
	burst     int

	mu       sync.Mutex
	keys     map[string]*list.Element
	byRecent *list.List // of *paced, the most recent in front
}

type paced struct {
	key     string
	limiter *rate.Limiter
}

// NewPace allows a burst, and so many a second after it.
func NewPace(perSecond float64, burst int) *Pace {
	return &Pace{perSecond: rate.Limit(perSecond), burst: burst, keys: map[string]*list.Element{}, byRecent: list.New()}
}

// Take takes n, at most a burst of them, if they are there; else it takes none, and
// wait is the time until they will be.
func (p *Pace) Take(key string, n int, now time.Time) (wait time.Duration) {
	r := p.of(key).ReserveN(now, min(n, p.burst))
	if wait = r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
	}
	return wait
}

// Owe takes n, at most a burst of them, and returns how long to wait until they are
// there. It is for who waits before it takes more.
func (p *Pace) Owe(key string, n int, now time.Time) (wait time.Duration) {
	return p.of(key).ReserveN(now, min(n, p.burst)).DelayFrom(now)
}

func (p *Pace) of(key string) *rate.Limiter {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.keys[key]; ok {
		p.byRecent.MoveToFront(e)
		return e.Value.(*paced).limiter
	}
	if len(p.keys) >= mostKeys {
		oldest := p.byRecent.Remove(p.byRecent.Back()).(*paced)
		delete(p.keys, oldest.key)
	}
	k := &paced{key: key, limiter: rate.NewLimiter(p.perSecond, p.burst)}
	p.keys[key] = p.byRecent.PushFront(k)
	return k.limiter
}
