package xds

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
)

// leaseName is the name under which data planes of all kinds ask for their lease.
const leaseName = "mesh.lease"

// errNoAuthority keeps a data plane from what may be old: another replica has better.
var errNoAuthority = status.Error(codes.Unavailable,
	"this replica can't tell whether what it has is still in force (it has lost etcd), and the service has a lease: try another replica, or later")

// lease is one end, encoded: all streams that are given it share it.
type lease struct {
	end, renewal time.Time
	entries      map[string]*entry // by type URL
}

// leases are what is given to the data planes of services that have them. The end of
// one is content, the same for all that are given one of its length until a third of
// that is over.
type leases struct {
	encode    func(end time.Time) ([]Resource, error)
	authority func() bool
	// floor is the revision that a data plane must have to be given one; recorded is
	// the longest that may be given, in nanoseconds.
	floor, recorded atomic.Int64
	// withheld: somebody could not be given one, which may be otherwise soon.
	withheld atomic.Bool
	wake     chan struct{} // has one place
	renewing sync.Once

	mu      sync.Mutex // taken after that of a service
	current map[time.Duration]*lease
	closed  *lease
}

func newLeases(cfg Config) *leases {
	l := &leases{encode: cfg.Lease, authority: cfg.Authority, wake: make(chan struct{}, 1), current: map[time.Duration]*lease{}}
	if l.authority == nil {
		l.authority = func() bool { return true }
	}
	return l
}

// SetFloor takes the revision of the last revocation, or removal of a key: what has not
// confirmed it is given no lease. It never falls.
func (s *Server) SetFloor(revision int64) {
	for {
		old := s.leases.floor.Load()
		if revision <= old || s.leases.floor.CompareAndSwap(old, revision) {
			return
		}
	}
}

// SetRecordedLease takes the longest lease that is written down in the replica's
// record: no longer one is given, and before the first call none.
func (s *Server) SetRecordedLease(d time.Duration) {
	s.leases.recorded.Store(int64(d))
	s.leases.again()
}

// LongestLease is the longest that a service has now: what is to be recorded.
// ClaimsChanged tells when it may be another.
func (s *Server) LongestLease() time.Duration {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var longest time.Duration
	for _, svc := range s.services {
		svc.mu.Lock()
		longest = max(longest, svc.lease)
		svc.mu.Unlock()
	}
	return longest
}

func (l *leases) again() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// refuses says whether a stream of a service has to go elsewhere.
func (s *Server) refuses(service string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	svc := s.services[service]
	if svc == nil {
		return false
	}
	svc.mu.Lock()
	defer svc.mu.Unlock()
	return svc.lease > 0 && !s.leases.authority()
}

// renewLeases gives all data planes their leases until the server is closed.
func (s *Server) renewLeases() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-s.leases.wake:
		case <-s.ctx.Done():
			return
		}
		timer.Reset(max(s.renew(), 10*time.Millisecond))
	}
}

// withheldRetry is when those are looked at again that could be given none.
const withheldRetry = time.Second

// renew gives each data plane that may have it the lease of now, and returns how long
// that is so.
func (s *Server) renew() time.Duration {
	s.leases.withheld.Store(false)
	wait := time.Hour
	for _, svc := range s.leasedServices() {
		svc.mu.Lock()
		l := s.leaseOf(svc.lease)
		for _, r := range svc.rows {
			svc.offer(r, l, false)
		}
		svc.mu.Unlock()
		if l != nil {
			wait = min(wait, l.renewal.Sub(s.now()))
		}
	}
	if s.leases.withheld.Load() {
		wait = min(wait, withheldRetry)
	}
	return wait
}

func (s *Server) leasedServices() []*service {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []*service
	for _, svc := range s.services {
		svc.mu.Lock()
		if svc.lease > 0 {
			all = append(all, svc)
		}
		svc.mu.Unlock()
	}
	return all
}

// leaseOf is what data planes of a service with leases of a length are given now; nil
// if nothing.
func (s *Server) leaseOf(length time.Duration) *lease {
	length = min(length, time.Duration(s.leases.recorded.Load()))
	if length < time.Second || s.leases.encode == nil || !s.leases.authority() {
		return nil
	}
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	now := s.now()
	l := s.leases.current[length]
	if l == nil || !now.Before(l.renewal) {
		l = s.newLease(now.Add(length).Truncate(time.Second), now.Add(length/3))
		s.leases.current[length] = l
	}
	return l
}

// closedLease refuses everything.
func (s *Server) closedLease() *lease {
	s.leases.mu.Lock()
	defer s.leases.mu.Unlock()
	if s.leases.closed == nil {
		s.leases.closed = s.newLease(time.Time{}, time.Time{})
	}
	return s.leases.closed
}

func (s *Server) newLease(end, renewal time.Time) *lease {
	l := &lease{end: end, renewal: renewal, entries: map[string]*entry{}}
	if s.leases.encode == nil {
		return l
	}
	resources, err := s.leases.encode(end)
	if err != nil {
		s.log.Error("leases can't be encoded; none are given", "error", err)
		return l
	}
	v := s.leaseVersion(end)
	for _, r := range resources {
		l.entries[r.TypeURL] = &entry{version: v, wire: wireOf(r, v)}
	}
	return l
}

// leaseVersion says when a lease ends, and proves that a replica of ours has made it:
// so a data plane that comes back is known to hold a lease, and not what lets
// everything through.
func (s *Server) leaseVersion(end time.Time) string {
	at := "0"
	if !end.IsZero() {
		at = strconv.FormatInt(end.Unix(), 10)
	}
	h := hmac.New(sha256.New, s.versionKey)
	h.Write([]byte("lease version\x00" + at))
	return at + "-" + hex.EncodeToString(h.Sum(nil)[:8])
}

func (s *Server) isLease(version string) bool {
	at, _, ok := strings.Cut(version, "-")
	seconds, err := strconv.ParseInt(at, 10, 64)
	if !ok || err != nil {
		return false
	}
	end := time.Unix(seconds, 0)
	if seconds == 0 {
		end = time.Time{}
	}
	return hmac.Equal([]byte(s.leaseVersion(end)), []byte(version))
}

// leaseItem is what an item is besides if it is a lease. It is of the stream, and no
// part of the content of its service.
type leaseItem struct {
	// bound: what the data plane holds under the name makes it refuse everything
	// sooner or later. Of a Go data plane that is a matter of its ruleset.
	bound bool
	// open: it was sent here, before the service had leases, what lets everything
	// through.
	open bool
}

// isLease says whether a name of a subscription is that of a lease.
func (sub *subscription) isLease(name string) bool {
	return name == leaseName && (sub.kind.typeURL == resource.ExtensionConfigType || sub.kind.typeURL == LeaseType) && sub.stream.service.lease > 0
}

// claimLease takes the version that a data plane says it holds. One that is no lease
// may let everything through, so it is closed until the data plane is in sync.
func (sub *subscription) claimLease(it *item) {
	s := sub.stream.server
	if sub.kind.typeURL == LeaseType || it.acked == absent || it.acked == "" || s.isLease(it.acked) {
		it.lease.bound = true
		return
	}
	it.lease.bound = false
	sub.sendLease(it, s.closedLease())
}

func (sub *subscription) sendLease(it *item, l *lease) {
	e := l.entries[sub.kind.typeURL]
	if e == nil || it.entry == e {
		return
	}
	it.entry, it.want = e, e.version
	if it.acked == e.version {
		it.sent = e
	}
	sub.settle(it)
	sub.enqueue(it)
}

// bind makes leases of what a stream has under their name, or no leases any more.
func (st *stream) bind(leased bool) {
	for _, typeURL := range []string{resource.ExtensionConfigType, LeaseType} {
		sub := st.sub(typeURL)
		if sub == nil || sub.items[leaseName] == nil {
			continue
		}
		it := sub.items[leaseName]
		switch {
		case leased && it.lease == nil:
			sub.lease(it)
		case !leased && typeURL != LeaseType:
			it.lease, it.entry, it.want = nil, nil, absent
			sub.settle(it)
			sub.enqueue(it)
		}
		// What a Go data plane holds it needs until it has the ruleset without.
	}
}

func (sub *subscription) lease(it *item) {
	sentHere := sub.kind.typeURL != LeaseType && (it.flying != "" || it.sent != nil)
	it.lease, it.entry, it.want = &leaseItem{open: sentHere}, nil, absent
	if !sentHere {
		sub.claimLease(it)
	}
	sub.settle(it)
}

// took books what a data plane has confirmed.
func (li *leaseItem) took(version string) {
	if version == absent || strings.Contains(version, "-") {
		li.bound, li.open = true, false
	}
}

// offer gives a row a lease if it may have it: or if it needs none yet, since the
// leases of its service are just beginning.
func (svc *service) offer(r *row, l *lease, first bool) {
	if !svc.lacks(r, l) {
		return
	}
	s := svc.server
	if l == nil || !s.leases.authority() || !s.claims.lease(r.booked(), s.leases.floor.Load(), l.end, first || r.open()) {
		s.leases.withheld.Store(true)
		s.metrics.leases.WithLabelValues("withheld").Inc()
		return
	}
	s.metrics.leases.WithLabelValues("given").Inc()
	for _, st := range r.streams {
		for _, sub := range st.subs {
			if it := sub.items[leaseName]; it != nil && it.lease != nil {
				sub.sendLease(it, l)
				if svc.ready {
					sub.next()
				}
			}
		}
	}
}

// lacks says whether a row has asked for a lease and not been given this one.
func (svc *service) lacks(r *row, l *lease) bool {
	return r.hasLease(func(sub *subscription, it *item) bool { return l == nil || it.entry != l.entries[sub.kind.typeURL] })
}

func (r *row) open() bool {
	return r.hasLease(func(_ *subscription, it *item) bool { return it.lease.open })
}

func (r *row) hasLease(is func(*subscription, *item) bool) bool {
	for _, st := range r.streams {
		for _, sub := range st.subs {
			if it := sub.items[leaseName]; it != nil && it.lease != nil && is(sub, it) {
				return true
			}
		}
	}
	return false
}

// lease books a lease that is about to be given, if it may be; always if the row is not
// bound by one yet.
func (c *claims) lease(name ledger.Row, floor int64, end time.Time, unbound bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !unbound && !c.book.MayLease(name, floor) {
		return false
	}
	c.book.Lease(name, end)
	return true
}
