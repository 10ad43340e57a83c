package sts

import (
	"container/list"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How many failed requests a source may have: a burst for a service that
// starts with a wrong secret and many workers, then one a second.
const (
	failureBurst = 20
	failureRate  = rate.Limit(1)
	// maxSources is how many sources are remembered; the one that failed least
	// recently is forgotten first.
	maxSources = 4096
)

// failures counts the failed authentications of each source. It is asked only
// when one has failed: a request with the right secret is always answered, so
// that a neighbour behind the same address can't lock a service out. Guessing
// is hopeless with or without it; it is here to bound what a confused or
// hostile client costs us in audit and answers.
type failures struct {
	mu       sync.Mutex
	sources  map[string]*list.Element
	byRecent *list.List // of *source, the most recent in front
}

type source struct {
	key     string
	limiter *rate.Limiter
	limited bool
}

func newFailures() *failures {
	return &failures{sources: make(map[string]*list.Element), byRecent: list.New()}
}

// add counts a failure. If that was too many, wait is the time until the next
// one is answered properly, and first tells whether the one before was.
func (f *failures) add(address string, now time.Time) (wait time.Duration, first bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.source(limitKey(address))
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

func (f *failures) source(key string) *source {
	if e, ok := f.sources[key]; ok {
		f.byRecent.MoveToFront(e)
		return e.Value.(*source)
	}
	if len(f.sources) >= maxSources {
		oldest := f.byRecent.Remove(f.byRecent.Back()).(*source)
		delete(f.sources, oldest.key)
	}
	s := &source{key: key, limiter: rate.NewLimiter(failureRate, failureBurst)}
	f.sources[key] = f.byRecent.PushFront(s)
	return s
}

// limitKey is what failures are counted by: the address, or the /64 of an IPv6
// one, since that is what one host commonly has.
func limitKey(address string) string {
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

// sourceOf is the address that a request came from, without port. A request
// through a Unix socket has none.
func sourceOf(r *http.Request) string {
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return ap.Addr().Unmap().String()
}
