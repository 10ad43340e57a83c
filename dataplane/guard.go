package dataplane

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
)

// guard decides on requests by what is in force. Whoever changes that swaps it
// whole, so that a request sees one moment.
type guard struct {
	now     func() time.Time
	memo    ruleset.Memo
	metrics *metrics
	live    live

	// inForce is made of rules and revocations, which whoever changes them has; without
	// one of the two it is nil: refuse everything.
	inForce     atomic.Pointer[ruleset.Ruleset]
	rules       *ruleset.Ruleset
	revocations *ruleset.Revocations
	// lease is its end, in seconds since 1970; 0: there is none.
	lease atomic.Int64
	// leaseEnd reviews what is live then; whoever calls renew has it.
	leaseEnd *time.Timer
}

// decide takes the ruleset in force, or says with which word it can't be asked.
func (g *guard) decide(req ruleset.Request) (*ruleset.Verdict, reason.Word) {
	rs, word := g.ready()
	if word != "" {
		return nil, word
	}
	return rs.Decide(req, g.now(), g.memo), ""
}

func (g *guard) ready() (*ruleset.Ruleset, reason.Word) {
	rs := g.inForce.Load()
	switch {
	case rs == nil:
		return nil, reason.NotReady
	case rs.Leased() && g.now().Unix() >= g.lease.Load():
		return nil, reason.LeaseExpired
	}
	return rs, ""
}

// put makes a ruleset the one in force, nil to refuse everything, and ends what
// would not be let in any more.
func (g *guard) put(rs *ruleset.Ruleset) {
	g.rules = rs
	g.swap()
}

// revoke is put for revocations: what is not known to be none is not taken for none.
func (g *guard) revoke(r *ruleset.Revocations) {
	g.revocations = r
	g.swap()
}

func (g *guard) swap() {
	var both *ruleset.Ruleset
	if g.rules != nil && g.revocations != nil {
		both = g.rules.Revoking(g.revocations)
	}
	g.inForce.Store(both)
	g.review()
}

// close refuses everything from now on.
func (g *guard) close() {
	g.renew(time.Time{})
	g.put(nil)
}

// renew takes the end of a lease, the zero time for none. One that would end earlier
// counts, too: the control plane has the say.
func (g *guard) renew(end time.Time) {
	if g.leaseEnd != nil {
		g.leaseEnd.Stop()
	}
	if end.IsZero() {
		g.lease.Store(0)
	} else {
		g.lease.Store(end.Unix())
		g.leaseEnd = time.AfterFunc(time.Unix(end.Unix(), 0).Sub(g.now()), g.review)
	}
	g.review()
}

// review ends what would not be let in now.
func (g *guard) review() {
	g.live.review(g.accepts, func(v *ruleset.Verdict) bool {
		rs := g.inForce.Load()
		return rs != nil && rs.Revokes(v)
	})
}

func (g *guard) accepts(req ruleset.Request) bool {
	v, word := g.decide(req)
	return word == "" && v.Decision().Allowed
}

// watch is live.watch, for what may have been decided by a ruleset that is gone since:
// whoever has replaced it may have looked through the streams before this one was there.
// A stream that may be open for long ends with the revocation of its token, whatever the
// policy says.
func (g *guard) watch(ctx context.Context, req ruleset.Request, v *ruleset.Verdict, long bool) (context.Context, *liveStream) {
	watched, stream := g.live.watch(ctx, req, v, g.now(), long)
	if stream == nil {
		return ctx, nil
	}
	if rs, word := g.ready(); word != "" || !v.By(rs) {
		g.review()
	}
	return watched, stream
}

// count books a decision, under the words that Envoy's refusals have.
func (g *guard) count(d *ruleset.Decision) {
	switch {
	case !d.Allowed:
		g.metrics.refused(d.Reason)
	case d.Observed != "":
		g.metrics.observed(d.Observed)
		g.metrics.allowed.Inc()
	default:
		g.metrics.allowed.Inc()
	}
}
