package controlplane

import (
	"context"
	"fmt"
)

// moves is closed when the current snapshot has moved on.
func (l *loop) moves() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.moved
}

// applied is the revision of the current snapshot; 0 if there is none.
func (l *loop) applied() int64 {
	if s := l.current.Load(); s != nil {
		return s.Revision
	}
	return 0
}

// reached waits until the current snapshot is at least at a revision.
func (l *loop) reached(ctx context.Context, revision int64) error {
	for {
		moved := l.moves()
		if s := l.current.Load(); s != nil && s.Revision >= revision {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// inForce is reached for a call that has written something: its error says what
// is done for all that.
func (l *loop) inForce(ctx context.Context, revision int64, done string) error {
	ctx, cancel := context.WithTimeout(ctx, l.patience)
	defer cancel()
	if err := l.reached(ctx, revision); err != nil {
		return fmt.Errorf("%s. It was written at revision %d, but is not in force at this replica yet, which does not follow etcd (see its log): %w", done, revision, err)
	}
	return nil
}
