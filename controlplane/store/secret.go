package store

import (
	"context"
	"errors"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/issuer/clientauth"
)

// AddSecret stores a client secret. Without its service it is ErrNoService.
func (s *Store) AddSecret(ctx context.Context, secret clientauth.Secret, entry audit.Entry, conditions ...Condition) (int64, error) {
	value, err := encodeJSON(secretRecord(secret))
	if err != nil {
		return 0, err
	}
	revision, err := s.write(ctx, entry, s.and(conditions, exists(s.serviceKey(secret.Service))),
		clientv3.OpPut(s.prefix+secretsPrefix+secret.Service+"/"+secret.ID, value))
	if errors.Is(err, ErrConflict) {
		err = s.orNoService(ctx, secret.Service, err)
	}
	return revision, err
}

// DeleteSecret deletes a client secret. ErrUnknown means that there is none.
func (s *Store) DeleteSecret(ctx context.Context, service, id string, entry audit.Entry) (int64, error) {
	key := s.prefix + secretsPrefix + service + "/" + id
	revision, err := s.write(ctx, entry, []clientv3.Cmp{exists(key)}, clientv3.OpDelete(key))
	if errors.Is(err, ErrConflict) {
		err = ErrUnknown
	}
	return revision, err
}
