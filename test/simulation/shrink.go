package simulation

import "slices"

// play runs one seed with a script.
func play(seed uint64, broken rule, script []action, story func(string)) (*world, *violation) {
	w := newWorld(seed, broken)
	w.story = story
	return w, w.run(script)
}

// shrink leaves out of a script that breaks a claim what it does not need for that: a
// half, a quarter, and so on to single actions, until none can go.
func shrink(script []action, fails func([]action) bool) []action {
	for size := (len(script) + 1) / 2; size >= 1; {
		smaller := false
		for from := 0; from < len(script); {
			without := slices.Concat(script[:from], script[min(from+size, len(script)):])
			if fails(without) {
				script, smaller = without, true
			} else {
				from += size
			}
		}
		if size == 1 && !smaller {
			break
		}
		if size > 1 {
			size /= 2
		}
	}
	return script
}
