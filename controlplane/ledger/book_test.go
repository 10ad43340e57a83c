package ledger

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	start  = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)
	bounds = Bounds{Authority: 10 * time.Second, ClockError: time.Second, Signing: time.Hour, Grace: 20 * time.Second, Stragglers: Hold}
	plane  = Row{"x", "i1", "n1"}
)

func at(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }

// confirmed is a book with one data plane of service x that has all of revision 5.
func confirmed(b Bounds, leased bool) *Book {
	book := NewBook(b)
	book.Changed("x", 5, leased)
	book.Applied(5)
	book.Join(plane, at(0))
	book.InSync(plane)
	return book
}

// next applies a revision that changes something for the data plane.
func next(b *Book, revision int64, leased bool, now time.Time) {
	b.Changed("x", revision, leased)
	b.Behind(plane, "", now)
	b.Applied(revision)
}

// without applies a revision that changes something for the data plane, which is gone.
func without(b *Book, revision int64) {
	b.Changed("x", revision, b.shelf("x").leased)
	b.Applied(revision)
}

// What a replica claims of one data plane, by what has happened to it (rules 3 to 5).
func TestBookClaims(t *testing.T) {
	grace := bounds
	grace.Stragglers = Grant
	who := []string{"n1 (i1)"}
	for _, c := range []struct {
		name   string
		bounds Bounds
		leased bool
		do     func(*Book)
		now    int
		held   map[string]Held
	}{
		{"all is confirmed", bounds, true, func(*Book) {}, 1, nil},
		{"what is applied is not confirmed", bounds, false, func(b *Book) { next(b, 7, false, at(1)) }, 1000,
			map[string]Held{"x": {Claim: 5, Count: 1, Who: who}}},
		{"a NACK says why", bounds, false, func(b *Book) { next(b, 7, false, at(1)); b.Behind(plane, "bad key", at(2)) }, 1000,
			map[string]Held{"x": {Claim: 5, Count: 1, Who: who, Why: "bad key"}}},
		{"it is confirmed later", bounds, false, func(b *Book) { next(b, 7, false, at(1)); b.InSync(plane) }, 2, nil},
		{"behind, with a lease", bounds, true, func(b *Book) { b.Lease(plane, at(30)); next(b, 7, true, at(1)) }, 31,
			map[string]Held{"x": {Claim: 5, Count: 1, Who: who, Until: at(31)}}},
		{"behind, when its lease has ended by all clocks", bounds, true, func(b *Book) { b.Lease(plane, at(30)); next(b, 7, true, at(1)) }, 32, nil},
		{"gone, with a lease", bounds, true, func(b *Book) { b.Lease(plane, at(30)); b.Leave(plane, at(1)); without(b, 7) }, 31,
			map[string]Held{"x": {Claim: 5, Count: 1, Who: who, Why: "it is gone", Until: at(31)}}},
		{"gone, without leases", bounds, false, func(b *Book) { b.Leave(plane, at(1)); without(b, 7) }, 21,
			map[string]Held{"x": {Claim: 5, Gone: 1, Who: who, Why: "it is gone", Until: at(21)}}},
		{"gone, and its grace is over", bounds, false, func(b *Book) { b.Leave(plane, at(1)); without(b, 7) }, 22, nil},
		{"gone, and nothing has changed for it", bounds, false, func(b *Book) { b.Leave(plane, at(1)); b.Applied(7) }, 2, nil},
		{"behind, with grace", grace, false, func(b *Book) { next(b, 7, false, at(1)) }, 21,
			map[string]Held{"x": {Claim: 5, Count: 1, Who: who, Until: at(21)}}},
		{"behind, and its grace is over: keys do not wait, receipts tell", grace, false, func(b *Book) { next(b, 7, false, at(1)) }, 22,
			map[string]Held{"x": {Claim: 7, Left: 1, Has: 5, Who: who}}},
		{"leases are switched off, and it may have received that: it counts as one without", bounds, true,
			func(b *Book) { b.Lease(plane, at(30)); next(b, 7, false, at(1)) }, 1000,
			map[string]Held{"x": {Claim: 5, Count: 1, Who: who}}},
		{"leases are switched off and on while it is behind: its old lease counts", bounds, true, func(b *Book) {
			b.Lease(plane, at(60))
			next(b, 7, false, at(1))
			b.InSync(plane)
			next(b, 8, true, at(2))
			b.Leave(plane, at(3))
		}, 24, map[string]Held{"x": {Claim: 7, Count: 1, Who: who, Why: "it is gone", Until: at(61)}}},
		{"it comes back, and may have been elsewhere: its lease is no end", bounds, true, func(b *Book) {
			b.Lease(plane, at(30))
			next(b, 7, true, at(1))
			b.Leave(plane, at(2))
			b.Join(plane, at(3))
		}, 1000, map[string]Held{"x": {Claim: 5, Count: 1, Who: who}}},
	} {
		b := confirmed(c.bounds, c.leased)
		c.do(b)
		_, held, _ := b.Claims(at(c.now))
		if diff := cmp.Diff(c.held, held); diff != "" {
			t.Errorf("%s, after %d s: held (-want +got):\n%s", c.name, c.now, diff)
		}
	}
}

// Claims never fall, whatever a newcomer has.
func TestClaimsNeverFall(t *testing.T) {
	b := confirmed(bounds, true)
	next(b, 7, true, at(1))
	b.InSync(plane)
	b.Claims(at(2))
	b.Join(Row{"x", "i2", "n2"}, at(3))
	next(b, 9, true, at(4))
	if _, held, _ := b.Claims(at(5)); held["x"].Claim != 7 {
		t.Errorf("a newcomer that has confirmed nothing, and one data plane that had revision 7: claim %d, want 7", held["x"].Claim)
	}
}

// Who may have a lease (rule 5).
func TestMayLease(t *testing.T) {
	for _, c := range []struct {
		name  string
		do    func(*Book)
		floor int64
		want  bool
	}{
		{"in sync", func(*Book) {}, 5, true},
		{"in sync, and the floor is not applied here", func(*Book) {}, 6, false},
		{"behind, and holding the claim", func(b *Book) { next(b, 7, true, at(1)) }, 5, true},
		{"behind, and below the floor", func(b *Book) { next(b, 7, true, at(1)) }, 7, false},
		{"behind, and the claim has risen", func(b *Book) { next(b, 7, true, at(1)); b.Claims(at(50)) }, 0, false},
		{"gone", func(b *Book) { b.Leave(plane, at(1)) }, 0, false},
		{"a newcomer", func(b *Book) { b.Join(plane, at(1)) }, 0, false},
		{"a newcomer that has confirmed", func(b *Book) { b.Join(plane, at(1)); b.InSync(plane) }, 0, true},
	} {
		b := confirmed(bounds, true)
		c.do(b)
		if got := b.MayLease(plane, c.floor); got != c.want {
			t.Errorf("%s, floor %d: may have a lease: %v, want %v", c.name, c.floor, got, c.want)
		}
	}
	if confirmed(bounds, false).MayLease(plane, 0) {
		t.Error("a data plane that does not refuse everything without a lease got one")
	}
}

// BenchmarkBook is a replica with 10,000 data planes of 100 services, for each of which
// a revision changes something: all fall behind, confirm, and are claimed.
func BenchmarkBook(b *testing.B) {
	book := NewBook(bounds)
	var rows []Row
	for i := range 10_000 {
		rows = append(rows, Row{fmt.Sprint("s", i%100), fmt.Sprint("i", i), fmt.Sprint("n", i)})
		book.Join(rows[i], start)
		book.InSync(rows[i])
	}
	revision := int64(1)
	for b.Loop() {
		revision++
		for i := range 100 {
			book.Changed(rows[i].Service, revision, true)
		}
		for _, r := range rows {
			book.Behind(r, "", start)
		}
		book.Applied(revision)
		book.Claims(start)
		for _, r := range rows {
			book.InSync(r)
		}
		if _, held, _ := book.Claims(start); len(held) > 0 {
			b.Fatalf("all have confirmed, and %d services are behind", len(held))
		}
	}
}
