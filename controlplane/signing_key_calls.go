package controlplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/api"
	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/rotation"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/issuer/keyset"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// signingKeys implements api.SigningKeys.
type signingKeys struct {
	moments
	store keyStore
}

// ListSigningKeys implements api.SigningKeys.
func (s *signingKeys) ListSigningKeys(context.Context) (resp *adminv1.SigningKeys, changed <-chan struct{}, err error) {
	changed = either(s.loop.moves(), s.cluster.change(), lookAgain)
	s.at(func(m rotation.Moment) { resp = signingKeyList(m) })
	return resp, changed, nil
}

// either is closed when one of both is, or after a time.
func either(a, b <-chan struct{}, most time.Duration) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		wait(context.Background(), most, a, b, nil)
	}()
	return done
}

// keyTries is how often a change of the keys is tried that others come before.
const keyTries = 10

// change writes what decide makes of the keys of the moment, and returns when it is in
// force here. An empty change is none.
func (s *signingKeys) change(ctx context.Context, e audit.Entry, decide func(rotation.Moment) (keyset.Change, error)) (change keyset.Change, revision int64, err error) {
	for range keyTries {
		var c store.KeyChange
		moved := s.loop.moves()
		s.at(func(m rotation.Moment) {
			change, err = decide(m)
			c = fence(m.Keys)
		})
		if err != nil || change.Empty() {
			return change, 0, err
		}
		c.Put, c.Delete, c.Open, c.Floor, c.Audit = change.Put, change.Delete, change.Open, change.Removes, e
		revision, err = s.store.CommitKeys(ctx, c)
		if !errors.Is(err, store.ErrConflict) {
			break
		}
		wait(ctx, lookAgain, moved, nil, nil)
	}
	if err != nil {
		return change, 0, err
	}
	return change, revision, s.loop.inForce(ctx, revision, "the signing keys are changed")
}

// RotateSigningKey implements api.SigningKeys.
func (s *signingKeys) RotateSigningKey(ctx context.Context, e audit.Entry) (*adminv1.RotateSigningKeyResponse, error) {
	resp := &adminv1.RotateSigningKeyResponse{}
	_, _, err := s.change(ctx, e, func(m rotation.Moment) (keyset.Change, error) {
		next, _ := m.Keys.Standby()
		resp.Active, resp.Next = m.Keys.Open.Active, next.KeyID
		if !m.Keys.Open.Asked.IsZero() {
			return keyset.Change{}, nil
		}
		open := m.Keys.Open
		open.Asked = m.Now.UTC()
		return keyset.Change{Open: &open}, nil
	})
	return resp, err
}

// RevokeSigningKey implements api.SigningKeys.
func (s *signingKeys) RevokeSigningKey(ctx context.Context, kid string, e audit.Entry) (*adminv1.RevokeSigningKeyResponse, error) {
	resp := &adminv1.RevokeSigningKeyResponse{}
	change, revision, err := s.change(ctx, e, func(m rotation.Moment) (keyset.Change, error) {
		spares, err := newSpares(m.Mesh.Algorithm, m.Now)
		if err != nil {
			return keyset.Change{}, err
		}
		resp.Active, resp.Services = m.Keys.Open.Active, verifying(m.Mesh)
		if kid == "" {
			return keyset.RevokeAll(m.Keys, spares, m.Now), nil
		}
		resp.Revision = m.Keys.Records[kid].Revision
		change, err := keyset.Revoke(m.Keys, kid, spares, m.Now)
		if errors.Is(err, keyset.ErrUnknownKey) {
			err = fmt.Errorf("%w: %w", api.ErrUnknown, err)
		}
		return change, err
	})
	if err != nil || change.Empty() {
		return resp, err
	}
	resp.Revision, resp.Active = revision, change.Open.Active
	for _, r := range change.Put {
		if r.State == keyset.Revoked {
			resp.Revoked = append(resp.Revoked, r.KeyID)
		}
	}
	return resp, nil
}

func newSpares(algorithm string, now time.Time) (spares [2]keyset.Record, err error) {
	for i := range spares {
		if spares[i], err = keyset.New(algorithm, now); err != nil {
			return spares, err
		}
	}
	return spares, nil
}

// verifying are all services whose data planes have the keys.
func verifying(m rotation.Mesh) []string {
	all := map[string]bool{}
	for _, v := range m.Audiences {
		for _, service := range v.Services {
			all[service] = true
		}
	}
	return slices.Sorted(maps.Keys(all))
}
