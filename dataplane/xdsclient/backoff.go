package xdsclient

import (
	"context"
	"math/rand/v2"
	"time"
)

// The longest waits after the first failure, and after many.
const (
	firstWait   = 200 * time.Millisecond
	longestWait = 15 * time.Second
)

// backoff is how long to wait after so many failures, counted from 0: anything up to
// a bound that doubles each time. Chance alone spreads the data planes that a
// replica's end has set free at one moment.
func backoff(failures int) time.Duration {
	bound := longestWait
	if failures < 10 {
		bound = min(firstWait<<failures, longestWait)
	}
	return rand.N(bound)
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
