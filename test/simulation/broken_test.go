package simulation

import (
	"flag"
	"strings"
	"testing"
)

var brokenSeeds = flag.Int("simulation.broken", 400, "how many seeds a broken rule may take to be noticed")

// TestBrokenRules proves that the simulation notices when a rule is broken: each, in some
// of the first seeds.
func TestBrokenRules(t *testing.T) {
	for _, r := range rules {
		if *only != "" && !strings.HasPrefix(string(r), *only) {
			continue
		}
		seed, _, ran := run(1, *brokenSeeds, r)
		if seed == 0 {
			t.Errorf("rule %s: %d seeds did not notice", r, ran)
			continue
		}
		_, v := play(seed, r, newScript(seed), nil)
		t.Logf("%-70s noticed by %-8s after %4d seeds", r, v.claim, seed)
	}
}
