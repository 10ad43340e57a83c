package simulation

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// chaos is how long things happen, before everything heals.
const chaos = 90 * time.Second

// action is one thing that happens in a run.
type action struct {
	at time.Duration
	do deed
	// who is a replica, a data plane or a service; other is a second one, or a choice.
	who, other int
	// lasts is for what ends by itself.
	lasts time.Duration
}

// deed is a kind of action.
type deed int

// The deeds.
const (
	mint deed = iota
	kill
	stopCleanly
	begin
	pause
	cutOff
	lagMain
	lagCluster
	move
	cutStream
	refuse
	restart
	slowPlane
	ask
	reschedule
	changeAlgorithm
	changeLifetime
	changeLease
	makeService
	deleteService
	switchLease
	changeAudiences
	revokeSubject
	revokeIssued
	revokeKey
	revokeAllKeys
	shiftClock
	loseAndKill
	deeds
)

// weights say how often each comes up.
var weights = [deeds]int{
	kill: 5, stopCleanly: 3, begin: 10, pause: 5, cutOff: 6, lagMain: 5, lagCluster: 3, move: 12, cutStream: 6,
	refuse: 6, restart: 5, slowPlane: 4, ask: 6, reschedule: 1, changeAlgorithm: 1, changeLifetime: 3, changeLease: 2,
	makeService: 3, deleteService: 1, switchLease: 8, changeAudiences: 3, revokeSubject: 2, revokeIssued: 3, revokeKey: 2,
	revokeAllKeys: 1, shiftClock: 3, loseAndKill: 4,
}

var told = [deeds]string{
	mint: "a caller wants a token of replica %d, of kind %d", kill: "replica %d is killed (%d)", stopCleanly: "replica %d stops (%d)", begin: "replica %d starts, if it is down (%d)",
	pause: "replica %d stands still (%d)", cutOff: "replica %d is cut off from etcd (%d)", lagMain: "replica %d hears of resources late (%d)", lagCluster: "replica %d hears of the cluster late (%d)",
	move: "data plane %d moves to replica %d", cutStream: "data plane %d loses its stream (%d)", refuse: "data plane %d refuses what it gets (%d)", restart: "data plane %d restarts, with its file if 1: %d", slowPlane: "data plane %d is slow (%d)",
	ask: "somebody (%d) asks for a rotation (%d)", reschedule: "rotation is scheduled otherwise: %d, %d", changeAlgorithm: "another algorithm: %[2]d (%[1]d)", changeLifetime: "another lifetime: %[2]d (%[1]d)", changeLease: "another length of leases: %[2]d (%[1]d)",
	makeService: "service %d is made, with leases if 1: %d", deleteService: "service %d is deleted (%d)", switchLease: "service %d has leases from now, or no more (%d)", changeAudiences: "service %d accepts other audiences: %d",
	revokeSubject: "replica %d revokes subject %d", revokeIssued: "replica %d revokes what was issued to subject %d", revokeKey: "replica %d revokes key %d", revokeAllKeys: "replica %d revokes all keys (%d)",
	loseAndKill: "replica %d is cut off until it has lost its place, and killed later (%d)",
	shiftClock:  "the clock of %d goes to the other end (%d)",
}

func (a action) String() string {
	text := fmt.Sprintf(told[a.do], a.who, a.other)
	if a.lasts > 0 {
		text += fmt.Sprintf(" for %.1f s", a.lasts.Seconds())
	}
	return text
}

// newScript makes what happens with a seed.
func newScript(seed uint64) []action {
	rng := rand.New(rand.NewPCG(seed, 2))
	total := 0
	for _, n := range weights {
		total += n
	}
	script := make([]action, 20+rng.IntN(90))
	for i := range script {
		n, d := rng.IntN(total), deed(0)
		for n >= weights[d] {
			n -= weights[d]
			d++
		}
		script[i] = action{at: between(rng, 2*time.Second, chaos-5*time.Second), do: d, who: rng.IntN(12), other: rng.IntN(36)}
		switch d {
		case pause, cutOff, lagMain, lagCluster, refuse, slowPlane:
			script[i].lasts = between(rng, 300*time.Millisecond, 15*time.Second)
		case loseAndKill:
			script[i].lasts = between(rng, 50*time.Millisecond, time.Second)
		}
	}
	// Who has lost its place and dies is worst when a key is due to be published, and a
	// data plane of it takes nothing new.
	for _, a := range script {
		if a.do == loseAndKill && rng.IntN(2) == 0 {
			script = append(script,
				action{at: a.at, do: refuse, who: rng.IntN(12), lasts: 15 * time.Second},
				action{at: a.at + between(rng, 0, 2*time.Second), do: changeAlgorithm, who: a.who, other: rng.IntN(2)})
		}
	}
	for at := time.Second; at < chaos; at += between(rng, 50*time.Millisecond, 700*time.Millisecond) {
		script = append(script, action{at: at, do: mint, who: rng.IntN(12), other: rng.IntN(36)})
	}
	slices.SortStableFunc(script, func(a, b action) int { return int(a.at - b.at) })
	return script
}
