package api

import (
	"sync"
	"time"
)

// written remembers when the last revisions were asked for, so that a wait can
// say how long a change took from the request to the last confirmation.
type written struct {
	mu    sync.Mutex
	times [64]writtenAt
	next  int
}

type writtenAt struct {
	revision int64
	began    time.Time
}

func (w *written) add(revision int64, began time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.times[w.next%len(w.times)] = writtenAt{revision, began}
	w.next++
}

// since returns when the writer of a revision asked for it, or otherwise if
// that is not known.
func (w *written) since(revision int64, otherwise time.Time) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.times {
		if t.revision == revision && revision != 0 {
			return t.began
		}
	}
	return otherwise
}
