package controlplane

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-mesh/watchword/controlplane/store"
)

// openAdminTokens is a first start, whose loop has seen everything that will be
// written.
func openAdminTokens(t *testing.T) *adminTokens {
	t.Helper()
	k := openKEK(t, Config{})
	l := newLoop(k.config.Logger, newLoopMetrics(prometheus.NewRegistry()))
	l.current.Store(&store.Snapshot{Revision: 1 << 40})
	a := &adminTokens{store: k.store, loop: l, dir: k.config.DataDir, pepper: []byte("pepper")}
	if err := a.first(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a
}

// wantValid wants the token of the file to be the valid one, and no other file.
func (a *adminTokens) wantValid(t *testing.T, when string) (token string) {
	t.Helper()
	token, err := a.read(a.path())
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
	if state, err := a.store.AdminToken(t.Context()); err != nil || !state.Is(adminTokenHash(a.pepper, token)) {
		t.Errorf("%s: the token of the file is not valid (%v)", when, err)
	}
	if _, err := os.Stat(a.pending()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %s: %v; want that it is gone", when, a.pending(), err)
	}
	return token
}

// However many make a token at once, the one in the file is the one that is valid.
func TestAdminTokensAtOnce(t *testing.T) {
	a := openAdminTokens(t)
	first := a.wantValid(t, "at first")
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if _, err := a.CreateAdminToken(t.Context(), byRoot); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if last := a.wantValid(t, "after all"); last == first {
		t.Error("the first token is still there")
	}
}

// Where it is not known whether a new one was stored, the file follows etcd: the call
// fails and the old one stays, or the new one is there.
func TestAdminTokenOfACallerThatLeaves(t *testing.T) {
	a := openAdminTokens(t)
	for range 50 {
		before := a.wantValid(t, "before")
		gone, cancel := context.WithCancel(t.Context())
		cancel() // etcd may carry the write out for all that
		_, err := a.CreateAdminToken(gone, byRoot)
		if after := a.wantValid(t, "after it"); (err != nil) != (after == before) {
			t.Errorf("CreateAdminToken: %v, the file has another token: %v", err, after != before)
		}
	}
}

// The write of a hash that arrives late, when the old token was found valid, does not
// go through.
func TestAdminTokenIsFenced(t *testing.T) {
	a := openAdminTokens(t)
	before := a.wantValid(t, "before")
	old, err := a.store.AdminToken(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	late := newAdminToken()
	if err := store.WriteSecret(a.pending(), late+"\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.store.ReplaceAdminToken(t.Context(), old, a.state(late), byRoot); !errors.Is(err, store.ErrConflict) {
		t.Errorf("the late write: %v, want ErrConflict", err)
	}
	if after := a.wantValid(t, "after it"); after != before {
		t.Error("the file has another token")
	}
}

// A change that was broken off, before or after etcd had the hash, is ended by the
// next start.
func TestAdminTokenBrokenOff(t *testing.T) {
	a := openAdminTokens(t)
	before := a.wantValid(t, "before")
	pend := func() (token string) {
		token = newAdminToken()
		if err := store.WriteSecret(a.pending(), token+"\n"); err != nil {
			t.Fatal(err)
		}
		return token
	}
	pend()
	if err := a.first(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := a.wantValid(t, "before the hash was stored"); got != before {
		t.Error("a token that was not stored took the place of the valid one")
	}
	next := pend()
	if _, err := a.store.SetAdminToken(t.Context(), a.state(next), byRoot); err != nil {
		t.Fatal(err)
	}
	if err := a.first(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := a.wantValid(t, "after the hash was stored"); got != next {
		t.Error("the token that was stored is not in the file")
	}
}
