package controlplane

import (
	"math"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
)

// authority is until when this replica may promise things, and sign (rules 1, 2 and 8
// of docs/rotation.md). It knows no clock: times are arguments, of now with its
// monotonic part.
type authority struct {
	bounds ledger.Bounds
	// place is until when the replica surely has its place in etcd.
	place time.Time
	// needs is the revision that must have been applied since it took the place; 0:
	// it was.
	needs int64
	// until is the end of the last authority.
	until time.Time
}

// never is above all revisions.
const never = math.MaxInt64

func newAuthority(b ledger.Bounds) *authority { return &authority{bounds: b, needs: never} }

// joined takes a new place, for which etcd was asked at a time.
func (a *authority) joined(sent time.Time, revision int64) {
	a.place, a.needs = sent.Add(a.bounds.Authority), revision
}

// applied says up to where the replica has what it works with.
func (a *authority) applied(revision int64) {
	if a.needs > 0 && revision >= a.needs {
		a.needs, a.until = 0, a.place
	}
}

// renewed prolongs the place, by what was asked of etcd at a time. That counts, and not
// when the answer came: etcd's own time can't have begun earlier.
func (a *authority) renewed(sent time.Time) {
	a.place = sent.Add(a.bounds.Authority)
	if a.needs == 0 {
		a.until = a.place
	}
}

// lost ends the place: etcd says that it is gone.
func (a *authority) lost(now time.Time) {
	a.place, a.needs = time.Time{}, never
	if now.Before(a.until) {
		a.until = now
	}
}

// holds says whether the replica may promise things.
func (a *authority) holds(now time.Time) bool { return a.needs == 0 && earlier(now, a.until) }

// maySign says whether it may sign: also for a while after its authority has ended,
// but not after another place was taken, before it has all that happened meanwhile.
func (a *authority) maySign(now time.Time) bool {
	return !a.until.IsZero() && earlier(now, a.until.Add(a.bounds.Signing))
}

// earlier compares both clocks: the monotonic one stands still while the machine
// sleeps, and the other may be set back.
func earlier(now, end time.Time) bool {
	return now.Before(end) && now.Round(0).Before(end.Round(0))
}
