package tokens

import (
	"errors"
	"math/rand/v2"
	"time"
)

const (
	// A token is given out until this long before its end, or a tenth of its life
	// if that is less: it has a way to go, and clocks differ.
	margin = 5 * time.Second
	// A token that nobody has asked for during so many lives is not renewed.
	idleLives = 2
	// The first and the longest wait after a failure, and the longest if there is no
	// token meanwhile.
	firstPause, longestPause, missingPause = 500 * time.Millisecond, 30 * time.Second, 4 * time.Second
	// How long a refusal is remembered.
	refusalPause = 3 * time.Second
	// lookAgain is how long nobody looks at the clock at most: it may be set, or the
	// machine have slept.
	lookAgain = time.Minute
)

// usableUntil is when a token is given out last.
func usableUntil(expires time.Time, life time.Duration) time.Time {
	return expires.Add(-min(margin, life/10))
}

// renewal is how long after its start a token is renewed: at half of its life, and
// up to a tenth of it earlier by chance, since instances that were started together
// shall not ask together for ever.
func renewal(life time.Duration) time.Duration { return life/2 - chance(life/10) }

// chance is a random duration below d.
func chance(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return rand.N(d)
}

// pause is how long to wait after so many failures: twice as long each time, of
// which the half is chance.
func pause(failures int, longest time.Duration) time.Duration {
	d := longest
	if failures < 10 {
		d = min(firstPause<<failures, longest)
	}
	return d/2 + chance(d/2)
}

// renewals runs until Close.
func (s *Source) renewals() {
	timer := time.NewTimer(lookAgain)
	defer timer.Stop()
	for {
		timer.Reset(s.renewDue())
		select {
		case <-timer.C:
		case <-s.wake:
		case <-s.ctx.Done():
			return
		}
	}
}

// renewDue starts what is due, and gives the time to the next.
func (s *Source) renewDue() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wait := s.config.Now(), lookAgain
	for _, a := range *s.audiences.Load() {
		switch {
		case a.next.IsZero() || a.flight != nil:
		case a.next.After(now):
			wait = min(wait, a.next.Sub(now))
		case !a.usable(now):
			a.next = time.Time{} // who asks next waits for it
		case now.UnixNano()-a.used.Load() > idleLives*int64(a.held.Load().life):
			s.forget(a)
		default:
			s.start(a)
		}
	}
	return wait
}

// start asks the STS. The caller has the lock, and nothing is closed.
func (s *Source) start(a *audience) *flight {
	if s.closed {
		return landed
	}
	f := &flight{done: make(chan struct{})}
	a.flight, a.next = f, time.Time{}
	s.running.Go(func() {
		for again := true; again; {
			mark := s.mark()
			began := time.Now()
			got, err := s.sts.ask(s.ctx, a.name)
			s.metrics.seconds.Observe(time.Since(began).Seconds())
			s.metrics.asked(err)
			again = s.land(a, mark, got, err)
		}
	})
	return f
}

var errWithdrawn = errors.New("the STS has signed it with a key that was withdrawn; it will be asked again")

// land takes what the STS has answered. It returns true if the STS must be asked
// once more, as what it has answered was dropped on the way.
func (s *Source) land(a *audience, mark mark, got *held, err *Error) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && !s.closed {
		switch s.drops.judge(mark, got.kid) {
		case droppedOnTheWay:
			s.metrics.dropped.Inc()
			return true
		case withdrawn:
			err = &Error{Audience: a.name, Err: errWithdrawn}
		}
	}
	if s.closed {
		err = &Error{Audience: a.name, Err: ErrClosed}
	}
	now := s.config.Now()
	if err == nil && now.UnixNano() >= got.until {
		err = &Error{Audience: a.name, Err: errors.New("the STS took longer to answer than the token is valid")}
	}
	if err == nil {
		s.take(a, got, now)
	} else {
		s.failed(a, err, now)
	}
	a.flight.err = err
	close(a.flight.done)
	a.flight = nil
	select {
	case s.wake <- struct{}{}:
	default: // it will look anyway
	}
	return false
}

func (s *Source) take(a *audience, got *held, now time.Time) {
	a.err, a.failures = nil, 0
	a.held.Store(got)
	a.next = got.token.Expires.Add(renewal(got.life) - got.life)
	s.config.Logger.Debug("got a token", "audience", a.name, "kid", got.kid, "expires", got.token.Expires)
}

// failed remembers a failure, and when to ask again.
func (s *Source) failed(a *audience, err *Error, now time.Time) {
	a.err = err
	if a.usable(now) {
		left := time.Duration(a.held.Load().until - now.UnixNano())
		wait := max(pause(a.failures, longestPause), min(err.after, longestPause))
		// The last quarter of what is left is worth a try, too.
		wait = max(min(wait, left/4), firstPause)
		a.retry, a.next = now.Add(wait), now.Add(wait)
	} else {
		wait := max(pause(a.failures, missingPause), min(err.after, missingPause))
		if err.final() {
			wait = refusalPause
		}
		a.retry = now.Add(wait)
	}
	a.failures++
	if s.closed {
		return
	}
	s.config.Logger.Warn("no token", "audience", a.name, "usable", a.usable(now), "failures", a.failures, "retry", a.retry, "error", err)
}
