package store

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/watchword-mesh/watchword/issuer/clientauth"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// load is people and data planes at work: it counts calls and gathers those that
// failed, until stop.
type load struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	mu     sync.Mutex
	called sync.Cond
	calls  map[string]int
	failed []error
}

func startLoad(t *testing.T, s *Store, name string) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{cancel: cancel, calls: map[string]int{}}
	l.called.L = &l.mu
	base := mustRevision(t, s)
	l.each(ctx, "commit", func(n int) (err error) {
		base, err = s.Commit(t.Context(), base, Change{Put: []*policyv1.Resource{shared(fmt.Sprintf("load-%s-%d", name, n%7), fmt.Sprintf("c2VjcmV0%04d", n))}, Audit: entry("Apply")})
		return err
	})
	l.each(ctx, "enrol", func(n int) error {
		i, err := s.Enrol(t.Context(), instance("a", fmt.Sprintf("%s-%d", name, n)), nil, entry("Enrol"))
		if err == nil {
			err = s.Renew(t.Context(), i)
		}
		return err
	})
	l.each(ctx, "secret", func(n int) error {
		_, err := s.AddSecret(t.Context(), clientauth.Secret{ID: fmt.Sprint(name, n), Service: "a"}, entry("CreateClientSecret"))
		return err
	})
	l.each(ctx, "load", func(int) error {
		snap, err := s.Load(t.Context())
		if err == nil && (len(snap.Keys) != 2 || len(snap.CAs) != 1) {
			err = fmt.Errorf("a snapshot without its keys")
		}
		return err
	})
	l.each(ctx, "init", func(int) error {
		_, _, err := s.Init(t.Context(), builtin())
		return err
	})
	return l
}

func (l *load) each(ctx context.Context, what string, call func(n int) error) {
	l.wg.Go(func() {
		for n := 0; ctx.Err() == nil; n++ {
			err := call(n)
			l.mu.Lock()
			l.calls[what]++
			l.called.Broadcast()
			if err != nil {
				l.failed = append(l.failed, fmt.Errorf("%s %d: %w", what, n, err))
			}
			l.mu.Unlock()
		}
	})
}

// kinds are the calls that a load makes.
var kinds = []string{"commit", "enrol", "secret", "load", "init"}

// round returns when each kind has had two more calls: of the second, all fell
// into the time since.
func (l *load) round() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, what := range kinds {
		for from := l.calls[what]; l.calls[what] < from+2; {
			l.called.Wait()
		}
	}
}

func (l *load) stop(t *testing.T) {
	t.Helper()
	l.cancel()
	l.wg.Wait()
	for _, err := range l.failed {
		t.Errorf("during the rotation: %v", err)
	}
	for _, what := range kinds {
		if l.calls[what] == 0 {
			t.Errorf("no call of %s during the rotation", what)
		}
	}
	t.Logf("calls during the rotation: %v, failed: %d", l.calls, len(l.failed))
}
