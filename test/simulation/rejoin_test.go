package simulation

import (
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
)

// rejoin is a world in which a replica loses its place, takes a new one, and is killed d
// after it can reach etcd again, while a data plane goes by the lease that it gave, and
// takes no new keys.
func rejoin(broken rule, d time.Duration) *violation {
	w := newWorld(1, broken)
	w.bounds = ledger.Bounds{Authority: 2 * time.Second, ClockError: 20 * time.Millisecond, Signing: 15 * time.Second, Grace: time.Second, Stragglers: ledger.Hold}
	w.lease = 12 * time.Second
	w.slots = nil
	for i := range 2 {
		w.slots = append(w.slots, &slot{w: w, number: i, clock: clock{w: w}})
	}
	w.planes = []*plane{newPlane(w, 0, "x", clock{w: w}, false)}
	w.etcd.write("one service with leases", func(r *resources, _ int64) {
		r.services = map[string]service{"x": {accepts: []string{"a"}, leased: true}}
		r.settings.every = 0
	})
	return w.run([]action{
		// The other one leads.
		{at: 2 * time.Second, do: kill}, {at: 6 * time.Second, do: begin}, {at: 10 * time.Second, do: move},
		{at: 20 * time.Second, do: refuse, lasts: 30 * time.Second},
		{at: 20 * time.Second, do: loseAndKill, lasts: d},
		{at: 20500 * time.Millisecond, do: changeAlgorithm, other: 1},
	})
}

// A member that joins again takes its record along in the same transaction. Else, if it
// dies before it has written a new one, nobody knows of the leases that it gave under the
// ID of before, and keys are opened while a data plane without them goes by one. Whenever
// it dies, with the record nothing breaks.
func TestRejoin(t *testing.T) {
	var noticed *violation
	for d := time.Duration(0); d < 1500*time.Millisecond; d += 10 * time.Millisecond {
		if v := rejoin(keptAll, d); v != nil {
			t.Errorf("killed %v after it can reach etcd again: %v", d, v)
		}
		if v := rejoin(rejoinRecord, d); v != nil && noticed == nil {
			noticed = v
			t.Logf("%-70s noticed by %-8s if killed after %v: %v", rejoinRecord, v.claim, d, v)
		}
	}
	if noticed == nil {
		t.Errorf("rule %s: not noticed, whenever the member is killed", rejoinRecord)
	}
}
