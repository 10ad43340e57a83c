package controlplane

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
)

// replicas says who serves, and what of it keeps keys and revocations waiting.
func (d *diagnosis) replicas(out *findings) {
	if d.members == nil {
		return
	}
	const subject = "replicas"
	if until, ok := d.members.holds(); !ok {
		out.problem(subject, "bring etcd back, or look at the network to it; data planes go on", "this one is cut off from etcd since %s", until.Format(time.RFC3339))
	}
	var c ledger.Cluster
	d.cluster.observe(func(o *ledger.Observer) { c = o.Cluster() })
	off := d.cluster.clocksOff()
	for _, id := range slices.Sorted(maps.Keys(off)) {
		out.problem(subject, "set the clocks of both machines, such as by NTP", "the clock of %s differs from the one here by %s, allowed are %s", named(c.Members[id]), off[id].Round(time.Millisecond), d.config.Bounds.ClockError)
	}
	for _, id := range slices.Sorted(maps.Keys(c.Members)) {
		if !c.Alive[id] && !c.Records[id].SigningStopped {
			out.warn(subject, "if that process is gone for good, nothing is to be done: it is forgotten by itself", "%s went without a word: keys that it may sign with stay until it is sure that it does not", named(c.Members[id]))
		}
	}
	leader := "nobody"
	if m, ok := c.Members[c.Leader]; ok {
		leader = named(m)
	}
	out.ok(subject, "%d alive, %s leads", len(c.Alive), leader)
}

// named is a replica for people.
func named(m ledger.Member) string {
	return fmt.Sprintf("%s (%s, process %d)", m.Host, m.Address, m.PID)
}
