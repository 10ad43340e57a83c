package controlplane

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/store"
)

// adminTokens looks after the admin token: the credential of the first start, for
// who has no role yet. etcd has its hash and whether it is valid, so that all
// replicas know when it ends; a file in the data folder has the token.
type adminTokens struct {
	store  *store.Store
	loop   *loop
	dir    string
	pepper []byte
	// changing lets one change be made at a time: file and etcd belong together.
	changing sync.Mutex
}

// first makes a token at the first start, and takes over that of a version that
// knew no other credential. At later ones it ends a change that was broken off.
func (a *adminTokens) first(ctx context.Context) error {
	_, err := a.store.AdminToken(ctx)
	if err == nil {
		_, err = a.settle(ctx)
		return err
	}
	if !errors.Is(err, store.ErrUnknown) {
		return err
	}
	token, err := a.read(a.path())
	if errors.Is(err, fs.ErrNotExist) {
		token = newAdminToken()
		err = store.WriteSecret(a.path(), token+"\n")
	}
	if err != nil {
		return fmt.Errorf("the admin token: %w", err)
	}
	_, err = a.store.EnsureAdminToken(ctx, a.state(token))
	return err
}

func newAdminToken() string { return adminTokenPrefix + rand.Text() + rand.Text() }

func (a *adminTokens) path() string { return filepath.Join(a.dir, adminTokenFile) }

func (a *adminTokens) state(token string) store.AdminTokenState {
	return store.AdminTokenState{Hash: adminTokenHash(a.pepper, token), Created: time.Now().UTC()}
}

func (a *adminTokens) read(path string) (string, error) {
	text, err := store.ReadSecret(path)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if !strings.HasPrefix(token, adminTokenPrefix) || len(token) < 32 {
		return "", fmt.Errorf("%s %w: delete the file, the next start makes a new one", path, errNoToken)
	}
	return token, nil
}

// errNoToken is what is said of a file with something else in it.
var errNoToken = errors.New("does not hold an admin token")

// pending has a new token until it is known whether etcd has its hash.
func (a *adminTokens) pending() string { return a.path() + ".new" }

// settle makes the file follow etcd: a pending token takes its place if it is the
// one that is valid, and goes if not. It returns what is valid.
func (a *adminTokens) settle(ctx context.Context) (store.AdminTokenState, error) {
	state, err := a.store.AdminToken(ctx)
	if err != nil {
		return state, err
	}
	token, err := a.read(a.pending())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return state, nil
	case errors.Is(err, errNoToken):
		return state, remove(a.pending()) // written in part: its hash was never stored
	case err != nil:
		return state, err // it may be the one that is valid
	case state.Is(adminTokenHash(a.pepper, token)):
		return state, store.MoveSecret(a.pending(), a.path())
	}
	// The write of its hash may still be on its way. It must not come after this.
	state.Revision, err = a.store.ReplaceAdminToken(ctx, state, state, audit.Entry{})
	if errors.Is(err, store.ErrConflict) {
		return a.settle(ctx)
	}
	if err != nil {
		return state, err
	}
	return state, remove(a.pending())
}

// remove is for a file that may be gone.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// RevokeAdminToken implements api.AdminTokens.
func (a *adminTokens) RevokeAdminToken(ctx context.Context, e audit.Entry) error {
	a.changing.Lock()
	defer a.changing.Unlock()
	revision, err := a.store.SetAdminToken(ctx, store.AdminTokenState{Created: time.Now().UTC(), Revoked: true}, e)
	if err != nil {
		return err
	}
	if err := errors.Join(remove(a.pending()), remove(a.path())); err != nil {
		return fmt.Errorf("the admin token is revoked, but its file is left: %w", err)
	}
	return a.loop.inForce(ctx, revision, "the admin token is revoked")
}

// CreateAdminToken implements api.AdminTokens. The new token is on disk before it is
// valid, since one that nobody can read would lock people out, and takes the place of
// the old one when etcd has its hash: if it gets none, the old one stays.
func (a *adminTokens) CreateAdminToken(ctx context.Context, e audit.Entry) (path string, err error) {
	a.changing.Lock()
	defer a.changing.Unlock()
	old, err := a.settle(ctx)
	if err != nil {
		return "", fmt.Errorf("ending an earlier change of the admin token: %w", err)
	}
	token := newAdminToken()
	if err := store.WriteSecret(a.pending(), token+"\n"); err != nil {
		return "", fmt.Errorf("writing the admin token: %w", err)
	}
	next := a.state(token)
	_, err = a.store.ReplaceAdminToken(ctx, old, next, e)
	// Without an answer it may be stored for all that, also if the caller is gone.
	judging, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	now, settled := a.settle(judging)
	switch {
	case settled != nil:
		return "", errors.Join(err, fmt.Errorf("which admin token is valid is not known yet: it is in %s or in %s, and the next start, or the next `watchword admin-token create`, finds out: %w", a.path(), a.pending(), settled))
	case !now.Is(next.Hash):
		return "", errors.Join(err, errors.New("the admin token of before is still valid"))
	}
	return a.path(), a.loop.inForce(ctx, now.Revision, "the new admin token is in "+a.path())
}
