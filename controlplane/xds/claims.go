package xds

import (
	"sync"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
)

// defaultBounds are those of a Config without any.
var defaultBounds = ledger.Bounds{
	Authority:  10 * time.Second,
	ClockError: time.Second,
	Signing:    12 * time.Hour,
	Grace:      30 * time.Second,
	Stragglers: ledger.Hold,
}

// claims are the ledger's Book of our data planes, under a lock that is taken last
// and held for a few assignments.
type claims struct {
	mu   sync.Mutex
	book *ledger.Book
	// changed has one place, and is full while nobody has looked at a change.
	changed chan struct{}
}

func newClaims(b ledger.Bounds) *claims {
	if b == (ledger.Bounds{}) {
		b = defaultBounds
	}
	return &claims{book: ledger.NewBook(b), changed: make(chan struct{}, 1)}
}

// write changes the book, and says so.
func (c *claims) write(do func(*ledger.Book)) {
	c.mu.Lock()
	do(c.book)
	c.mu.Unlock()
	c.wake()
}

// SetBounds changes what is done about data planes that are behind, from now on.
func (s *Server) SetBounds(b ledger.Bounds) {
	s.claims.write(func(book *ledger.Book) { book.SetBounds(b) })
}

func (c *claims) wake() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// Claims are what this server can say of its data planes: see [ledger.Book.Claims].
// There may be others by time alone from next on, which is zero if there won't.
func (s *Server) Claims(now time.Time) (applied int64, held map[string]ledger.Held, next time.Time) {
	s.claims.mu.Lock()
	defer s.claims.mu.Unlock()
	return s.claims.book.Claims(now)
}

// ClaimsChanged has an element when Claims may have changed since one was taken out,
// but by time. During a push each ACK is a change: who writes them down waits a
// little before it looks. It is for one reader.
func (s *Server) ClaimsChanged() <-chan struct{} { return s.claims.changed }

func (r *row) booked() ledger.Row {
	return ledger.Row{Service: r.service.name, Instance: r.instance, Node: r.node}
}

// book says of a row in the Book what was just decided about it.
func (svc *service) book(r *row) {
	name, now := r.booked(), svc.server.now()
	why := ""
	if r.refusing && !r.inSync {
		why = svc.refusal(r)
	}
	r.refusing = why != ""
	svc.server.claims.write(func(b *ledger.Book) {
		if r.inSync {
			b.InSync(name)
		} else {
			b.Behind(name, why, now)
		}
	})
}

// bookChange says in the Book what a revision changes, before rows are judged by it.
func (svc *service) bookChange(revision int64) {
	svc.server.claims.write(func(b *ledger.Book) {
		if len(svc.content) == 0 {
			b.Removed(svc.name, revision)
		} else {
			b.Changed(svc.name, revision, svc.lease > 0)
		}
	})
}

// refusal says what a row refuses of today's content, and why; empty if nothing.
func (svc *service) refusal(r *row) string {
	for _, it := range r.items() {
		if !it.synced && it.refused == it.want {
			return it.refusalText()
		}
	}
	return ""
}
