package controlplane

import (
	"context"
	"errors"

	"github.com/watchword-mesh/watchword/controlplane/api"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/store"
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

func (c configuration) Split(s api.Step) ([]api.Step, error) {
	parts, err := c.store.Split(store.Change{Put: s.Put, Delete: s.Remove})
	if err != nil {
		return nil, err
	}
	var steps []api.Step
	for _, p := range parts {
		steps = append(steps, api.Step{Put: p.Put, Remove: p.Delete})
	}
	return steps, nil
}

func (c configuration) Commit(ctx context.Context, base int64, s api.Step) (int64, error) {
	revision, err := c.store.Commit(ctx, base, store.Change{Put: s.Put, Delete: s.Remove, Audit: s.Audit})
	return revision, conflicting(err)
}

// conflicting says in the words of the API that others have written meanwhile.
func conflicting(err error) error {
	if errors.Is(err, store.ErrConflict) {
		return errors.Join(api.ErrConflict, err)
	}
	return err
}
