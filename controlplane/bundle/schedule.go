package bundle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

const (
	// maxRunning bounds the fetches at once. It is more than what is needed, so that
	// some servers that let us wait do not hold up the others.
	maxRunning = 32
	// firstRetry is the pause after a failure; each further one doubles it, up
	// to the interval.
	firstRetry = 2 * time.Second
	// ageEvery is how old the time of a stored set may get. It is what an
	// operator sees after a restart, so it need not be exact, and etcd is not
	// written at each fetch.
	ageEvery = 10 * time.Minute
	// keepTimeout bounds storing a set.
	keepTimeout = 10 * time.Second
	// idle is how long Run sleeps when nothing is due.
	idle = time.Hour
)

// Run fetches until ctx ends, and waits for what it has begun.
func (m *Manager) Run(ctx context.Context) error {
	var begun sync.WaitGroup
	defer begun.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.wake:
		case <-timer.C:
		}
		timer.Reset(m.dispatch(ctx, &begun))
	}
}

// dispatch begins what is due, as far as there is room, and returns the time
// until more is.
func (m *Manager) dispatch(ctx context.Context, begun *sync.WaitGroup) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(ctx, begun)
	var waiting []*entry
	for _, e := range m.entries {
		if e.cancel == nil {
			waiting = append(waiting, e)
		}
	}
	slices.SortFunc(waiting, func(a, b *entry) int {
		return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.source.Issuer, b.source.Issuer))
	})
	now := time.Now()
	for _, e := range waiting {
		if wait := e.due.Sub(now); wait > 0 {
			return min(wait, idle)
		}
		if m.running == maxRunning {
			return idle // the end of each fetch wakes
		}
		m.begin(ctx, e, begun)
	}
	return idle
}

// drop removes the records that belong to no source. One that can't be removed
// is harmless, and tried again when the sources change.
func (m *Manager) drop(ctx context.Context, begun *sync.WaitGroup) {
	for name, revision := range m.stale {
		begun.Go(func() {
			dropping, cancel := context.WithTimeout(ctx, keepTimeout)
			defer cancel()
			// Silent only at the end of Run, not when keepTimeout ran out.
			if err := m.Keeper.DropBundle(dropping, name, revision); err != nil && !errors.Is(err, ErrConflict) && ctx.Err() == nil {
				m.Logger.Warn("the key set of a source that is gone can't be removed", "issuer", name, "error", err)
			}
		})
	}
	clear(m.stale)
}

// begin starts the fetch of one source.
func (m *Manager) begin(ctx context.Context, e *entry, begun *sync.WaitGroup) {
	ctx, e.cancel = context.WithCancel(ctx)
	e.attempted, e.again = time.Now(), false
	m.running++
	held, etag := e.held, e.etag
	held.Revision, held.Fetched, held.LeftOut = e.revision, e.fetched, e.leftOut
	stored := e.held.Fetched
	begun.Go(func() {
		r := m.attempt(ctx, e.source, held, stored, etag)
		m.finish(ctx, e, r)
	})
}

// The outcomes of a fetch, as the metric names them.
const (
	outcomeChanged     = "changed"
	outcomeUnchanged   = "unchanged"
	outcomeNotModified = "not_modified"
	outcomeFailed      = "failed"
)

// result is what came of one fetch.
type result struct {
	outcome string
	set     Set
	// stored: set was given to the Keeper.
	stored bool
	etag   string
	maxAge time.Duration
	err    error
}

// attempt fetches once, and stores what differs. The last set was stored with
// the time stored.
func (m *Manager) attempt(ctx context.Context, s Source, last Set, stored time.Time, etag string) result {
	fetching, cancel := context.WithTimeout(ctx, s.timeout())
	resp, err := m.fetch(fetching, s, etag)
	cancel()
	if err != nil {
		return result{outcome: outcomeFailed, err: err}
	}
	r := result{outcome: outcomeNotModified, set: last, etag: resp.etag, maxAge: resp.maxAge}
	now := time.Now().UTC()
	if !resp.notModified {
		jwks, leftOut, err := read(resp.body, s.Options)
		if err != nil {
			return result{outcome: outcomeFailed, err: err}
		}
		r.outcome, r.set.LeftOut = outcomeUnchanged, leftOut
		if jwks != last.JWKS {
			r.outcome, r.set.JWKS, r.set.Changed = outcomeChanged, jwks, now
		}
	}
	r.set.Issuer, r.set.Source, r.set.Fetched = s.Issuer, s.JWKSURI.GetUri(), now
	if r.outcome != outcomeChanged && now.Sub(stored) < ageEvery {
		return r
	}
	keeping, cancel := context.WithTimeout(ctx, keepTimeout)
	defer cancel()
	revision, err := m.Keeper.KeepBundle(keeping, r.set)
	switch {
	case err == nil:
		r.set.Revision, r.stored = revision, true
	case r.outcome == outcomeChanged:
		return result{outcome: outcomeFailed, err: fmt.Errorf("the key set was fetched, but can't be stored, and so is not in force: %w", err)}
	default:
		m.Logger.Warn("the age of a key set can't be stored", "issuer", s.Issuer, "error", err)
	}
	return r
}

// finish takes over what came of a fetch, unless its source is gone.
func (m *Manager) finish(ctx context.Context, e *entry, r result) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.poke()
	m.running--
	canceled := ctx.Err() != nil
	e.cancel()
	e.cancel = nil
	if m.entries[e.source.Issuer] != e || canceled && r.err != nil {
		return // changed, removed, or the end of Run: no fault of the source
	}
	m.metrics.fetched(e.source.Issuer, r.outcome)
	if r.err != nil {
		if e.revision > 0 && e.held.Revision == 0 {
			// The last set is of another source, and this one will not replace
			// it soon: it must not come to life again.
			m.stale[e.source.Issuer] = e.revision
		}
		e.fail(r.err, m.Logger.With("issuer", e.source.Issuer))
		return
	}
	if e.lastErr != "" {
		m.Logger.Info("a key set can be fetched again", "issuer", e.source.Issuer)
	}
	if r.outcome == outcomeChanged {
		m.Logger.Info("a key set has changed", "issuer", e.source.Issuer, "left_out", len(r.set.LeftOut))
	}
	e.succeed(r)
}

func (e *entry) succeed(r result) {
	e.failures, e.lastErr = 0, ""
	e.fetched, e.leftOut = r.set.Fetched, r.set.LeftOut
	if r.stored && r.set.Revision > e.revision {
		e.held, e.revision = r.set, r.set.Revision
	}
	e.etag = r.etag
	if r.outcome != outcomeNotModified || r.maxAge > 0 {
		e.maxAge = r.maxAge
	}
	pause := e.source.interval()
	if e.maxAge > 0 {
		pause = min(pause, e.maxAge)
	}
	e.next(pause, MinInterval)
	if e.held.JWKS != r.set.JWKS {
		// What is stored was changed or taken away meanwhile.
		e.etag = ""
		e.sooner(e.attempted.Add(firstRetry))
	}
}

func (e *entry) fail(err error, log interface{ Warn(string, ...any) }) {
	pause := min(firstRetry<<min(e.failures, 20), e.source.interval())
	e.failures++
	if text := err.Error(); text != e.lastErr {
		e.lastErr = text
		if e.held.JWKS == "" {
			log.Warn("a key set can't be fetched, and there is none yet", "error", text)
		} else {
			log.Warn("a key set can't be fetched; the last good one stays in force", "fetched", e.fetched, "error", text)
		}
	}
	e.next(pause, 0)
}

// next sets the time of the next fetch after a pause, give or take a tenth, so
// that what began together does not go on together.
func (e *entry) next(pause, least time.Duration) {
	pause += time.Duration((rand.Float64()*2 - 1) * float64(pause) / 10)
	e.due = time.Now().Add(max(pause, least))
	if e.again {
		e.again = false
		e.sooner(e.attempted.Add(MinInterval))
	}
}
