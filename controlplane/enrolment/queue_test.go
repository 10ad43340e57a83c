package enrolment

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Instances that enrol at once by one join token do so one after the other: what
// one has read, nobody writes before it does. Each reads the record once.
func TestOneTokenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 6
		w := newWorld(t)
		token := w.token("orders", n)
		var reads atomic.Int32
		w.between = func() {
			reads.Add(1)
			time.Sleep(time.Millisecond) // until all others wait
		}
		done := make(chan error, n)
		for range n {
			k := newKey(t)
			go func() {
				_, err := w.Server.Enrol(from("10.0.0.1"), byJoinToken("orders", k, token))
				done <- err
			}()
		}
		for range n {
			if err := <-done; err != nil {
				t.Errorf("Enrol: %v; want it to wait for its turn", err)
			}
		}
		if got := len(w.tokens[token.ID].Instances); got != n || reads.Load() != n {
			t.Errorf("%d instances have enrolled by %d reads of the join token; want %d and %d", got, reads.Load(), n, n)
		}
		if len(w.byToken.of) != 0 {
			t.Errorf("queues %v are left; want none", w.byToken.of)
		}
	})
}

// Who waits behind another goes when its call ends, and those by another join
// token don't wait at all.
func TestQueueIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q queues
		leave, err := q.enter(t.Context(), "A")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := q.enter(ctx, "A"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("entering behind another: %v; want to wait until the call ends", err)
		}
		other, err := q.enter(t.Context(), "B")
		if err != nil {
			t.Fatalf("entering another queue: %v", err)
		}
		other()
		leave()
		if len(q.of) != 0 {
			t.Errorf("queues %v are left; want none", q.of)
		}
	})
}
