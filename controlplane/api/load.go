package api

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/internal/failures"
	"github.com/watchword-mesh/watchword/internal/quota"
)

// What one actor may have of the admin API.
const (
	// maxCalls is how many calls run at the same time, of all actors, and of one:
	// each may have a body of 16 MiB.
	maxCalls, maxCallsOf = 256, 64
	// Calls that write: so many at once, then so many a second. Each is an entry of
	// the audit, which keeps a bounded number of them. Who may do everything is
	// not bounded.
	writesAtOnce, writesPerSecond = 1000, 20
)

// load keeps count of who makes how much work.
type load struct {
	calls *quota.Places
	// all are the places of who may do everything: others can't take them, and so not
	// keep from revoking them who has to.
	all    *quota.Places
	writes *quota.Pace
	// noise bounds the log lines about refused attempts of one source, or actor.
	noise *failures.Counter
}

func newLoad() load {
	return load{
		calls:  quota.NewPlaces(maxCalls-maxCallsOf, maxCallsOf),
		all:    quota.NewPlaces(maxCallsOf, maxCallsOf),
		writes: quota.NewPace(writesPerSecond, writesAtOnce),
		noise:  failures.New(),
	}
}

const busy = "too many calls at the same time, of this caller or of all; try again"

var errWrites = status.Errorf(codes.ResourceExhausted, "this caller makes more than %d changes a second; try again later", writesPerSecond)

// enter takes a place for a call.
func (l load) enter(a access.Actor) (leave func(), ok bool) {
	if a.Has(access.Operator) && a.Has(access.SecurityOfficer) {
		return l.all.Take(a.Name)
	}
	return l.calls.Take(a.Name)
}

// mayWrite says whether an actor may make one more change now.
func (l load) mayWrite(a access.Actor) error {
	if a.Has(access.Operator) && a.Has(access.SecurityOfficer) {
		return nil
	}
	if l.writes.Take(a.Name, 1, time.Now()) > 0 {
		return errWrites
	}
	return nil
}

// mayLog says whether there may be one more line about what is refused.
func (l load) mayLog(actor, source string) bool {
	if actor == "" {
		actor = source
	}
	wait, first := l.noise.Add(actor, time.Now())
	return wait == 0 || first
}
