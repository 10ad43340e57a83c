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
}

// first makes a token at the first start, and takes over that of a version that
// knew no other credential.
func (a *adminTokens) first(ctx context.Context) error {
	_, err := a.store.AdminToken(ctx)
	if !errors.Is(err, store.ErrUnknown) {
		return err
	}
	token, err := a.read()
	if errors.Is(err, fs.ErrNotExist) {
		token, err = a.write()
	}
	if err != nil {
		return fmt.Errorf("the admin token: %w", err)
	}
	_, err = a.store.EnsureAdminToken(ctx, a.state(token))
	return err
}

func (a *adminTokens) path() string { return filepath.Join(a.dir, adminTokenFile) }

func (a *adminTokens) state(token string) store.AdminTokenState {
	return store.AdminTokenState{Hash: adminTokenHash(a.pepper, token), Created: time.Now().UTC()}
}

func (a *adminTokens) read() (string, error) {
	text, err := store.ReadSecret(a.path())
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if !strings.HasPrefix(token, adminTokenPrefix) || len(token) < 32 {
		return "", fmt.Errorf("%s does not hold an admin token: delete the file, the next start makes a new one", a.path())
	}
	return token, nil
}

func (a *adminTokens) write() (string, error) {
	token := adminTokenPrefix + rand.Text() + rand.Text()
	if err := os.Remove(a.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return token, store.WriteSecret(a.path(), token+"\n")
}

// RevokeAdminToken implements api.AdminTokens.
func (a *adminTokens) RevokeAdminToken(ctx context.Context, e audit.Entry) error {
	revision, err := a.store.SetAdminToken(ctx, store.AdminTokenState{Created: time.Now().UTC(), Revoked: true}, e)
	if err != nil {
		return err
	}
	if err := os.Remove(a.path()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the admin token is revoked, but its file is left: %w", err)
	}
	return a.loop.reached(ctx, revision)
}

// CreateAdminToken implements api.AdminTokens. The file comes first: a token that nobody can
// read would lock people out.
func (a *adminTokens) CreateAdminToken(ctx context.Context, e audit.Entry) (path string, err error) {
	token, err := a.write()
	if err != nil {
		return "", fmt.Errorf("writing the admin token: %w", err)
	}
	revision, err := a.store.SetAdminToken(ctx, a.state(token), e)
	if err != nil {
		return "", err
	}
	return a.path(), a.loop.reached(ctx, revision)
}
