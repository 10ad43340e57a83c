package bundle

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
)

func every(s Source, d time.Duration) Source {
	s.JWKSURI.Interval = durationpb.New(d)
	return s
}

// pauses are the times between.
func pauses(times []time.Time) []time.Duration {
	var out []time.Duration
	for i := 1; i < len(times); i++ {
		out = append(out, times[i].Sub(times[i-1]))
	}
	return out
}

// A source is fetched at once, then at its interval give or take a tenth, and
// not in step with others that began together. An equal set is stored once, and
// then only for its age.
func TestInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		for _, name := range []string{"a", "b"} {
			w.says(name, keys(ec("k")), nil)
		}
		w.set(every(source("a", "https://a.test"), time.Minute), source("b", "https://b.test"))
		if n := w.written(); n != 2 || !strings.Contains(w.record("a").JWKS, `"kid":"k"`) || w.record("a").Source != "https://a.test" {
			t.Fatalf("after the first fetch %d sets are stored: %+v", n, w.records)
		}
		wait(10 * time.Hour)
		for name, interval := range map[string]time.Duration{"a": time.Minute, "b": DefaultInterval} {
			list := pauses(w.times(name))
			if want := int(10 * time.Hour / interval); len(list) < want*95/100 || len(list) > want*105/100 {
				t.Errorf("%s was asked %d times in 10 h, want about %d", name, len(list), want)
			}
			distinct := map[time.Duration]bool{}
			for _, p := range list {
				distinct[p] = true
				if p < interval*9/10 || p > interval*11/10 {
					t.Errorf("%s was asked after %s, want %s give or take a tenth", name, p, interval)
				}
			}
			if len(distinct) < len(list)/2 {
				t.Errorf("%s: only %d different pauses of %d", name, len(distinct), len(list))
			}
		}
		// 60 ages of each in 10 h at most, not 600.
		if n := w.written(); n < 60 || n > 130 {
			t.Errorf("%d writes, want about 110", n)
		}
		if s := w.status("a"); time.Since(s.Set.Fetched) > 2*time.Minute || time.Since(s.Set.Changed) < 9*time.Hour || s.Error != "" {
			t.Errorf("the status is %+v, want one that is fetched of late and has not changed", s)
		}
	})
}

// Cache-Control may shorten the interval, to 10 s and no less; it never makes
// it longer.
func TestCacheControlShortens(t *testing.T) {
	for _, c := range []struct{ maxAge, interval, want time.Duration }{
		{time.Minute, DefaultInterval, time.Minute},
		{time.Hour, DefaultInterval, DefaultInterval},
		{MinInterval, DefaultInterval, MinInterval},
		{0, time.Minute, time.Minute},
		{MinInterval, time.Second, MinInterval}, // an interval that no policy has
	} {
		synctest.Test(t, func(t *testing.T) {
			w := start(t)
			r := keys(ec("k"))
			r.maxAge = c.maxAge
			w.says("a", r, nil)
			w.set(every(source("a", "https://a.test"), c.interval))
			wait(20 * c.want)
			for _, p := range pauses(w.times("a")) {
				if p < max(c.want*9/10, MinInterval) || p > c.want*11/10 {
					t.Errorf("%+v: asked after %s", c, p)
				}
			}
		})
	}
}

// Failures are tried again after 2 s, and ever longer pauses up to the
// interval. Nothing is written, and the last good set stays, with the error
// beside it; success makes an end of it.
func TestFailuresBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		w.says("a", keys(ec("k")), nil)
		w.set(source("a", "https://a.test"))
		good := w.record("a")
		w.says("a", response{}, errors.New("the server answers with status 503, not 200"))
		wait(4 * time.Hour)
		if w.written() != 1 {
			t.Errorf("%d writes, want the first alone", w.written())
		}
		list := pauses(w.times("a"))
		want := []time.Duration{DefaultInterval, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300}
		for i, p := range list {
			expect := DefaultInterval
			if i > 0 && i < len(want) {
				expect = want[i] * time.Second
			}
			if p < expect*9/10 || p > expect*11/10 {
				t.Errorf("pause %d is %s, want %s give or take a tenth; all: %s", i, p, expect, list)
			}
		}
		s := w.status("a")
		if s.Error != "the server answers with status 503, not 200" || s.Set.JWKS != good.JWKS || time.Since(s.Set.Fetched) < 3*time.Hour || !s.Next.After(time.Now()) {
			t.Errorf("after 4 h of failures the status is %+v", s)
		}
		if got := w.counted("watchword_jwks_fetches_total")["a failed"]; got < 50 {
			t.Errorf("%v failures are counted, want about 55", got)
		}
		// A set without a usable key is a failure like any other.
		w.says("a", keys(`{"kty":"oct","k":"AA"}`), nil)
		wait(6 * time.Minute)
		if s := w.status("a"); !strings.Contains(s.Error, "no key of the set can be used") || s.Set.JWKS != good.JWKS || w.written() != 1 {
			t.Errorf("after an unusable set the status is %+v", s)
		}
		w.says("a", keys(ec("k2")), nil)
		wait(6 * time.Minute)
		if s := w.status("a"); s.Error != "" || !strings.Contains(s.Set.JWKS, "k2") || w.record("a").JWKS != s.Set.JWKS {
			t.Errorf("after it is right again the status is %+v", s)
		}
	})
}

// The entity tag goes with the set that it came with: not to a changed source,
// whose options may take other keys of the same set.
func TestEntityTag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		both := set(ec("e"), rsaKey(`,"kid":"r"`))
		w.serves("a", func(_ context.Context, etag string) (response, error) {
			if etag == "v1" {
				return response{notModified: true, etag: etag}, nil
			}
			return response{body: []byte(both), etag: "v1"}, nil
		})
		s := every(source("a", "https://a.test"), time.Minute)
		s.Options.Algorithms = []string{"ES256"}
		w.set(s)
		wait(70 * time.Second)
		if s := w.status("a"); len(s.Set.LeftOut) != 1 || !strings.Contains(s.Set.LeftOut[0], `kid "r"`) {
			t.Errorf("left out with ES256 alone: %q, want r", s.Set.LeftOut)
		}
		s = every(source("a", "https://a.test"), time.Minute)
		w.set(s)
		if got := w.status("a").Set; len(got.LeftOut) != 0 || !strings.Contains(got.JWKS, `"r"`) || w.record("a").JWKS != got.JWKS {
			t.Errorf("without the limit the set is %+v, want e and r", got)
		}
		wait(70 * time.Second)
		if d := cmp.Diff([]string{"", "v1", "", "v1"}, w.etags); d != "" {
			t.Errorf("entity tags that were sent, -want +got:\n%s", d)
		}
		// Someone else stores another set: what we were told is no longer that.
		w.mu.Lock()
		other := w.records["a"]
		w.revision++
		other.Revision, other.JWKS = w.revision, set(ec("x"))
		w.records = map[string]Set{"a": other}
		w.mu.Unlock()
		w.watch(w.revision, w.records)
		wait(2 * time.Minute)
		if got := w.etags[4]; got != "" || !strings.Contains(w.record("a").JWKS, `"r"`) {
			t.Errorf("after another stored a set, the tag %q was sent, and %+v is stored", got, w.record("a"))
		}
	})
}

// An unknown kid makes a fetch at once, but no more than one in 10 s for each
// issuer, however many there are; one that runs already is followed by another.
func TestRefetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		w.says("a", keys(ec("k")), nil)
		w.says("b", keys(ec("k")), nil)
		w.set(source("a", "https://a.test"), source("b", "https://b.test"))
		wait(20 * time.Second)
		w.times("a")
		w.times("b")
		began := time.Now()
		w.says("a", keys(ec("k"), rsaKey("")), nil)
		w.Refetch("a")
		synctest.Wait()
		if got := w.times("a"); len(got) != 1 || !got[0].Equal(began) || !strings.Contains(w.record("a").JWKS, "RSA") {
			t.Errorf("after an unknown kid: asked at %v, want once at %v; stored %+v", got, began, w.record("a"))
		}
		for range 500 { // 50 s of a stranger's tokens
			w.Refetch("a")
			w.Refetch("nobody")
			wait(100 * time.Millisecond)
		}
		list := w.times("a")
		if len(list) != 5 && len(list) != 4 {
			t.Errorf("asked %d times in 50 s, want about 5: %v", len(list), list)
		}
		for _, p := range pauses(list) {
			if p < MinInterval {
				t.Errorf("asked after %s, want 10 s at least", p)
			}
		}
		if got := w.times("b"); len(got) != 0 {
			t.Errorf("the other issuer was asked at %v", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		gate := make(chan struct{})
		w.serves("a", func(context.Context, string) (response, error) { <-gate; return keys(ec("k")), nil })
		s := source("a", "https://a.test")
		s.JWKSURI.Timeout = durationpb.New(time.Hour)
		w.set(s)
		for range 100 {
			w.Refetch("a")
		}
		wait(30 * time.Second)
		close(gate)
		wait(time.Second)
		if got := pauses(w.times("a")); len(got) != 1 || got[0] != 30*time.Second {
			t.Errorf("the pauses are %v; want a second fetch right after the first, and no other", got)
		}
	})
}

// While its server is down, unknown kids hasten the next attempt, to one in 10 s.
func TestRefetchOfFailing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		w.set(every(source("a", "https://a.test"), time.Hour))
		wait(time.Hour) // well backed off
		w.times("a")
		for range 60 {
			w.Refetch("a")
			wait(time.Second)
		}
		if got := w.times("a"); len(got) < 5 || len(got) > 7 {
			t.Errorf("asked %d times in a minute, want 6", len(got))
		}
	})
}

// Sources come, change and go while it runs. What belongs to a source that is
// gone ends, and is removed.
func TestSourcesChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		for _, name := range []string{"a", "b"} {
			w.says(name, keys(ec(name)), nil)
		}
		w.set(source("a", "https://a.test"))
		w.set(source("a", "https://a.test"), source("b", "https://b.test"))
		w.set(source("a", "https://a.test"), source("b", "https://b.test"))
		if a, b := w.times("a"), w.times("b"); len(a) != 1 || len(b) != 1 {
			t.Errorf("asked %d and %d times, want each once: an equal source is no change", len(a), len(b))
		}
		// Another URI: the old keys are no longer those of the source.
		w.says("a", keys(ec("new")), nil)
		w.set(source("a", "https://elsewhere.test"), source("b", "https://b.test"))
		if r := w.record("a"); r.Source != "https://elsewhere.test" || !strings.Contains(r.JWKS, "new") {
			t.Errorf("after a change of the URI %+v is stored", r)
		}
		// One that does not answer: what is stored of the old one goes, so that
		// it can't come to life again.
		w.says("a", response{}, errors.New("down"))
		w.set(source("a", "https://down.test"), source("b", "https://b.test"))
		if s := w.status("a"); s.Set.JWKS != "" || !s.Set.Fetched.IsZero() || s.Error != "down" {
			t.Errorf("the status of a new URI that is down is %+v", s)
		}
		wait(time.Minute)
		if r := w.record("a"); r.JWKS != "" {
			t.Errorf("%+v is still stored", r)
		}
		w.says("a", keys(ec("late")), nil)
		wait(10 * time.Minute)
		if r := w.record("a"); !strings.Contains(r.JWKS, "late") {
			t.Errorf("when it answers at last %+v is stored", r)
		}
		// The issuer has its keys in itself now.
		w.set(source("b", "https://b.test"))
		w.times("a")
		wait(time.Hour)
		if _, ok := w.Status("a"); ok || len(w.times("a")) != 0 || w.record("a").JWKS != "" {
			t.Errorf("a source that is gone is asked, or shown, or stored: %+v", w.records)
		}
		for labels := range w.counted("watchword_jwks_fetches_total") {
			if strings.HasPrefix(labels, "a ") {
				t.Errorf("the source that is gone is still counted: %s", labels)
			}
		}
	})
}

// A fetch of a source that changes or goes is ended, and what comes of it
// counts for nothing.
func TestChangeDuringFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		ended := 0
		w.serves("a", func(ctx context.Context, _ string) (response, error) {
			<-ctx.Done()
			ended++
			return response{}, ctx.Err()
		})
		s := source("a", "https://a.test")
		s.JWKSURI.Timeout = durationpb.New(time.Hour)
		w.set(s)
		w.says("a", keys(ec("new")), nil)
		w.set(source("a", "https://b.test"))
		if r := w.record("a"); ended != 1 || r.Source != "https://b.test" || w.status("a").Error != "" {
			t.Errorf("ended %d fetches, stored %+v, status %+v", ended, r, w.status("a"))
		}
		w.serves("a", func(ctx context.Context, _ string) (response, error) { <-ctx.Done(); return keys(ec("late")), nil })
		wait(6 * time.Minute)
		w.set()
		wait(time.Second)
		if r := w.record("a"); strings.Contains(r.JWKS, "late") {
			t.Errorf("a source that is gone is stored: %+v", r)
		}
	})
}

// What is stored is in force after a restart, also when the server is down, and
// the same set is not written again.
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		text, _, err := read([]byte(set(ec("k"), rsaKey(""))), source("a", "").Options)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now().UTC()
		w.records["a"] = Set{Issuer: "a", Source: "https://a.test", JWKS: text, LeftOut: []string{"key 7: odd"}, Changed: began.Add(-time.Hour), Fetched: began.Add(-time.Minute), Revision: 7}
		w.set(source("a", "https://a.test"))
		s := w.status("a")
		if s.Set.JWKS != text || !s.Set.Fetched.Equal(began.Add(-time.Minute)) || s.Error == "" || len(s.Set.LeftOut) != 1 {
			t.Errorf("with the server down the status is %+v", s)
		}
		w.says("a", keys(rsaKey(""), ec("k")), nil)
		wait(3 * time.Second)
		if s := w.status("a"); s.Error != "" || !s.Set.Fetched.Equal(began.Add(2*time.Second)) && time.Since(s.Set.Fetched) > 3*time.Second || !s.Set.Changed.Equal(began.Add(-time.Hour)) || len(s.Set.LeftOut) != 0 {
			t.Errorf("with the server back the status is %+v", s)
		}
		if w.written() != 0 {
			t.Errorf("%d writes of an equal set, want none", w.written())
		}
	})
}

// A set that can't be stored is not in force; it is tried again as a whole,
// without the entity tag that would hide it.
func TestStoreFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		w.broken = errors.New("no leader")
		r := keys(ec("k"))
		r.etag = "v1"
		w.says("a", r, nil)
		w.set(source("a", "https://a.test"))
		if s := w.status("a"); s.Set.JWKS != "" || !strings.Contains(s.Error, "not in force: no leader") {
			t.Errorf("the status is %+v", s)
		}
		w.mu.Lock()
		w.broken = nil
		w.mu.Unlock()
		wait(3 * time.Second)
		if s := w.status("a"); s.Error != "" || w.record("a").JWKS == "" || s.Set.JWKS != w.record("a").JWKS {
			t.Errorf("with a store again the status is %+v, and %+v is stored", s, w.record("a"))
		}
		if d := cmp.Diff([]string{"", ""}, w.etags); d != "" {
			t.Errorf("entity tags -want +got:\n%s", d)
		}
	})
}

// A record that is taken away, such as with an issuer that was deleted and made
// again, is fetched anew at once.
func TestRecordTakenAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		w.says("a", response{body: []byte(set(ec("k"))), etag: "v1"}, nil)
		w.set(source("a", "https://a.test"))
		w.mu.Lock()
		w.remove("a")
		w.mu.Unlock()
		wait(5 * time.Second)
		if w.record("a").JWKS == "" || w.status("a").Set.Revision != w.record("a").Revision {
			t.Errorf("nothing is stored again; the status is %+v", w.status("a"))
		}
	})
}

// An event that is older than what was stored here does not undo it.
func TestLateEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		w.deaf = true
		w.says("a", keys(ec("k")), nil)
		w.set(source("a", "https://a.test"))
		w.SetSources(w.revision-1, w.sources, nil)
		wait(time.Second)
		if s := w.status("a"); s.Set.JWKS == "" || len(w.times("a")) != 1 {
			t.Errorf("an old event took the set away: %+v", s)
		}
	})
}

// Many sources at once, some of them stuck: no more than a few fetches run, and
// all get their turn.
func TestBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		var sources []Source
		for i := range 200 {
			name := fmt.Sprintf("i%03d", i)
			sources = append(sources, source(name, "https://"+name+".test"))
			w.serves(name, func(ctx context.Context, _ string) (response, error) {
				select {
				case <-time.After(time.Duration(i%7) * time.Second):
					return keys(ec("k")), nil
				case <-ctx.Done():
					return response{}, ctx.Err()
				}
			})
		}
		w.set(sources...)
		wait(200 * 7 * time.Second / maxRunning)
		if w.most != maxRunning || len(w.records) < 170 {
			t.Errorf("%d fetches ran at once, want %d; %d sets are stored, want all but the stuck ones", w.most, maxRunning, len(w.records))
		}
	})
}

// The metrics name issuer and outcome, and ages those of the moment.
func TestMetrics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := start(t)
		w.says("a", response{body: []byte(set(ec("k"))), etag: "v1"}, nil)
		w.set(every(source("a", "https://a.test"), time.Hour), every(source("down", "https://down.test"), time.Hour))
		w.says("a", response{notModified: true, etag: "v1"}, nil)
		wait(20 * time.Second)
		w.Refetch("a")
		wait(5 * time.Second)
		got := []map[string]float64{w.counted("watchword_jwks_age_seconds"), w.counted("watchword_jwks_fetches_total")}
		failures := got[1]["down failed"]
		want := []map[string]float64{{"a": 5}, {"a changed": 1, "a not_modified": 1, "down failed": failures}}
		if d := cmp.Diff(want, got); d != "" || failures == 0 {
			t.Errorf("metrics -want +got:\n%s", d)
		}
	})
}

// A record that can't be removed is told of, just as when the store does not
// answer at all; not at the end of Run, which is no fault.
func TestDropIsNotAnswered(t *testing.T) {
	for _, c := range []struct {
		after time.Duration
		want  int
	}{{keepTimeout - time.Second, 0}, {keepTimeout + time.Second, 1}} {
		var w *world
		synctest.Test(t, func(t *testing.T) {
			w = start(t)
			w.hangs = true
			w.records["gone"] = Set{Issuer: "gone", Revision: 7}
			w.set()
			wait(c.after)
		})
		if got := strings.Count(w.log.String(), "can't be removed: issuer=gone"); got != c.want {
			t.Errorf("after %s it was told %d times, want %d; the log:\n%s", c.after, got, c.want, w.log.String())
		}
	}
}

// What a fetch has found to be stale is not forgotten when the sources change
// before it was dropped, but is when the source is again the one it belongs to.
func TestStaleOutlivesChange(t *testing.T) {
	old := Set{Issuer: "a", Source: "https://old.test", Revision: 7}
	held := map[string]Set{"a": old, "gone": {Issuer: "gone", Revision: 8}}
	for uri, want := range map[string]map[string]int64{
		"https://down.test": {"a": 7, "gone": 8},
		"https://old.test":  {"gone": 8},
	} {
		m := New(Config{}) // Run drops nothing
		m.SetSources(10, []Source{source("a", "https://down.test")}, held)
		m.stale["a"] = 7 // as finish does
		m.SetSources(11, []Source{source("a", uri)}, held)
		if diff := cmp.Diff(want, m.stale); diff != "" {
			t.Errorf("with source %s, stale (-want +got):\n%s", uri, diff)
		}
	}
}
