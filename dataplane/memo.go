package dataplane

import (
	"fmt"

	"github.com/maypok86/otter/v2"

	"github.com/watchword-mesh/watchword/dataplane/ruleset"
)

// memo remembers verified tokens in about so much memory. A token that nobody
// uses makes place for others.
type memo struct {
	cache *otter.Cache[string, *ruleset.VerifiedToken]
}

// weightOf is about what a token takes: its text, what was read of it, and what the
// cache needs.
func weightOf(text string, _ *ruleset.VerifiedToken) uint32 { return uint32(3*len(text)) + 512 }

func newMemo(bytes int) (*memo, error) {
	cache, err := otter.New(&otter.Options[string, *ruleset.VerifiedToken]{
		MaximumWeight: uint64(bytes), Weigher: weightOf,
		Executor: func(work func()) { work() }, // no goroutine that nobody waits for
	})
	if err != nil {
		return nil, fmt.Errorf("making the memory for verified tokens: %w", err)
	}
	return &memo{cache}, nil
}

// Get implements ruleset.Memo.
func (m *memo) Get(text string) *ruleset.VerifiedToken {
	t, _ := m.cache.GetIfPresent(text)
	return t
}

// Put implements ruleset.Memo.
func (m *memo) Put(text string, t *ruleset.VerifiedToken) { m.cache.Set(text, t) }
