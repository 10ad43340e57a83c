package bundle

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
)

// ErrConflict is what a Keeper returns when the record is no longer the one
// that the writer knew, or its Issuer is gone.
var ErrConflict = errors.New("the key set was changed by another")

// Keeper keeps the last good sets. What it holds comes back through SetSources.
type Keeper interface {
	// KeepBundle stores a set in place of the one at its Revision (0: none),
	// and returns the new revision, or ErrConflict.
	KeepBundle(ctx context.Context, s Set) (int64, error)
	// DropBundle removes the set of an Issuer if it is still at a revision.
	DropBundle(ctx context.Context, issuer string, revision int64) error
}

// Config is what a Manager needs.
type Config struct {
	Keeper Keeper
	// Logger; nil is silent.
	Logger hclog.Logger
	// Registerer of the metrics, or nil.
	Registerer prometheus.Registerer
}

// Manager fetches key sets in time. Its state follows SetSources; Run does the
// work.
type Manager struct {
	Config
	metrics *metrics
	fetch   func(context.Context, Source, string) (response, error)
	wake    chan struct{}

	mu      sync.Mutex
	entries map[string]*entry
	// stale are records that belong to no source, by Issuer.
	stale   map[string]int64
	running int
}

// entry is one source and what is known of it. It ends with the source: a
// changed source has a new one.
type entry struct {
	source Source
	// held is what the Keeper holds of this source, and so what is in force.
	held Set
	// revision is that of the Keeper's record, which may be of another source.
	revision int64
	// fetched and leftOut are newer than those of held, which is not written at
	// each fetch.
	fetched time.Time
	leftOut []string
	// etag belongs to held.
	etag     string
	maxAge   time.Duration
	failures int
	lastErr  string
	// attempted is when the last fetch began.
	attempted time.Time
	due       time.Time
	// cancel ends the fetch that runs; nil if none does.
	cancel context.CancelFunc
	// again asks for another fetch after the one that runs.
	again bool
}

// New returns a Manager without sources.
func New(c Config) *Manager {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	m := &Manager{Config: c, fetch: fetch, wake: make(chan struct{}, 1), entries: map[string]*entry{}, stale: map[string]int64{}}
	m.metrics = newMetrics(m, c.Registerer)
	return m
}

// SetSources says which sources there are, and which sets the Keeper holds, at
// a revision of the store. It does not wait for anything.
func (m *Manager) SetSources(revision int64, sources []Source, held map[string]Set) {
	m.mu.Lock()
	defer m.mu.Unlock()
	known := map[string]bool{}
	for _, s := range sources {
		known[s.Issuer] = true
		e := m.entries[s.Issuer]
		if e == nil || !e.source.equal(s) {
			e = m.replace(e, s)
		}
		e.adopt(revision, held[s.Issuer])
	}
	for name, e := range m.entries {
		if !known[name] {
			e.stop()
			delete(m.entries, name)
			m.metrics.forget(name)
		}
	}
	m.markStale(known, held)
	m.poke()
}

// markStale finds the records of Issuers that are no sources. What finish has
// marked and Run has not dropped yet stays, unless the record is that of the
// source now; a record that has changed since is not dropped, by its revision.
func (m *Manager) markStale(known map[string]bool, held map[string]Set) {
	maps.DeleteFunc(m.stale, func(name string, revision int64) bool {
		set := held[name]
		return !known[name] || set.Revision == revision && set.Source == m.entries[name].source.JWKSURI.GetUri()
	})
	for name, set := range held {
		if !known[name] {
			m.stale[name] = set.Revision
		}
	}
}

// replace gives a source an entry that is due now. The entity tag goes with
// the old one: what was left out then may be taken now.
func (m *Manager) replace(old *entry, s Source) *entry {
	e := &entry{source: s, due: time.Now()}
	if old != nil {
		old.stop()
		e.revision = old.revision
		if old.source.JWKSURI.GetUri() == s.JWKSURI.GetUri() {
			e.held, e.fetched = old.held, old.fetched
		}
	}
	m.entries[s.Issuer] = e
	return e
}

// adopt takes what the store holds, unless it is older than what this Manager
// has stored itself.
func (e *entry) adopt(revision int64, record Set) {
	if revision < e.revision || record.Revision == e.revision {
		return
	}
	e.revision = record.Revision
	held := record
	if held.Source != e.source.JWKSURI.GetUri() {
		held = Set{}
	}
	if held.JWKS != e.held.JWKS {
		e.etag, e.leftOut = "", held.LeftOut
	}
	if held.JWKS == "" {
		// It was taken away, such as with an Issuer that was made again.
		e.due, e.fetched = time.Now(), time.Time{}
	}
	if held.Fetched.After(e.fetched) {
		e.fetched = held.Fetched
	}
	e.held = held
}

func (e *entry) stop() {
	if e.cancel != nil {
		e.cancel()
	}
}

// Refetch asks for the set of an Issuer at once, since a token names a key that
// is not in it. Strangers can cause that at will, so no fetch begins less than
// MinInterval after the one before. Unknown names are ignored.
func (m *Manager) Refetch(issuer string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[issuer]
	switch {
	case e == nil:
		return
	case e.cancel != nil:
		// It may have been answered before the key was there.
		e.again = true
		return
	}
	if e.sooner(e.attempted.Add(MinInterval)) {
		m.poke()
	}
}

func (e *entry) sooner(t time.Time) bool {
	if !t.Before(e.due) {
		return false
	}
	e.due = t
	return true
}

// poke tells Run that something has changed.
func (m *Manager) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// Status is what can be said of a source.
type Status struct {
	Source Source
	// Set is in force; its JWKS is empty if there is none yet. Fetched and
	// LeftOut are those of the last good fetch.
	Set Set
	// Attempted is when the last fetch began, Next when the next one is due.
	Attempted, Next time.Time
	// Error says why the last fetch failed; empty if it did not.
	Error string
}

// Status returns that of an Issuer; false if its keys are not fetched.
func (m *Manager) Status(issuer string) (Status, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.entries[issuer]
	if e == nil {
		return Status{}, false
	}
	s := Status{Source: e.source, Set: e.held, Attempted: e.attempted, Next: e.due, Error: e.lastErr}
	s.Set.Fetched, s.Set.LeftOut = e.fetched, e.leftOut
	return s, true
}
