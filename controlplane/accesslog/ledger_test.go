package accesslog

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/watchword-mesh/watchword/dataplane/reason"
)

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Whatever is refused, every refusal is counted once under its own reason, and
// no bound is passed. Where there is room, nothing is under "others".
func TestLedgerIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		small := limits{
			counts:  reserved() + rapid.IntRange(0, 40).Draw(t, "counts"),
			callers: rapid.IntRange(1, 4).Draw(t, "callers"),
			sample:  rapid.IntRange(0, 4).Draw(t, "sample"),
			samples: rapid.IntRange(0, 10).Draw(t, "samples"),
		}
		l, now, want := newLedger(small, start), start, map[kind]uint64{}
		for range rapid.IntRange(1, 300).Draw(t, "refusals") {
			now = now.Add(time.Duration(rapid.IntRange(0, 30).Draw(t, "minutes")) * time.Minute)
			r := Refusal{
				Service:  fmt.Sprint("s", rapid.IntRange(0, 12).Draw(t, "service")),
				Reason:   rapid.SampledFrom(append(reason.All(), Other)).Draw(t, "reason"),
				Observed: rapid.Bool().Draw(t, "observed"),
			}
			if n := rapid.IntRange(0, 8).Draw(t, "subject"); n > 0 {
				r.Caller = Caller{Issuer: "i", Subject: fmt.Sprint(n)}
			}
			if rapid.IntRange(0, 9).Draw(t, "known") == 0 {
				r.Service = Other
			}
			if got := l.add(r, now); got != r.Service && got != Other {
				t.Fatalf("%+v was counted under service %q", r, got)
			}
			want[kind{r.Reason, r.Observed}]++
			checkBounds(t, l)
			if rapid.IntRange(0, 30).Draw(t, "forget") == 0 {
				for _, c := range l.report(r.Service).Counts {
					want[kind{c.Reason, c.Observed}] -= c.Count
				}
				l.forget(r.Service)
				checkBounds(t, l)
			}
		}
		maps.DeleteFunc(want, func(_ kind, n uint64) bool { return n == 0 })
		got := map[kind]uint64{}
		for _, c := range l.report("").Counts {
			got[kind{c.Reason, c.Observed}] += c.Count
			if c.Last.After(now) || c.Last.Before(start) {
				t.Fatalf("%+v was last seen at an impossible time", c)
			}
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(kind{})); diff != "" {
			t.Fatalf("counts by reason (-want +got):\n%s", diff)
		}
	})
}

func checkBounds(t *rapid.T, l *ledger) {
	counts, samples := 0, 0
	for name, s := range l.services {
		for who, c := range s.callers {
			counts += len(c.counts)
			if name == Other && !who.Other {
				t.Fatalf("caller %+v is told apart under no service", who)
			}
		}
		if n := s.named(); n > l.callers {
			t.Fatalf("service %s has %d callers, more than %d", name, n, l.callers)
		}
		if len(s.sample) > l.sample {
			t.Fatalf("service %s has a sample of %d, more than %d", name, len(s.sample), l.sample)
		}
		samples += len(s.sample)
	}
	if counts > l.limits.counts || counts != l.counts {
		t.Fatalf("%d counts (%d are booked), more than %d", counts, l.counts, l.limits.counts)
	}
	if samples > l.samples || samples != l.sampled {
		t.Fatalf("%d in the samples (%d are booked), more than %d", samples, l.sampled, l.samples)
	}
}

func refusal(service, subject string) Refusal {
	return Refusal{Service: service, Caller: Caller{Issuer: "i", Subject: subject}, Reason: reason.ConsumerDenied}
}

// A caller that was not refused for an hour gives its place to another one, and
// its refusals stay counted.
func TestIdleCallersMakeRoom(t *testing.T) {
	l := newLedger(limits{counts: 1000, callers: 2, sample: 1, samples: 1}, start)
	for i, subject := range []string{"a", "a", "b", "c"} {
		l.add(refusal("s", subject), start.Add(time.Duration(i)*time.Minute))
	}
	l.add(refusal("s", "d"), start.Add(time.Hour+90*time.Second))
	denied := func(who Caller, n uint64, last time.Duration) Count {
		return Count{Service: "s", Caller: who, Reason: reason.ConsumerDenied, Count: n, Last: start.Add(last)}
	}
	want := []Count{
		denied(Caller{Other: true}, 3, 3*time.Minute), // a twice, c once
		denied(Caller{Issuer: "i", Subject: "b"}, 1, 2*time.Minute),
		denied(Caller{Issuer: "i", Subject: "d"}, 1, time.Hour+90*time.Second),
	}
	if diff := cmp.Diff(want, l.report("s").Counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}
}

// Callers with names can't use up the room: a service that comes late is still
// counted under its own name, while there is any.
func TestLateServiceIsCounted(t *testing.T) {
	l := newLedger(limits{counts: reserved() + 100, callers: 64, sample: 1, samples: 1}, start)
	for i := range 200 {
		l.add(refusal(fmt.Sprint("greedy", i%10), fmt.Sprint(i)), start)
	}
	if got := l.add(refusal("late", "x"), start); got != "late" {
		t.Errorf("it was counted under %q, want late", got)
	}
}

// The sample has the last refusals, but a flood does not wash out all others.
func TestSample(t *testing.T) {
	l := newLedger(limits{counts: 1000, callers: 2, sample: 20, samples: 100}, start)
	add := func(n int, path string, at time.Duration) {
		for i := range n {
			r := refusal("s", "a")
			r.Path, r.Time = path, start.Add(at+time.Duration(i))
			l.add(r, start.Add(at))
		}
	}
	add(15, "/early", 0)
	add(10000, "/flood", time.Second)
	add(1, "/late", 3*time.Second)
	seen := map[string]int{}
	sample := l.report("s").Sample
	for i, r := range sample {
		seen[r.Path]++
		if i > 0 && r.Time.After(sample[i-1].Time) {
			t.Errorf("sample[%d] is newer than the one before", i)
		}
	}
	if want := map[string]int{"/early": 4, "/flood": 15, "/late": 1}; !cmp.Equal(seen, want) || sample[0].Path != "/late" {
		t.Errorf("the sample has %v, the newest is %s; want %v", seen, sample[0].Path, want)
	}
	if other := l.report("t"); len(other.Sample)+len(other.Counts) != 0 {
		t.Errorf("another service has %+v, want nothing", other)
	}
}
