package audit

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// sunk gathers what is handed on, as text.
type sunk struct {
	mu      sync.Mutex
	entries []string
}

func (s *sunk) take(e Entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = append(s.entries, fmt.Sprintf("%s %q %q %s x%d at %s", e.Outcome, e.Actor, e.Method, e.Reason, e.Count, e.Time.Sub(began)))
}

// next returns what was handed on since the last time.
func (s *sunk) next() []string {
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.entries
	s.entries = nil
	return out
}

var began time.Time

// run starts a recorder of at most perMinute entries.
func run(t *testing.T, perMinute int) (*Refusals, *sunk, func()) {
	t.Helper()
	began = time.Now()
	out := &sunk{}
	r := NewRefusals(perMinute, out.take)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	return r, out, func() { cancel(); <-done }
}

func attempt(actor, method, reason string) Entry {
	return Entry{Time: time.Now(), Actor: actor, Source: "10.0.0.1", Method: method, Reason: reason, Subjects: []string{"x"}}
}

func wantEntries(t *testing.T, when string, got []string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: handed on -want +got:\n%s", when, diff)
	}
}

// The first attempt of a kind is handed on at once; those like it in one entry
// with their number at the end of the window; and then the kind is new again.
func TestRefusalsGather(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, out, stop := run(t, 10)
		r.Note(attempt("a", "Apply", "needs"))
		wantEntries(t, "the first", out.next(), `refused "a" "Apply" needs x0 at 0s`)
		time.Sleep(time.Second)
		for range 3 {
			r.Note(attempt("a", "Apply", "needs"))
		}
		r.Note(attempt("b", "Apply", "needs"))
		wantEntries(t, "like ones, and another", out.next(), `refused "b" "Apply" needs x0 at 1s`)
		time.Sleep(Window)
		wantEntries(t, "the end of the window", out.next(), `refused "a" "Apply" needs x3 at 1s`)
		time.Sleep(Window)
		wantEntries(t, "a quiet window", out.next())
		r.Note(attempt("a", "Apply", "needs"))
		wantEntries(t, "later", out.next(), `refused "a" "Apply" needs x0 at 2m1s`)
		r.Note(attempt("a", "Apply", "needs"))
		r.Note(attempt("a", "Apply", "needs"))
		synctest.Wait()
		stop()
		wantEntries(t, "the end", out.next(), `refused "a" "Apply" needs x2 at 2m1s`)
	})
}

// Strangers who try many things are counted and not told apart beyond a bound, in
// memory too; an actor that is known is told of all the same.
func TestRefusalsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, out, stop := run(t, 8)
		defer stop()
		for i := range 10_000 {
			r.Note(attempt("", fmt.Sprint("m", i), strings.Repeat("x", 10_000)))
		}
		if got := out.next(); len(got) != 4 {
			t.Errorf("10,000 kinds of strangers: %d entries in the first window, want half of 8", len(got))
		}
		if len(r.stranger.kinds) != 4 || len(r.stranger.order) != 4 {
			t.Errorf("%d kinds are kept, %d in order; want 4", len(r.stranger.kinds), len(r.stranger.order))
		}
		for k := range r.stranger.kinds {
			if len(k.reason) != mostBytes {
				t.Errorf("%d bytes of a reason are kept, want %d", len(k.reason), mostBytes)
			}
		}
		r.Note(attempt("a", "Apply", "needs"))
		wantEntries(t, "an actor among strangers", out.next(), `refused "a" "Apply" needs x0 at 0s`)
		time.Sleep(Window)
		wantEntries(t, "the rest", out.next(), `refused "" "(other)" too many different attempts to tell apart x9996 at 0s`)
		total := 0
		for i := range 10 { // windows of a flood
			for j := range 1000 {
				r.Note(attempt("", fmt.Sprint("m", i, j), "x"))
			}
			time.Sleep(Window)
			total += len(out.next())
		}
		if total > 11*4 { // the last tick begins the eleventh
			t.Errorf("%d entries in ten windows of a flood of strangers, want at most 4 in each that has begun", total)
		}
	})
}

// Noting does not wait for a sink that stands still.
func TestNoteDoesNotBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		r := NewRefusals(10, func(Entry) { <-release })
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.Run(ctx) }()
		r.Note(attempt("a", "Apply", "needs"))
		synctest.Wait() // the sink stands
		for range 1000 {
			r.Note(attempt("a", "Apply", "needs"))
		}
		cancel()
		close(release)
		<-done
	})
}
