// Package failures counts the failed attempts of each source, so that a confused
// or hostile client can't cost more than it should. Who is asked only when an
// attempt has failed never locks anybody out who has the right credential.
package failures

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How many failures a source may have: a burst for a service that starts with a
// wrong secret and many workers, then one a second.
const (
	// Burst is how many failures at once are answered properly.
	Burst     = 20
	perSecond = rate.Limit(1)
	// maxSources is how many sources are remembered; the one that failed least
	// recently is forgotten first.
	maxSources = 4096
)

// Counter counts the failures of each source. It is asked only when an attempt
// has failed: the right secret is always answered, so that a neighbour behind the
// same address can't lock a service out. Guessing is hopeless with or without it;
// it is here to bound what failures cost us in audit and answers.
type Counter struct {
	mu       sync.Mutex
	sources  map[string]*list.Element
	byRecent *list.List // of *source, the most recent in front
}

type source struct {
	key     string
	limiter *rate.Limiter
	limited bool
}

// New returns a Counter of nothing.
func New() *Counter {
	return &Counter{sources: make(map[string]*list.Element), byRecent: list.New()}
}

// Add counts a failure. If that was too many, wait is the time until the next
// one is answered properly, and first tells whether the one before was.
func (f *Counter) Add(address string, now time.Time) (wait time.Duration, first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.source(Key(address))
	r := s.limiter.ReserveN(now, 1)
	wait = r.DelayFrom(now)
	if wait == 0 {
		s.limited = false
		return 0, false
	}
	r.CancelAt(now)
	first = !s.limited
	s.limited = true
	return wait, first
}

// Limited says whether a failure of the source would now be one too many. It
// counts nothing.
func (f *Counter) Limited(address string, now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	e, ok := f.sources[Key(address)]
	return ok && e.Value.(*source).limiter.TokensAt(now) < 1
}

func (f *Counter) source(key string) *source {
	if e, ok := f.sources[key]; ok {
		f.byRecent.MoveToFront(e)
		return e.Value.(*source)
	}
	if len(f.sources) >= maxSources {
		oldest := f.byRecent.Remove(f.byRecent.Back()).(*source)
		delete(f.sources, oldest.key)
	}
	s := &source{key: key, limiter: rate.NewLimiter(perSecond, Burst)}
	f.sources[key] = f.byRecent.PushFront(s)
	return s
}

// Key is what failures are counted by, given an address: the address, or the /64 of an IPv6
// one, since that is what one host commonly has.
func Key(address string) string {
	a, err := netip.ParseAddr(address)
	if err != nil || a.Is4() {
		return address
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return address
	}
	return p.String()
}

// SourceOf is the address of a peer, without port; empty for one that has none,
// such as the other end of a Unix socket.
func SourceOf(remote string) string {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return ""
	}
	return ap.Addr().Unmap().String()
}

// RemoteKey is the Key of a peer, for what is shared out among sources; empty for
// loopback, where all come from one address, and for who has no address.
func RemoteKey(remote string) string {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil || ap.Addr().Unmap().IsLoopback() {
		return ""
	}
	return Key(ap.Addr().Unmap().WithZone("").String())
}
