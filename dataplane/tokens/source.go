package tokens

import (
	"context"
	"fmt"
	"io"
	"maps"
	"sync"
	"sync/atomic"
	"time"
)

// Source gets tokens from an STS. It is safe for concurrent use.
//
// While the STS can't be asked, each token is given out until shortly before its
// end. So it is if the STS refuses to renew it: what the token allows, it has
// allowed until then, and a mistake can be undone without an outage. Who learns of
// a revocation drops tokens by [Source.Keep] or [Source.DropAll].
type Source struct {
	config  Config
	sts     *endpoint
	metrics *metrics
	// ctx ends with Close, which waits for what runs.
	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	wake    chan struct{}
	// audiences is replaced whole, under mu, so that a call takes no lock.
	audiences atomic.Pointer[map[string]*audience]

	mu     sync.Mutex
	closed bool
	drops  drops
}

// audience is what there is for one.
type audience struct {
	name string
	// held is the token that is given out; written under Source.mu.
	held atomic.Pointer[held]
	// used is when it was asked for last, in ns since 1970, to about a second.
	used atomic.Int64

	// The rest belongs to Source.mu.
	flight *flight // the request that is under way
	// err is given to all who ask before retry, so that they don't ask the STS.
	err      *Error
	retry    time.Time
	failures int
	// next is when to renew; zero: when somebody asks.
	next time.Time
	// refused is when a callee refused a token last.
	refused time.Time
}

// held is a token with what is known of it.
type held struct {
	token Token
	kid   string
	life  time.Duration
	// until is when it is given out last, in ns since 1970: by the wall clock, which
	// goes on while a machine sleeps.
	until int64
}

// flight is one request that many wait for.
type flight struct {
	done chan struct{}
	err  *Error // set before done is closed; nil: look at held
}

// New makes a Source, which asks nobody until somebody asks it. It must be closed.
func New(c Config) (*Source, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	c = c.withDefaults()
	published, err := newMetrics(c.Registerer)
	if err != nil {
		return nil, err
	}
	s := &Source{config: c, sts: newEndpoint(c), metrics: published, wake: make(chan struct{}, 1)}
	s.audiences.Store(&map[string]*audience{})
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.running.Go(s.renewals)
	return s, nil
}

// Close ends all requests and waits for them. After it there are no tokens.
func (s *Source) Close() {
	s.mu.Lock()
	s.closed = true
	for _, a := range *s.audiences.Load() {
		a.held.Store(nil)
	}
	s.mu.Unlock()
	s.cancel()
	s.running.Wait()
	s.sts.close()
	s.metrics.unregister()
}

// String names it, without what it holds.
func (s *Source) String() string {
	return fmt.Sprintf("tokens.Source(%s%s)", s.config.TokenURL, s.config.Issuer)
}

// Format prints String for every verb: others would follow pointers to what changes.
func (s *Source) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, s.String()) }

// Token gives a token for an audience: from memory, or it waits for the STS until
// ctx ends. The error is an *Error, of ErrClosed after Close, or has the cause of ctx.
func (s *Source) Token(ctx context.Context, audience string) (Token, error) {
	for {
		if t, ok := s.cached(audience); ok {
			return t, nil
		}
		f, err := s.join(audience)
		if err != nil {
			return Token{}, err
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return Token{}, fmt.Errorf("token for %q: waiting for the STS: %w", audience, context.Cause(ctx))
		}
		if f.err != nil {
			return Token{}, f.err
		}
		// The token is taken from where drops remove it, and not from the flight.
	}
}

// cached is the way of almost all calls.
func (s *Source) cached(name string) (Token, bool) {
	a := (*s.audiences.Load())[name]
	if a == nil {
		return Token{}, false
	}
	now := s.config.Now().UnixNano()
	h := a.held.Load()
	if h == nil || now >= h.until {
		return Token{}, false
	}
	a.touch(now)
	return h.token, true
}

// touch writes seldom: the line is shared by all processors.
func (a *audience) touch(now int64) {
	if now-a.used.Load() > int64(time.Second) {
		a.used.Store(now)
	}
}

// usable tells whether there is a token to give out.
func (a *audience) usable(now time.Time) bool {
	h := a.held.Load()
	return h != nil && now.UnixNano() < h.until
}

// join gives the flight to wait for, or why there is none.
func (s *Source) join(name string) (*flight, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, &Error{Audience: name, Err: ErrClosed}
	}
	now := s.config.Now()
	a, err := s.audience(name, now)
	if err != nil {
		return nil, err
	}
	a.touch(now.UnixNano())
	switch {
	case a.usable(now): // it came meanwhile
		return landed, nil
	case a.flight != nil:
		return a.flight, nil
	case a.err != nil && now.Before(a.retry):
		return nil, a.err
	}
	return s.start(a), nil
}

// landed is a flight that is over.
var landed = func() *flight {
	f := &flight{done: make(chan struct{})}
	close(f.done)
	return f
}()

// audience finds or adds one. If there is no place, one without a token goes.
func (s *Source) audience(name string, now time.Time) (*audience, error) {
	all := *s.audiences.Load()
	if a := all[name]; a != nil {
		return a, nil
	}
	next := maps.Clone(all)
	if len(next) >= s.config.MaxAudiences && !evict(next, now) {
		return nil, &Error{Audience: name, Err: fmt.Errorf("there are %d audiences with a token already; raise MaxAudiences if they are all meant", len(next))}
	}
	a := &audience{name: name}
	next[name] = a
	s.audiences.Store(&next)
	return a, nil
}

// evict takes out the one whose token nobody can miss: it has none, and was asked
// for longest ago.
func evict(all map[string]*audience, now time.Time) bool {
	var oldest *audience
	for _, a := range all {
		if a.flight == nil && !a.usable(now) && (oldest == nil || a.used.Load() < oldest.used.Load()) {
			oldest = a
		}
	}
	if oldest == nil {
		return false
	}
	delete(all, oldest.name)
	return true
}

// forget takes out one that nobody asks for.
func (s *Source) forget(a *audience) {
	next := maps.Clone(*s.audiences.Load())
	delete(next, a.name)
	s.audiences.Store(&next)
	a.held.Store(nil)
}
