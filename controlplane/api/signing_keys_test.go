package api

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// turning are SigningKeys whose list a test sets.
type turning struct {
	backend
	mu      sync.Mutex
	active  string
	changed chan struct{}
	broken  error
}

func (k *turning) ListSigningKeys(context.Context) (*adminv1.SigningKeys, <-chan struct{}, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return &adminv1.SigningKeys{Active: k.active}, k.changed, k.broken
}

func (k *turning) set(active string, broken error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.active, k.broken = active, broken
	if k.changed != nil {
		close(k.changed)
	}
	k.changed = make(chan struct{})
}

// sentKeys is the server's side of a stream.
type sentKeys struct {
	grpc.ServerStream
	ctx context.Context
	got []string
}

func (s *sentKeys) Context() context.Context { return s.ctx }

func (s *sentKeys) Send(r *adminv1.WatchSigningKeysResponse) error {
	s.got = append(s.got, r.GetSigningKeys().GetActive())
	return nil
}

// The list is sent at once, again when it is another, and not for each of many changes
// in a short time; what is as before is not sent.
func TestWatchSigningKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := open(t)
		keys := &turning{}
		s.SigningKeys = keys
		keys.set("k1", nil)
		stream := &sentKeys{ctx: by("viewer")}
		done := make(chan error)
		go func() { done <- s.WatchSigningKeys(&adminv1.WatchSigningKeysRequest{}, stream) }()
		synctest.Wait()
		for _, active := range []string{"k1", "k2", "k3", "k4", "k4", "k5"} {
			time.Sleep(40 * time.Millisecond)
			keys.set(active, nil)
			synctest.Wait()
		}
		time.Sleep(time.Second)
		keys.set("k5", errors.New("etcd did not answer"))
		wantError(t, <-done, codes.Unavailable, "etcd did not answer")
		if got := strings.Join(stream.got, " "); got != "k1 k2 k4 k5" {
			t.Errorf("sent %q; want k1 at once, k2 after 100 ms, k4 after 200, and k5", got)
		}
	})
}

// A watch of which nothing comes ends with the longest wait.
func TestWatchSigningKeysEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := open(t)
		keys := &turning{}
		s.SigningKeys = keys
		keys.set("k1", nil)
		began := time.Now()
		err := s.WatchSigningKeys(&adminv1.WatchSigningKeysRequest{}, &sentKeys{ctx: by("viewer")})
		wantError(t, err, codes.DeadlineExceeded, "")
		if took := time.Since(began); took != mostWait {
			t.Errorf("it ended after %s, want %s", took, mostWait)
		}
	})
}

// A rotation that can't begin is the caller's to prepare.
func TestRotateSigningKeyPrecondition(t *testing.T) {
	s, _ := open(t)
	b := withBackend(s)
	b.fail = Precondition("three keys are published")
	_, err := s.RotateSigningKey(by("officer"), &adminv1.RotateSigningKeyRequest{})
	wantError(t, err, codes.FailedPrecondition, "three keys are published")
}
