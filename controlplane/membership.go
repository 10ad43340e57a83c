package controlplane

import (
	"cmp"
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/controlplane/store"
)

// membership is this replica's place among all, and what it may do by it.
type membership struct {
	store  *store.Store
	bounds ledger.Bounds
	log    hclog.Logger
	now    func() time.Time
	// self is without an ID: each place has another.
	self ledger.Member
	// applied is the revision that the replica works by.
	applied func() int64

	mu        sync.Mutex
	authority *authority
	place     *store.Place
	moved     chan struct{} // closed when another place was taken
	told      bool          // that there is authority
}

func newMembership(s *store.Store, c Config, address string) *membership {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return &membership{
		store: s, bounds: c.Bounds, log: c.Logger.Named("replica"), now: time.Now,
		self:      ledger.Member{Host: host, PID: os.Getpid(), Started: time.Now().UTC(), Version: c.Version, Address: address},
		applied:   func() int64 { return 0 },
		authority: newAuthority(c.Bounds),
		moved:     make(chan struct{}),
	}
}

// olderFor is how long one of a version that knows of no others is waited for, in case
// that it has died without a word.
const olderFor = 12 * time.Second

// join takes the first place. It comes before anything is read that is served.
func (m *membership) join(ctx context.Context) error {
	deadline := m.now().Add(olderFor)
	id := uuid.NewString()
	for told := false; ; told = true {
		err := m.take(ctx, id)
		if !errors.Is(err, store.ErrOlder) || m.now().After(deadline) {
			return err
		}
		if !told {
			m.log.Info("waiting for the lease of a replica of an older version, which may have died", "at_most", olderFor)
		}
		if sleep(ctx, time.Second); ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// take asks once for a place under an ID.
func (m *membership) take(ctx context.Context, id string) error {
	self, sent, previous := m.self, m.now(), ""
	self.ID = id
	if last := m.current(); last != nil {
		previous = last.ID
	}
	p, err := m.store.Join(ctx, self, m.bounds.Authority, previous)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.authority.joined(sent, p.Revision)
	m.place = p
	close(m.moved)
	m.moved = make(chan struct{})
	return nil
}

// current is the place; nil before there was one.
func (m *membership) current() *store.Place {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.place
}

// change is closed when another place is taken.
func (m *membership) change() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.moved
}

// holds says whether this replica may promise things now, and until when if nothing
// goes on.
func (m *membership) holds() (until time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.authority.applied(m.applied())
	return m.authority.until, m.authority.holds(m.now())
}

// setSigning changes how long tokens are signed after the authority has ended.
func (m *membership) setSigning(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.authority.bounds.Signing = d
}

func (m *membership) signing() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.authority.bounds.Signing
}

// mayPromise is holds, for who does not ask until when.
func (m *membership) mayPromise() bool {
	_, ok := m.holds()
	return ok
}

// maySign says whether the token service may sign now.
func (m *membership) maySign() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.authority.applied(m.applied())
	return m.authority.maySign(m.now())
}

// keep renews the place until ctx ends, and takes another when it is lost. Data planes
// are served all the while from what is in memory.
func (m *membership) keep(ctx context.Context) error {
	every := m.bounds.Authority / 3
	for next := m.now().Add(every); ; {
		m.tell()
		if sleep(ctx, time.Until(next)); ctx.Err() != nil {
			return nil
		}
		next = m.now().Add(every)
		err := m.renew(ctx, every)
		if errors.Is(err, store.ErrLost) {
			m.comeBack(ctx)
		} else if err != nil && ctx.Err() == nil {
			m.log.Debug("the lease in etcd could not be renewed", "error", err)
			next = m.now().Add(every / 10)
		}
	}
}

func (m *membership) renew(ctx context.Context, within time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	sent := m.now()
	err := m.current().Renew(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case err == nil:
		m.authority.renewed(sent)
	case errors.Is(err, store.ErrLost):
		m.authority.lost(m.now())
	}
	return err
}

// comeBack takes a place until it has one. It has the same ID each time: nobody knows
// whether one that got no answer was taken.
func (m *membership) comeBack(ctx context.Context) {
	m.tell()
	id := uuid.NewString()
	for ctx.Err() == nil {
		err := m.take(ctx, id)
		if err == nil {
			m.log.Info("joined the replicas again", "member", id)
			return
		}
		m.log.Warn("no place among the replicas can be taken yet", "error", err)
		sleep(ctx, min(time.Second, m.bounds.Authority/3))
	}
}

// tell logs once when the authority has ended, and once when it is back.
func (m *membership) tell() {
	until, holds := m.holds()
	if holds == m.told {
		return
	}
	m.told = holds
	if holds {
		m.log.Info("has its place among the replicas", "member", m.current().ID)
		return
	}
	m.log.Warn("cut off from etcd, or this process stood still: not ready until it has its place again; data planes are served what is known here, and tokens signed for a while",
		"since", until.Format(time.RFC3339), "signs_until", until.Add(m.signing()).Format(time.RFC3339))
}

// leaveWithin bounds the last word of a replica that stops.
const leaveWithin = 3 * time.Second

// leave gives the place back, and says that nothing is signed any more.
func (m *membership) leave(last ledger.Record) {
	p := m.current()
	if p == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaveWithin)
	defer cancel()
	if err := p.Leave(ctx, last); err != nil {
		m.log.Warn("the other replicas could not be told of the stop; they will wait for what this one might still do", "error", err)
	}
}

// register publishes whether the replica has authority.
func (m *membership) register(r prometheus.Registerer) {
	r.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "watchword_replica_authority", Help: "1 while this replica has its place among all in etcd, 0 when it is cut off.",
	}, func() float64 {
		if _, ok := m.holds(); ok {
			return 1
		}
		return 0
	}))
}

// defaultBounds are those of ledger.Bounds that are not given.
func defaultBounds(b ledger.Bounds) ledger.Bounds {
	return ledger.Bounds{
		Authority:  cmp.Or(b.Authority, 10*time.Second),
		ClockError: cmp.Or(b.ClockError, time.Second),
		Signing:    cmp.Or(b.Signing, 12*time.Hour),
		Grace:      cmp.Or(b.Grace, 30*time.Second),
		Stragglers: cmp.Or(b.Stragglers, ledger.Hold),
	}
}
