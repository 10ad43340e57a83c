package ledger

import (
	"maps"
	"slices"
	"time"
)

// Observer remembers of a Cluster what only who has watched it can know: since when
// members are gone, and when all had applied a revision. It belongs to one goroutine.
type Observer struct {
	bounds  Bounds
	cluster Cluster
	// gone is when a member was first seen without its lease in etcd.
	gone map[string]time.Time
	// applied is when all members alive were first seen to have applied a revision,
	// rising in both.
	applied []appliedAt
}

type appliedAt struct {
	revision int64
	at       time.Time
}

// NewObserver makes one that has seen nothing.
func NewObserver(b Bounds) *Observer { return &Observer{bounds: b, gone: map[string]time.Time{}} }

// See takes what is stored now, and when now is. It is never older than what was
// seen before.
func (o *Observer) See(c Cluster, now time.Time) {
	o.cluster = c
	for id := range o.gone {
		if _, member := c.Members[id]; !member {
			delete(o.gone, id)
		}
	}
	for id := range c.Members {
		if _, seen := o.gone[id]; !c.Alive[id] && !seen {
			o.gone[id] = now
		}
	}
	o.seeApplied(now)
}

// keepApplied bounds what is remembered; of what is older the oldest time counts.
const keepApplied = 64

func (o *Observer) seeApplied(now time.Time) {
	revision, ok := o.allApplied()
	if last := len(o.applied) - 1; !ok || last >= 0 && o.applied[last].revision >= revision {
		return
	}
	o.applied = append(o.applied, appliedAt{revision, now})
	if len(o.applied) > keepApplied {
		o.applied = slices.Delete(o.applied, 0, 1)
	}
}

// allApplied is the revision that all members alive have applied; false if one of
// them has not said, or there is none.
func (o *Observer) allApplied() (int64, bool) {
	least, any := int64(0), false
	for id := range o.cluster.Alive {
		r, wrote := o.cluster.Records[id]
		if !wrote {
			return 0, false
		}
		if !any || r.Applied < least {
			least, any = r.Applied, true
		}
	}
	return least, any
}

// AppliedSince is since when all members alive have applied a revision, as far as the
// Observer has seen; false if they have not. Readers of the JWKS endpoint may have
// what was before for as long as its max-age says.
func (o *Observer) AppliedSince(revision int64) (time.Time, bool) {
	for _, a := range o.applied {
		if a.revision >= revision {
			return a.at, true
		}
	}
	return time.Time{}, false
}

// Cluster is what was seen last.
func (o *Observer) Cluster() Cluster { return o.cluster }

// Wait is one thing that something waits for.
type Wait struct {
	// Member that it is about; empty if it is about none.
	Member string
	// Service whose data planes are behind; empty if it is the member itself.
	Service string
	// Held is how far they are, if Service is set.
	Held Held
	// Why it is waited for.
	Why Why
	// Until is when it ends by itself; zero if it does not.
	Until time.Time
}

// Why is a reason to wait.
type Why string

// The values of Why.
const (
	// NotApplied: the member has not applied the revision.
	NotApplied Why = "not applied"
	// Behind: data planes that are connected to the member have not confirmed it.
	Behind Why = "behind"
	// Departed: the member is gone, and data planes may still go by what it gave them.
	Departed Why = "departed"
	// MaySign: the member is gone, and may still sign with the older key.
	MaySign Why = "may still sign"
)

// Gate says what a revision, at which a key was published, still has to come to
// before the key may sign for tokens that these services verify: nothing, if there is
// no wait (rule 7, but for readers of the JWKS endpoint).
func (o *Observer) Gate(published int64, services []string, now time.Time) []Wait {
	waits := o.blind()
	for _, id := range o.members() {
		r, wrote := o.cluster.Records[id]
		switch alive := o.cluster.Alive[id]; {
		case alive && (!wrote || r.Applied < published):
			waits = append(waits, Wait{Member: id, Why: NotApplied})
		case alive:
			waits = append(waits, r.behind(id, published, services)...)
		case wrote && r.Applied >= published && len(r.behind(id, published, services)) == 0:
			// What it gave its data planes later is no older.
		default:
			if until := o.forgotten(id); !now.After(until) {
				waits = append(waits, Wait{Member: id, Why: Departed, Until: until})
			}
		}
	}
	return waits
}

// blind is a wait if no member that was seen is alive. Only what a member that is alive
// has written shows that what was seen is later than the revision that is asked for:
// others may have joined, before it, that were not seen.
func (o *Observer) blind() []Wait {
	if len(o.cluster.Alive) > 0 {
		return nil
	}
	return []Wait{{Why: NotApplied}}
}

// members are all, in order.
func (o *Observer) members() []string {
	return slices.Sorted(maps.Keys(o.cluster.Members))
}

// behind are the services of some that the member does not claim a revision for.
func (r Record) behind(id string, revision int64, services []string) []Wait {
	var waits []Wait
	for _, name := range services {
		if h, held := r.Held[name]; held && h.Claim < revision {
			waits = append(waits, Wait{Member: id, Service: name, Held: h, Why: Behind, Until: h.Until})
		}
	}
	return waits
}

// forgotten is when the data planes of a departed member go by nothing any more that
// it gave them (rule 6).
func (o *Observer) forgotten(id string) time.Time {
	return o.gone[id].Add(max(o.cluster.Records[id].Lease+2*o.bounds.ClockError, o.bounds.Grace))
}

// Unsigned says what it still has to come to before nobody signs by what was before a
// change of the open record: nothing, if there is no wait (rule 10).
func (o *Observer) Unsigned(open int64, now time.Time) []Wait {
	waits := o.blind()
	for _, id := range o.members() {
		r, wrote := o.cluster.Records[id]
		if wrote && (r.Applied >= open || r.SigningStopped) {
			continue
		}
		if o.cluster.Alive[id] {
			waits = append(waits, Wait{Member: id, Why: NotApplied})
		} else if until := o.gone[id].Add(o.signing(r) + o.bounds.ClockError); !now.After(until) {
			waits = append(waits, Wait{Member: id, Why: MaySign, Until: until})
		}
	}
	return waits
}

// signing is how long a departed member may go on signing: what it goes by itself, if
// that is longer than what holds now.
func (o *Observer) signing(r Record) time.Duration { return max(o.bounds.Signing, r.Signing) }

// SetBounds changes what is waited for, from now on.
func (o *Observer) SetBounds(b Bounds) { o.bounds = b }

// Lifetime is the longest of a token that any member has signed.
func (o *Observer) Lifetime() time.Duration {
	var longest time.Duration
	for _, r := range o.cluster.Records {
		longest = max(longest, r.Lifetime)
	}
	return longest
}

// Receipt says what a revision still waits for at the data planes of some services,
// and what is not known and not waited for (rule 12): departed members, and data
// planes without a lease that are gone.
func (o *Observer) Receipt(revision int64, services []string, now time.Time) (waits, unknown []Wait) {
	for _, w := range o.Gate(revision, services, now) {
		switch {
		case w.Why == Departed, w.Why == Behind && w.Held.Count == 0:
			unknown = append(unknown, w)
		default:
			waits = append(waits, w)
		}
	}
	return waits, append(unknown, o.left(revision, services)...)
}

// left are the services with data planes that are connected, and that keys wait for no
// more, though they do not have a revision.
func (o *Observer) left(revision int64, services []string) []Wait {
	var list []Wait
	for _, id := range o.members() {
		for _, name := range services {
			h := o.cluster.Records[id].Held[name]
			if h.Left > 0 && h.Has < revision && h.Claim >= revision {
				list = append(list, Wait{Member: id, Service: name, Held: h, Why: Behind})
			}
		}
	}
	return list
}

// Forgettable are the departed members of which nothing is waited for any more,
// whatever is asked.
func (o *Observer) Forgettable(now time.Time) []string {
	var ids []string
	for id, since := range o.gone {
		r := o.cluster.Records[id]
		// While tokens of it are valid, their longest life must be known.
		end := latest(o.forgotten(id), since.Add(r.Lifetime+2*o.bounds.ClockError))
		if !r.SigningStopped {
			end = latest(end, since.Add(o.signing(r)+r.Lifetime+2*o.bounds.ClockError))
		}
		if now.After(end) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// Next is the first end of some waits; zero if none ends by itself.
func Next(waits []Wait) time.Time {
	var next time.Time
	for _, w := range waits {
		if !w.Until.IsZero() && (next.IsZero() || w.Until.Before(next)) {
			next = w.Until
		}
	}
	return next
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
