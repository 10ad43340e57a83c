package controlplane

import (
	"context"
	"errors"
	"reflect"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/issuer/sts"
)

// How often the record of this replica is written: not more often than the first while
// something moves, and with the second for its clock alone.
const (
	recordPause = 100 * time.Millisecond
	clockEvery  = time.Minute
)

// records writes down how far this replica is, for the others.
type records struct {
	loop    *loop
	members *membership
	keks    func() []string
	log     hclog.Logger
	now     func() time.Time
	// claims is what the data planes of this replica have; nil: nobody says, so that
	// they have what the replica has.
	claims func(now time.Time) (applied int64, held map[string]ledger.Held, next time.Time)
	// claimed has a value when claims may say something else; nil without any.
	claimed <-chan struct{}

	// leases are told which length of a lease is written down, and say which is wanted;
	// nil: there are none.
	leases leaseLengths

	// lifetime is the longest of a token that was in force so far, and lease the longest
	// of a lease.
	lifetime, lease time.Duration
}

// leaseLengths are the leases of data planes: one of a new length is given when that is
// written down, so that others know it if this replica ends.
type leaseLengths interface {
	LongestLease() time.Duration
	SetRecordedLease(time.Duration)
}

// record is what is to be written now, and when it may be otherwise by time alone.
func (r *records) record() (out ledger.Record, next time.Time) {
	now := r.now()
	snap := r.loop.current.Load()
	r.lifetime = max(r.lifetime, lifetime(snap.Config))
	out = ledger.Record{Signing: r.members.signing(), Applied: snap.Revision, Lifetime: r.lifetime, Clock: now.UTC(), KEKs: r.keks()}
	if r.leases != nil {
		r.lease = max(r.lease, r.leases.LongestLease())
		out.Lease = r.lease
	}
	if r.claims != nil {
		// Data planes are given what is new before the issuer goes by it.
		var given int64
		given, out.Held, next = r.claims(now)
		out.Applied = min(out.Applied, given)
	}
	out.Claim = out.Applied
	return out, next
}

// lifetime of the tokens of the built-in issuer.
func lifetime(state policy.State) time.Duration {
	d := state.Issuer(policy.BuiltinIssuer).GetKeySet().GetBuiltin().GetTokenLifetime().AsDuration()
	if d == 0 {
		return sts.DefaultLifetime
	}
	return d
}

// run writes until ctx ends.
func (r *records) run(ctx context.Context) error {
	var last ledger.Record
	var by *store.Place
	for ctx.Err() == nil {
		// What moves while the record is made or written is seen afterwards.
		moved, changed, place := r.loop.moves(), r.members.change(), r.members.current()
		record, next := r.record()
		pause := recordPause
		if place != by || differs(last, record) {
			if err := place.WriteRecord(ctx, record); err == nil {
				last, by = record, place
				if r.leases != nil {
					r.leases.SetRecordedLease(record.Lease)
				}
			} else if pause = time.Second; ctx.Err() == nil && !errors.Is(err, store.ErrLost) {
				r.log.Warn("how far this replica is could not be written down; trying again", "error", err)
			}
		}
		if sleep(ctx, pause); pause > recordPause {
			continue
		}
		wake := clockEvery
		if !next.IsZero() {
			wake = min(wake, max(next.Sub(r.now()), recordPause))
		}
		wait(ctx, wake, moved, changed, r.claimed)
	}
	return nil
}

// differs says whether anything is new, or the clock old.
func differs(last, now ledger.Record) bool {
	if now.Clock.Sub(last.Clock) >= clockEvery {
		return true
	}
	last.Clock = now.Clock
	return !reflect.DeepEqual(last, now)
}

// wait is over when one of the channels says so, or after a time.
func wait(ctx context.Context, d time.Duration, a, b, c <-chan struct{}) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-a:
	case <-b:
	case <-c:
	case <-timer.C:
	}
}
