package ledger

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// two members, of which the second may be departed.
func two(alive bool, a, b Record) Cluster {
	c := Cluster{Members: map[string]Member{"a": {ID: "a"}, "b": {ID: "b"}}, Alive: map[string]bool{"a": true}, Records: map[string]Record{"a": a, "b": b}}
	if alive {
		c.Alive["b"] = true
	}
	return c
}

// observed is what was first seen at 0.
func observed(c Cluster) *Observer {
	o := NewObserver(bounds)
	o.See(c, at(0))
	return o
}

// What a key that was published at revision 7 waits for, and what is not known of a
// receipt at 7 (rules 6, 7 and 12).
func TestGateAndReceipt(t *testing.T) {
	done := Record{Applied: 9, Lease: 30 * time.Second}
	old := Record{Applied: 6, Lease: 30 * time.Second}
	held := func(h Held) Record { return Record{Applied: 9, Held: map[string]Held{"x": h}, Lease: 30 * time.Second} }
	behind, gone, left := Held{Claim: 6, Count: 1}, Held{Claim: 6, Gone: 1}, Held{Claim: 9, Left: 1, Has: 6}
	cutOff := two(false, done, done)
	cutOff.Alive = nil
	none := two(true, done, done)
	delete(none.Records, "b")
	departed := Wait{Member: "b", Why: Departed, Until: at(32)} // the lease and twice the clock error
	for _, c := range []struct {
		name                 string
		cluster              Cluster
		now                  int
		gate, waits, unknown []Wait
	}{
		{"all have it", two(true, done, done), 1, nil, nil, nil},
		{"one has not applied it", two(true, done, old), 1, []Wait{{Member: "b", Why: NotApplied}}, []Wait{{Member: "b", Why: NotApplied}}, nil},
		{"one has written nothing", none, 1, []Wait{{Member: "b", Why: NotApplied}}, []Wait{{Member: "b", Why: NotApplied}}, nil},
		{"data planes are behind", two(true, done, held(behind)), 1, []Wait{{Member: "b", Service: "x", Held: behind, Why: Behind}}, []Wait{{Member: "b", Service: "x", Held: behind, Why: Behind}}, nil},
		{"data planes are gone", two(true, done, held(gone)), 1, []Wait{{Member: "b", Service: "x", Held: gone, Why: Behind}}, nil, []Wait{{Member: "b", Service: "x", Held: gone, Why: Behind}}},
		{"keys wait for them no more, receipts tell", two(true, done, held(left)), 1, nil, nil, []Wait{{Member: "b", Service: "x", Held: left, Why: Behind}}},
		{"another service is behind", two(true, done, Record{Applied: 9, Held: map[string]Held{"y": behind}}), 1, nil, nil, nil},
		{"departed", two(false, done, old), 32, []Wait{departed}, nil, []Wait{departed}},
		{"departed, and its leases have ended", two(false, done, old), 33, nil, nil, nil},
		{"departed when all had it", two(false, done, done), 1, nil, nil, nil},
		{"nobody is alive, so that others may have joined", cutOff, 100, []Wait{{Why: NotApplied}}, []Wait{{Why: NotApplied}}, nil},
		{"departed, with some behind", two(false, done, held(behind)), 32, []Wait{departed}, nil, []Wait{departed}},
	} {
		o := observed(c.cluster)
		if diff := cmp.Diff(c.gate, o.Gate(7, []string{"x"}, at(c.now))); diff != "" {
			t.Errorf("%s, after %d s: gate (-want +got):\n%s", c.name, c.now, diff)
		}
		waits, unknown := o.Receipt(7, []string{"x"}, at(c.now))
		if diff := cmp.Diff([][]Wait{c.waits, c.unknown}, [][]Wait{waits, unknown}); diff != "" {
			t.Errorf("%s, after %d s: receipt, waits and unknown (-want +got):\n%s", c.name, c.now, diff)
		}
	}
}

// Who may still sign by what was open before revision 7 (rule 10).
func TestUnsigned(t *testing.T) {
	done, old, stopped := Record{Applied: 7}, Record{Applied: 6}, Record{Applied: 6, SigningStopped: true}
	signs := Wait{Member: "b", Why: MaySign, Until: at(3601)} // an hour, and the clock error
	for _, c := range []struct {
		name    string
		cluster Cluster
		now     int
		want    []Wait
	}{
		{"all go by it", two(true, done, done), 1, nil},
		{"one does not", two(true, done, old), 1, []Wait{{Member: "b", Why: NotApplied}}},
		{"departed", two(false, done, old), 3601, []Wait{signs}},
		{"departed, long ago", two(false, done, old), 3602, nil},
		{"departed, and it signs no more", two(false, done, stopped), 1, nil},
	} {
		if diff := cmp.Diff(c.want, observed(c.cluster).Unsigned(7, at(c.now))); diff != "" {
			t.Errorf("%s, after %d s (-want +got):\n%s", c.name, c.now, diff)
		}
	}
}

// A departed member is remembered while anything that it gave may last, and the wait
// begins when it is first seen to be gone.
func TestForgettable(t *testing.T) {
	old := Record{Applied: 6, Lease: 30 * time.Second, Lifetime: 5 * time.Minute}
	stopped := old
	stopped.SigningStopped = true
	for _, c := range []struct {
		name   string
		record Record
		end    int
	}{
		{"it may sign for an hour, and its tokens last", old, 3600 + 300 + 2},
		{"it signs no more, and its tokens last", stopped, 300 + 2},
	} {
		o := observed(two(true, old, old))
		o.See(two(false, old, c.record), at(100))
		if got := o.Forgettable(at(100 + c.end)); got != nil {
			t.Errorf("%s: forgettable %v after %d s", c.name, got, c.end)
		}
		if diff := cmp.Diff([]string{"b"}, o.Forgettable(at(101+c.end))); diff != "" {
			t.Errorf("%s: forgettable after %d s (-want +got):\n%s", c.name, c.end+1, diff)
		}
	}
}

// AppliedSince is when the last of all that are alive was seen to have applied it.
func TestAppliedSince(t *testing.T) {
	o := observed(two(true, Record{Applied: 9}, Record{Applied: 6}))
	if _, ok := o.AppliedSince(7); ok {
		t.Error("a member has applied 6, and 7 is said to be applied")
	}
	o.See(two(true, Record{Applied: 9}, Record{Applied: 8}), at(5))
	o.See(two(true, Record{Applied: 12}, Record{Applied: 12}), at(9))
	if since, ok := o.AppliedSince(7); !ok || !since.Equal(at(5)) {
		t.Errorf("7 is applied since %v, %v; want %v", since, ok, at(5))
	}
}
