package controlplane

import (
	"context"
	"errors"

	"github.com/watchword-mesh/watchword/controlplane/api"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/store"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// configuration implements api.Configuration: it reads what the loop has
// applied, and writes to the store.
type configuration struct {
	loop  *loop
	store *store.Store
}

func (c configuration) Current() (policy.State, int64) {
	s := c.loop.current.Load()
	return s.Config, s.Revision
}

func (c configuration) Reached(ctx context.Context, revision int64) error {
	return c.loop.reached(ctx, revision)
}

func (c configuration) Commit(ctx context.Context, base int64, put []*policyv1.Resource, remove []policy.Key) (int64, int, error) {
	revision, n, err := c.store.Commit(ctx, base, store.Change{Put: put, Delete: remove})
	if errors.Is(err, store.ErrConflict) {
		err = errors.Join(api.ErrConflict, err)
	}
	return revision, n, err
}
