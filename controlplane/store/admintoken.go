package store

import (
	"context"
	"crypto/hmac"
	"encoding/json"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/audit"
)

// AdminTokenState is which admin token is valid, if any. The zero one is what is
// in force before the first start has written its own.
type AdminTokenState struct {
	// Hash is the HMAC of the token under the pepper.
	Hash    []byte
	Created time.Time
	// Revoked says that no admin token is valid.
	Revoked bool
	// Revision is that of the last write.
	Revision int64
}

type adminTokenRecord struct {
	Hash    []byte    `json:"hash"`
	Created time.Time `json:"created"`
	Revoked bool      `json:"revoked"`
}

func decodeAdminToken(kv *mvccpb.KeyValue) (AdminTokenState, error) {
	var r adminTokenRecord
	err := json.Unmarshal(kv.Value, &r)
	return AdminTokenState{Hash: r.Hash, Created: r.Created, Revoked: r.Revoked, Revision: kv.ModRevision}, err
}

func (s *Store) putAdminToken(t AdminTokenState) (clientv3.Op, error) {
	value, err := encodeJSON(adminTokenRecord{Hash: t.Hash, Created: t.Created, Revoked: t.Revoked})
	return clientv3.OpPut(s.prefix+adminTokenKey, value), err
}

// AdminToken reads the state from etcd. ErrUnknown means that there is none yet.
func (s *Store) AdminToken(ctx context.Context) (AdminTokenState, error) {
	kv, err := s.get(ctx, adminTokenKey)
	switch {
	case err != nil:
		return AdminTokenState{}, err
	case kv == nil:
		return AdminTokenState{}, ErrUnknown
	}
	t, err := decodeAdminToken(kv)
	if err != nil {
		return AdminTokenState{}, unreadable(kv, err)
	}
	return t, nil
}

// SetAdminToken stores a new state, whatever there was, and returns the
// revision.
func (s *Store) SetAdminToken(ctx context.Context, t AdminTokenState, entry audit.Entry) (int64, error) {
	put, err := s.putAdminToken(t)
	if err != nil {
		return 0, err
	}
	return s.write(ctx, entry, nil, put)
}

// ReplaceAdminToken stores a new state in the place of one that was read, and returns
// the revision. If another was written since it is ErrConflict. To replace a state
// by itself keeps earlier writes that have not arrived yet from coming after it.
func (s *Store) ReplaceAdminToken(ctx context.Context, old, t AdminTokenState, entry audit.Entry) (int64, error) {
	put, err := s.putAdminToken(t)
	if err != nil {
		return 0, err
	}
	return s.write(ctx, entry, []clientv3.Cmp{unchanged(s.prefix+adminTokenKey, old.Revision)}, put)
}

// EnsureAdminToken stores a state if there is none, and returns the one in force.
func (s *Store) EnsureAdminToken(ctx context.Context, t AdminTokenState) (AdminTokenState, error) {
	put, err := s.putAdminToken(t)
	if err != nil {
		return AdminTokenState{}, err
	}
	_, err = s.write(ctx, audit.Entry{}, []clientv3.Cmp{unchanged(s.prefix+adminTokenKey, 0)}, put)
	if err != nil && !errors.Is(err, ErrConflict) {
		return AdminTokenState{}, err
	}
	return s.AdminToken(ctx)
}

// Is says whether a hash is that of the valid token.
func (t AdminTokenState) Is(hash []byte) bool {
	return !t.Revoked && len(t.Hash) > 0 && hmac.Equal(hash, t.Hash)
}
