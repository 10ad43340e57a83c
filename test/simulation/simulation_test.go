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
	seeds = flag.Int("simulation.seeds", 300, "how many seeds TestSimulation runs")
	first = flag.Uint64("simulation.first", 1, "the first of them")
	only  = flag.String("simulation.rule", "", "the broken rule to run with, by the beginning of its name")
)

// run plays seeds, as many at a time as there are processors, until one fails. It gives
// the seed that failed, or 0.
func run(from uint64, n int, broken rule) (failed uint64, total counts, ran int) {
	var next, stop atomic.Uint64
	var mu sync.Mutex
	var group sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= uint64(n) || stop.Load() != 0 && from+i > stop.Load() {
					return
				}
				seed := from + i
				w, v := play(seed, broken, newScript(seed), nil)
				mu.Lock()
				total.add(w.did)
				ran++
				if v != nil && (failed == 0 || seed < failed) {
					failed = seed
					stop.Store(seed)
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
	var broken rule
	for _, r := range rules {
		if *only != "" && strings.HasPrefix(string(r), *only) {
			broken = r
		}
	}
	failed, n, ran := run(*first, *seeds, broken)
	if failed != 0 {
		t.Fatalf("seed %d: %s", failed, explain(failed, broken))
	}
	t.Logf("%d seeds in %v: %+v", ran, time.Since(began).Round(time.Millisecond), n)
}
