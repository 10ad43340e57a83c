package audit

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// Window is how long like attempts are gathered after the first of them.
const Window = time.Minute

// Refusals gathers refused attempts: the first of its kind is handed on at once,
// those that are like it in one entry with a count when the window ends. However
// many strangers try however many things, it keeps and hands on a bounded number
// of entries, and they don't keep out those of actors that are known.
type Refusals struct {
	sink     func(Entry)
	mu       sync.Mutex
	known    lane
	stranger lane
	wake     chan struct{}
}

// NewRefusals hands at most perMinute entries a minute to sink, at least two; half
// of them are for strangers. Run calls sink, one entry at a time.
func NewRefusals(perMinute int, sink func(Entry)) *Refusals {
	half := max(perMinute/2, 1)
	return &Refusals{sink: sink, known: newLane(half), stranger: newLane(half), wake: make(chan struct{}, 1)}
}

// kind is what like attempts have in common.
type kind struct{ actor, source, method, reason string }

// lane is a share of what is kept and handed on.
type lane struct {
	// limit of kinds, and of entries in a window; left is how many it still has.
	limit, left int
	kinds       map[kind]*gathered
	// order in which the kinds came.
	order []kind
	// dropped counts attempts of kinds that there was no place for.
	dropped gathered
}

type gathered struct {
	first Entry
	// count of attempts that are not handed on yet.
	count  int64
	handed bool
}

func newLane(limit int) lane { return lane{limit: limit, left: limit, kinds: map[kind]*gathered{}} }

// Most bytes of what is kept of an attempt.
const mostBytes = 512

// Note keeps an attempt. It doesn't block.
func (r *Refusals) Note(e Entry) {
	for _, text := range []*string{&e.Actor, &e.Source, &e.Method, &e.Reason} {
		*text = clip(*text)
	}
	e.Outcome, e.Subjects = Refused, nil
	r.mu.Lock()
	l := &r.known
	if e.Actor == "" {
		l = &r.stranger
	}
	l.note(e)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// clip makes a copy, so that what is kept does not hold on to a request.
func clip(text string) string {
	if len(text) > mostBytes {
		text = text[:mostBytes]
	}
	return strings.Clone(strings.ToValidUTF8(text, ""))
}

func (l *lane) note(e Entry) {
	k := kind{e.Actor, e.Source, e.Method, e.Reason}
	g := l.kinds[k]
	switch {
	case g == nil && len(l.kinds) < l.limit:
		g = &gathered{}
		l.kinds[k], l.order = g, append(l.order, k)
	case g == nil:
		g = &l.dropped
		e = Entry{Time: e.Time, Outcome: Refused, Method: "(other)", Reason: "too many different attempts to tell apart"}
	}
	if g.count == 0 {
		g.first = e
	}
	g.count++
}

// Run hands entries on until ctx ends, and then what is left, within the bound.
func (r *Refusals) Run(ctx context.Context) {
	tick := time.NewTicker(Window)
	defer tick.Stop()
	for {
		select {
		case <-r.wake:
			r.hand(false)
		case <-tick.C:
			r.hand(true)
		case <-ctx.Done():
			r.hand(true)
			return
		}
	}
}

// hand calls sink without the lock: it may wait for a store.
func (r *Refusals) hand(ends bool) {
	r.mu.Lock()
	entries := append(r.known.due(ends), r.stranger.due(ends)...)
	r.mu.Unlock()
	slices.SortStableFunc(entries, func(a, b Entry) int { return cmp.Compare(a.Time.UnixNano(), b.Time.UnixNano()) })
	for _, e := range entries {
		r.sink(e)
	}
}

// due takes out what is to be handed on now: within a window the kinds that are
// new, at its end all.
func (l *lane) due(ends bool) []Entry {
	var out []Entry
	take := func(g *gathered) {
		if g.count == 0 || l.left == 0 || g.handed && !ends {
			return
		}
		if g.first.Count = 0; g.count > 1 {
			g.first.Count = g.count
		}
		out = append(out, g.first)
		g.count, g.handed, l.left = 0, true, l.left-1
	}
	if ends {
		l.left = l.limit
		take(&l.dropped)
	}
	for _, k := range l.order {
		take(l.kinds[k])
	}
	if ends {
		l.order = slices.DeleteFunc(l.order, func(k kind) bool {
			idle := l.kinds[k].count == 0
			if idle {
				delete(l.kinds, k)
			}
			return idle
		})
	}
	return out
}
