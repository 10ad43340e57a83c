package simulation

import (
	"flag"
	"strings"
	"testing"
)

var brokenSeeds = flag.Int("simulation.broken", 0, "how many seeds a broken rule may take to be noticed; 0: try the seed that is known first")

// noticed counts the broken rules that were noticed, for the summary.
var noticed int

// TestBrokenRules proves that the simulation notices when a rule is broken: each, in some
// of the first seeds.
func TestBrokenRules(t *testing.T) {
	for _, r := range rules {
		if *only != "" && !strings.HasPrefix(string(r), *only) {
			continue
		}
		var seed uint64
		ran := 0
		if known := noticedBy[r]; *brokenSeeds == 0 && known != 0 {
			seed, _, ran = run(known, 1, r)
		}
		if seed == 0 {
			seed, _, ran = run(1, max(*brokenSeeds, 400), r)
		}
		if seed == 0 {
			t.Errorf("rule %s: %d seeds did not notice", r, ran)
			continue
		}
		noticed++
		_, v := play(seed, r, newScript(seed), nil)
		t.Logf("%-70s noticed by %-8s after %4d seeds", r, v.claim, seed)
	}
}

// TestRedundantRules proves what is said of rules that cannot be noticed: that nothing
// breaks without one of them. If this fails, they have come to matter; move them.
func TestRedundantRules(t *testing.T) {
	for _, r := range redundant {
		if seed, _, _ := run(1, max(*brokenSeeds/5, 60), r); seed != 0 {
			t.Errorf("rule %s is noticed after all: %s", r, explain(seed, r))
		}
	}
}
