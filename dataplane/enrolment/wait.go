package enrolment

import (
	"context"
	"math/rand/v2"
	"time"
)

// The first and the longest wait after a failure.
const (
	firstWait   = 500 * time.Millisecond
	longestWait = 30 * time.Second
)

// backoff is how long to wait after so many failures, counted from 0: twice as
// long each time, of which the half is chance, so that instances that failed at
// one moment don't come back at one.
func backoff(failures int) time.Duration {
	d := longestWait
	if failures < 10 {
		d = min(firstWait<<failures, longestWait)
	}
	return d/2 + rand.N(d/2)
}

// wait waits, or says why not.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
