package ledger

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Row is the name of a data plane: one node of an instance of a service.
type Row struct{ Service, Instance, Node string }

// String names the row for people.
func (r Row) String() string { return fmt.Sprintf("%s (%s)", r.Node, r.Instance) }

// row is one data plane, connected or gone.
type row struct {
	connected, inSync bool
	// bound: what it has confirmed makes it refuse everything without a lease.
	bound bool
	// upTo is the last revision at which it had everything, while it is not in sync;
	// unheard if nothing is known.
	upTo int64
	// since is when it fell behind, or went.
	since time.Time
	// lease is the end of the last that it was given.
	lease time.Time
	why   string
}

// unheard is below all revisions: the data plane has confirmed nothing since it came.
const unheard = -1

// shelf is the rows of one service.
type shelf struct {
	leased, removed bool
	// changed is the revision that last changed what the service's data planes get.
	changed int64
	rows    map[Row]*row
	// behind are those that are gone or not in sync.
	behind map[Row]*row
	// claim holds while there are some behind; else it is what the Book has applied.
	claim int64
}

// Book is what one replica knows of its data planes: who confirmed what, and who was
// given a lease. It belongs to one goroutine, or to whoever holds a lock over it.
type Book struct {
	bounds  Bounds
	applied int64
	shelves map[string]*shelf
	// behind are the services that have rows which are behind.
	behind map[string]*shelf
}

// NewBook makes an empty one.
func NewBook(b Bounds) *Book {
	return &Book{bounds: b, shelves: map[string]*shelf{}, behind: map[string]*shelf{}}
}

// SetBounds changes what is done about who is behind, from now on.
func (b *Book) SetBounds(bounds Bounds) { b.bounds = bounds }

func (b *Book) shelf(service string) *shelf {
	s := b.shelves[service]
	if s == nil {
		s = &shelf{rows: map[Row]*row{}, behind: map[Row]*row{}, claim: b.applied}
		b.shelves[service] = s
	}
	return s
}

// Applied says that a revision was published. The rows that it changed something
// for were said to be behind before.
func (b *Book) Applied(revision int64) { b.applied = max(b.applied, revision) }

// Changed says that a revision, which is about to be applied, changes what the data
// planes of a service get, and whether that makes them refuse everything without a
// lease. It comes before the rows are said to be behind.
func (b *Book) Changed(service string, revision int64, leased bool) {
	s := b.shelf(service)
	if len(s.behind) == 0 {
		s.claim = max(s.claim, b.applied)
	}
	if s.leased && !leased {
		s.unbind()
	}
	s.changed, s.leased, s.removed = revision, leased, false
}

// unbind: from now on a connected row may take what it can use without a lease, and
// not say so.
func (s *shelf) unbind() {
	for _, r := range s.rows {
		r.bound = r.bound && !r.connected
	}
}

// Removed says that a revision, which is about to be applied, leaves nothing for the
// data planes of a service.
func (b *Book) Removed(service string, revision int64) {
	b.Changed(service, revision, false)
	b.shelves[service].removed = true
}

// Join books a data plane that has come, and is not in sync before it says so.
func (b *Book) Join(name Row, now time.Time) {
	s := b.shelf(name.Service)
	r := s.rows[name]
	if r == nil {
		r = &row{since: now}
		s.rows[name] = r
	}
	// Elsewhere it may have been given what is older, and does not need a lease.
	r.connected, r.inSync, r.bound, r.upTo, r.why = true, false, false, unheard, ""
	b.fall(name.Service, name)
}

// Behind says that a data plane has to confirm something, and why it has not, if
// that is known: what it has is that of the revision that was applied last.
func (b *Book) Behind(name Row, why string, now time.Time) {
	r := b.row(name)
	if r == nil {
		return
	}
	if r.why = why; !r.inSync {
		return
	}
	r.inSync, r.upTo, r.since = false, b.applied, now
	b.fall(name.Service, name)
}

// InSync says that a data plane has confirmed all that is published.
func (b *Book) InSync(name Row) {
	r := b.row(name)
	if r == nil || !r.connected {
		return
	}
	s := b.shelves[name.Service]
	r.inSync, r.bound, r.why = true, s.leased, ""
	b.rise(name.Service, name)
}

// Leave says that a data plane is gone. It has what it had.
func (b *Book) Leave(name Row, now time.Time) {
	r := b.row(name)
	if r == nil || !r.connected {
		return
	}
	if r.inSync {
		r.upTo = b.applied
	}
	r.connected, r.inSync, r.since, r.why = false, false, now, "it is gone"
	b.fall(name.Service, name)
}

func (b *Book) row(name Row) *row {
	if s := b.shelves[name.Service]; s != nil {
		return s.rows[name]
	}
	return nil
}

// fall books a row as behind. What the service could claim until now stays.
func (b *Book) fall(service string, name Row) {
	s := b.shelves[service]
	if len(s.behind) == 0 {
		s.claim = max(s.claim, b.applied)
	}
	s.behind[name] = s.rows[name]
	b.behind[service] = s
}

func (b *Book) rise(service string, name Row) {
	s := b.shelves[service]
	delete(s.behind, name)
	if len(s.behind) == 0 {
		delete(b.behind, service)
	}
}

// MayLease says whether a data plane may be given a lease, or a longer one: it has
// what its service claims here, and all that was ever revoked (rule 5). What makes
// it refuse everything without a lease it has confirmed.
func (b *Book) MayLease(name Row, floor int64) bool {
	r := b.row(name)
	if r == nil || !r.connected || !r.bound {
		return false
	}
	if r.inSync {
		return b.applied >= floor
	}
	s := b.shelves[name.Service]
	return b.bounds.Stragglers == Hold && b.has(s, r) >= max(s.claim, floor)
}

// Lease books a lease that a data plane is about to be given.
func (b *Book) Lease(name Row, end time.Time) {
	if r := b.row(name); r != nil && end.After(r.lease) {
		r.lease = end
	}
}

// blocks says whether a row that is behind holds its service back, and until when
// it does; the zero time: until it confirms.
func (b *Book) blocks(r *row, now time.Time) (bool, time.Time) {
	var until time.Time
	switch {
	case r.bound:
		// Without a lease it refuses everything, which is no worse than in sync.
		until = b.leased(r)
	case !r.connected, b.bounds.Stragglers == Grant:
		// A lease that it was given counts again if it is told again to go by leases.
		until = latest(r.since.Add(b.bounds.Grace), b.leased(r))
	default:
		return true, time.Time{}
	}
	return !now.After(until), until
}

// leased is when no lease that a row was given here lasts any more, by any clock.
func (b *Book) leased(r *row) time.Time { return r.lease.Add(b.bounds.ClockError) }

// Claims are what a Record says: the last revision applied, and the services that
// are behind. Rows that are gone, and hold nothing back any more, are forgotten.
// Next is when it may be otherwise by time alone; zero: not by time.
func (b *Book) Claims(now time.Time) (applied int64, held map[string]Held, next time.Time) {
	for service, s := range b.behind {
		h, until := b.held(s, now)
		if !until.IsZero() && (next.IsZero() || until.Before(next)) {
			next = until
		}
		if h.Count+h.Gone == 0 {
			s.claim = max(s.claim, b.applied)
			h.Claim = s.claim
		}
		if h.Count+h.Gone+h.Left == 0 {
			b.forget(service, s, now)
			continue
		}
		if held == nil {
			held = map[string]Held{}
		}
		held[service] = h
		b.forget(service, s, now)
	}
	return b.applied, held, next
}

// maxWho is how many data planes a Record names of a service.
const maxWho = 5

func (b *Book) held(s *shelf, now time.Time) (h Held, next time.Time) {
	least := b.applied
	var first []Row
	for name, r := range s.behind {
		blocks, until := b.blocks(r, now)
		switch {
		case b.has(s, r) >= b.applied:
			continue
		case !blocks && r.connected && !r.bound:
			if h.Left++; h.Left == 1 || b.has(s, r) < h.Has {
				h.Has = b.has(s, r)
			}
			first = s.among(first, name)
			continue
		case !blocks:
			continue
		}
		if !until.IsZero() && (next.IsZero() || until.Before(next)) {
			next = until
		}
		least = min(least, b.has(s, r))
		if r.connected || !now.After(b.leased(r)) {
			h.Count++
		} else {
			h.Gone++
		}
		if until.After(h.Until) {
			h.Until = until
		}
		first = s.among(first, name)
	}
	s.claim = max(s.claim, least)
	h.Claim = s.claim
	for _, name := range first {
		h.Who = append(h.Who, name.String())
	}
	if len(first) > 0 {
		h.Why = s.rows[first[0]].why
	}
	return h, next
}

// has is the last revision at which a row that is behind had everything. One that is
// gone goes on having it while nothing changes for its service.
func (b *Book) has(s *shelf, r *row) int64 {
	if r.upTo >= s.changed {
		return b.applied
	}
	return r.upTo
}

// among keeps the first of the rows by what is to be done about them, and by name.
func (s *shelf) among(first []Row, name Row) []Row {
	at, _ := slices.BinarySearchFunc(first, name, func(x, y Row) int {
		return cmp.Or(cmp.Compare(weight(s.rows[y]), weight(s.rows[x])), cmp.Compare(x.Node, y.Node), cmp.Compare(x.Instance, y.Instance))
	})
	if at == maxWho {
		return first
	}
	first = slices.Insert(first, at, name)
	return first[:min(len(first), maxWho)]
}

// weight puts those first that somebody has to act on.
func weight(r *row) int {
	switch {
	case r.connected && r.why != "":
		return 2
	case r.connected:
		return 1
	}
	return 0
}

// forget drops the rows that are gone and hold nothing back, and an empty service.
func (b *Book) forget(service string, s *shelf, now time.Time) {
	for name, r := range s.behind {
		if blocks, _ := b.blocks(r, now); !blocks && !r.connected {
			delete(s.rows, name)
			b.rise(service, name)
		}
	}
	if len(s.rows) == 0 && (s.removed || s.changed == 0) {
		delete(b.shelves, service)
	}
}
