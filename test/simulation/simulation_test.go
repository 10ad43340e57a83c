package simulation

import (
	"flag"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

var (
	seeds = flag.Int("simulation.seeds", 150, "how many seeds TestSimulation runs")
	first = flag.Uint64("simulation.first", 1, "the first of them")
	only  = flag.String("simulation.rule", "", "the broken rules to run with, by the beginning of their names")
)

// run plays seeds, as many at a time as there are processors, until one fails. It gives
// the least seed that failed, or 0.
func run(from uint64, n int, broken rule) (failed uint64, total counts, ran int) {
	var next atomic.Uint64
	var mu sync.Mutex
	var group sync.WaitGroup
	stopped := func() bool {
		mu.Lock()
		defer mu.Unlock()
		return failed != 0
	}
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for {
				i := next.Add(1) - 1 // in order, so that the least that fails is played
				if i >= uint64(n) || stopped() {
					return
				}
				w, v := play(from+i, broken, newScript(from+i), nil)
				mu.Lock()
				total.add(w.did)
				ran++
				if v != nil && (failed == 0 || from+i < failed) {
					failed = from + i
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return failed, total, ran
}

// explain tells how a seed fails, with as little of its script as is needed for that.
func explain(seed uint64, broken rule) string {
	script := newScript(seed)
	_, v := play(seed, broken, script, nil)
	if v == nil {
		return "it does not fail"
	}
	script = shrink(script, func(s []action) bool {
		_, again := play(seed, broken, s, nil)
		return again != nil && again.claim == v.claim
	})
	var lines []string
	w, v := play(seed, broken, script, func(line string) { lines = append(lines, line) })
	return fmt.Sprintf("%v\n%v\nrule broken on purpose: %q\nscript of %d actions, marked *, and what came of them:\n%s", v, w, broken, len(script), strings.Join(lines, "\n"))
}

// TestSimulation proves that no seed breaks a claim: what the package's comment says.
func TestSimulation(t *testing.T) {
	began := time.Now()
	failed, n, ran := run(*first, *seeds, keptAll)
	if failed != 0 {
		t.Fatalf("seed %d: %s", failed, explain(failed, keptAll))
	}
	for _, row := range []struct {
		what  string
		count int
	}{
		{"seeds", ran}, {"steps", n.steps}, {"rotations begun", n.rotations}, {"revocations", n.revocations},
		{"emergency revocations", n.emergencies}, {"receipts", n.receipts}, {"crashes", n.crashes}, {"cuts", n.cuts},
		{"tokens minted", n.tokens}, {"checks of all claims", n.checks},
	} {
		t.Logf("%-22s %10d", row.what, row.count)
	}
	t.Logf("simulation: %d seeds in %.1f s, 0 broken claims; %d of %d rules broken on purpose were noticed by seeds", ran, time.Since(began).Seconds(), noticed, len(rules))
}

// Equal seeds give equal runs: a failure can be played again.
func TestSameSeedSameRun(t *testing.T) {
	for seed := range uint64(5) {
		var stories [2]strings.Builder
		for i := range stories {
			play(seed, keptAll, newScript(seed), func(line string) { fmt.Fprintln(&stories[i], line) })
		}
		if stories[0].String() != stories[1].String() {
			t.Errorf("seed %d went otherwise the second time", seed)
		}
	}
}

// A script is shrunk to what breaks a claim, and not further.
func TestShrink(t *testing.T) {
	script := newScript(1)
	needs := func(s []action) bool {
		tokens, moves := 0, 0
		for _, a := range s {
			if a.do == mint {
				tokens++
			}
			if a.do == move {
				moves++
			}
		}
		return tokens >= 2 && moves >= 1
	}
	if got := shrink(script, needs); len(got) != 3 || !needs(got) {
		t.Errorf("shrunk from %d actions to %v, want two tokens and a move", len(script), got)
	}
}
