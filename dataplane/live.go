package dataplane

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/watchword-mesh/watchword/dataplane/ruleset"
)

// errEnded is why a stream ended that was let in.
var errEnded = errors.New("the token that opened this stream is not accepted any more")

// live are the streams that end with their tokens.
type live struct {
	mu  sync.Mutex
	all map[*liveStream]struct{}
}

// liveStream is one request that was let in, and how it is ended.
type liveStream struct {
	req ruleset.Request
	end context.CancelCauseFunc
}

// watch ends a context when the token does, if the policy says so, or when review
// says so. done must be called when the request is over; ended tells whether it was
// ended.
func (l *live) watch(ctx context.Context, req ruleset.Request, v *ruleset.Verdict, now time.Time) (_ context.Context, done func() (ended bool)) {
	at, ok := v.EndsWith()
	if !ok {
		return ctx, func() bool { return false }
	}
	ctx, cancel := context.WithCancelCause(ctx)
	req.Header = slices.Clone(req.Header) // its memory is used again
	s := &liveStream{req: req, end: cancel}
	l.mu.Lock()
	if l.all == nil {
		l.all = map[*liveStream]struct{}{}
	}
	l.all[s] = struct{}{}
	l.mu.Unlock()
	stop := func() bool { return true }
	if !at.IsZero() {
		stop = time.AfterFunc(at.Sub(now), func() { cancel(errEnded) }).Stop
	}
	return ctx, func() bool {
		stop()
		l.mu.Lock()
		delete(l.all, s)
		l.mu.Unlock()
		ended := errors.Is(context.Cause(ctx), errEnded)
		cancel(nil)
		return ended
	}
}

// review ends the streams that would not be let in now.
func (l *live) review(accepted func(ruleset.Request) bool) {
	l.mu.Lock()
	var all []*liveStream
	for s := range l.all {
		all = append(all, s)
	}
	l.mu.Unlock()
	for _, s := range all {
		if !accepted(s.req) {
			s.end(errEnded)
		}
	}
}
