package tokens

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A key that is no longer in the list: its tokens are given to nobody, and the next
// caller waits for a new one. Those of the other keys stay.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		s := sts.source(t)
		defer s.Close()
		bad, good := sts.key, newKey(t)
		mustToken(t, s, "orders")
		sts.set(func(f *fakeSTS) { f.key = good })
		stock := mustToken(t, s, "stock")
		s.Keep([]string{bad.ID(), good.ID()})
		if n := sts.count(); n != 2 || kidOf(t, mustToken(t, s, "orders")) != bad.ID() {
			t.Errorf("%d requests, want 2: a list with all keys changes nothing", n)
		}
		s.Keep([]string{good.ID()})
		if got := kidOf(t, mustToken(t, s, "orders")); got != good.ID() {
			t.Errorf("kid %s, want %s", got, good.ID())
		}
		if !mustToken(t, s, "stock").same(stock) {
			t.Error("a token of a key that is in the list was dropped")
		}
		// An STS that is behind signs with the old key: nobody would accept it.
		sts.set(func(f *fakeSTS) { f.key = bad })
		if got, err := s.Token(t.Context(), "third"); err == nil {
			t.Errorf("a token of the key %s that was withdrawn: %v", bad.ID(), got)
		}
		// It is in the list again.
		s.Keep([]string{good.ID(), bad.ID()})
		time.Sleep(missingPause)
		mustToken(t, s, "third")
		// A key that is newer than the list.
		sts.set(func(f *fakeSTS) { f.key = newKey(t) })
		mustToken(t, s, "fourth")
	})
}

// What was on its way when all was dropped, or its key, reaches nobody: who waits
// gets a token that was asked for afterwards.
func TestDropDuringARequest(t *testing.T) {
	for name, drop := range map[string]func(s *Source, good string){
		"DropAll": func(s *Source, _ string) { s.DropAll() },
		"Keep":    func(s *Source, good string) { s.Keep([]string{good}) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				sts := newSTS(t)
				sts.delay = 2 * time.Second
				s := sts.source(t)
				defer s.Close()
				bad, good := sts.key.ID(), newKey(t)
				var wg sync.WaitGroup
				for range 100 {
					wg.Go(func() {
						if got := kidOf(t, mustToken(t, s, "orders")); got == bad {
							t.Error("a caller got the token that was on its way")
						}
					})
				}
				time.Sleep(time.Second) // it is signed, and on its way
				drop(s, good.ID())
				sts.set(func(f *fakeSTS) { f.key = good })
				wg.Wait()
				if n := sts.count(); n != 2 {
					t.Errorf("%d requests, want 2", n)
				}
			})
		})
	}
}

// Keys go in and out of use while many call: whoever asks after Keep has returned
// never gets a token of a key that is not in its list.
func TestKeepUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		sts.life, sts.delay = 10*time.Second, 3*time.Millisecond
		s := sts.source(t)
		defer s.Close()
		// The keys that may be given out; what was asked for before a change may be of
		// the one before it.
		var allowed atomic.Pointer[[]string]
		allowed.Store(&[]string{sts.key.ID()})
		s.Keep(*allowed.Load())
		var done atomic.Bool
		var calls atomic.Int64
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for !done.Load() {
					may := *allowed.Load()
					token, err := s.Token(t.Context(), []string{"a", "b"}[i%2])
					now := *allowed.Load()
					if err == nil && !slices.Contains(may, kidOf(t, token)) && !slices.Contains(now, kidOf(t, token)) {
						t.Errorf("a token of key %s; the list was %v and is %v", kidOf(t, token), may, now)
					}
					calls.Add(1)
					time.Sleep(time.Duration(i+1) * 100 * time.Microsecond)
				}
			})
		}
		for range 50 {
			time.Sleep(7 * time.Millisecond)
			next := newKey(t)
			sts.set(func(f *fakeSTS) { f.key = next })
			s.Keep([]string{next.ID()})
			allowed.Store(&[]string{next.ID()})
		}
		done.Store(true)
		wg.Wait()
		t.Logf("%d calls", calls.Load())
	})
}

// DropAll under load: whoever asks after it has returned gets a token that the STS
// has made after it was called.
func TestDropAllUnderLoad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		sts.delay = 3 * time.Millisecond
		s := sts.source(t)
		defer s.Close()
		var dropped sync.Map
		var done atomic.Bool
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				for !done.Load() {
					token, err := s.Token(t.Context(), "orders")
					if err != nil {
						t.Errorf("Token: %v", err)
					}
					if _, bad := dropped.Load(token.Value); bad {
						// It may have been asked for before the drop, at this very moment.
						if again := mustToken(t, s, "orders"); again.same(token) {
							t.Error("a token is given out after it was dropped")
						}
					}
					time.Sleep(time.Duration(i+1) * 100 * time.Microsecond)
				}
			})
		}
		for range 50 {
			time.Sleep(5 * time.Millisecond)
			token, _ := s.Token(t.Context(), "orders")
			s.DropAll()
			dropped.Store(token.Value, true)
		}
		done.Store(true)
		wg.Wait()
	})
}

// What a callee has refused is dropped once in a while, and only if it is still
// the one that is given out.
func TestRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sts := newSTS(t)
		s := sts.source(t)
		defer s.Close()
		first := mustToken(t, s, "orders")
		if !s.Refused("orders", first) {
			t.Error("the first refusal does not ask for another token")
		}
		second := mustToken(t, s, "orders")
		if second.same(first) {
			t.Error("the refused token is given out again")
		}
		if !s.Refused("orders", first) || !mustToken(t, s, "orders").same(second) {
			t.Error("a late refusal of the first token: want true, and the second stays")
		}
		for range 100 {
			if s.Refused("orders", second) {
				t.Error("a callee that refuses everything makes each call a request")
			}
		}
		time.Sleep(refusedPause)
		if !s.Refused("orders", second) || s.Refused("unknown", second) {
			t.Error("after the pause: want true, and false for an audience without a token")
		}
		if n := sts.count(); n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
	})
}

// Of keys that are withdrawn over years, the last are remembered.
func TestWithdrawnKeysAreBounded(t *testing.T) {
	var d drops
	for i := range 10 * mostWithdrawn {
		d.keep([]string{string(rune('A' + i))})
	}
	if n := len(d.withdrawn); n != mostWithdrawn {
		t.Errorf("%d are remembered, want %d", n, mostWithdrawn)
	}
}
