package store

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/issuer/clientauth"
	"github.com/watchword-mesh/watchword/issuer/keyset"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Limits of one transaction, which are the defaults of an etcd server.
const (
	MaxTxnChanges = 128
	maxTxnBytes   = 1 << 20
)

// Change is a set of resources to put and to delete at once.
type Change struct {
	Put    []*policyv1.Resource
	Delete []policy.Key
}

// Commit writes a change in as few transactions as etcd takes, in order, if
// nothing under config/ has changed since revision. It returns the revision
// and the number of transactions done; an error after the first says how far
// it came. With ErrConflict the revision is the least one at which another try
// makes sense.
func (s *Store) Commit(ctx context.Context, revision int64, c Change) (int64, int, error) {
	batches, err := s.batches(c)
	if err != nil {
		return revision, 0, err
	}
	for i, ops := range batches {
		next, err := s.fenced(ctx, revision, ops)
		if err != nil && i > 0 {
			return revision, i, fmt.Errorf("only %d of %d transactions were done, apply again to finish: %w", i, len(batches), err)
		}
		if err != nil {
			return next, i, err
		}
		revision = next
	}
	return revision, len(batches), nil
}

// batches splits a change so that each part fits into a transaction. The parts
// keep the order: puts in the order of kinds, then deletions in the reverse.
func (s *Store) batches(c Change) ([][]clientv3.Op, error) {
	var out [][]clientv3.Op
	var ops []clientv3.Op
	size := 0
	add := func(op clientv3.Op, bytes int) {
		if len(ops) > 0 && (len(ops) == MaxTxnChanges || size+bytes > maxTxnBytes) {
			out, ops, size = append(out, ops), nil, 0
		}
		ops, size = append(ops, op), size+bytes
	}
	for _, r := range c.Put {
		value, err := s.encodeResource(r)
		if err != nil {
			return nil, fmt.Errorf("encoding %s: %w", policy.KeyOf(r), err)
		}
		add(clientv3.OpPut(s.prefix+configKey(policy.KeyOf(r)), string(value)), len(value))
	}
	if len(c.Delete) > 0 {
		add(clientv3.OpPut(s.prefix+deletedMarker, ""), 0)
	}
	for _, k := range c.Delete {
		if k.Kind == policy.KindService {
			// Who makes a service of that name again must not find the secrets
			// of the old one valid.
			add(clientv3.OpDelete(s.prefix+secretsPrefix+k.Name+"/", clientv3.WithPrefix()), 0)
		}
		add(clientv3.OpDelete(s.prefix+configKey(k)), 0)
	}
	if len(ops) > 0 {
		out = append(out, ops)
	}
	return out, nil
}

// fenced runs one transaction if config/ is as it was at revision. A deletion
// leaves no key behind to compare, which is why it touches deletedMarker.
func (s *Store) fenced(ctx context.Context, revision int64, ops []clientv3.Op) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(s.prefix+configPrefix).WithPrefix(), "<", revision+1)).
		Then(ops...).
		Commit()
	if err != nil {
		return 0, fmt.Errorf("writing to etcd: %w", explain(err))
	}
	if !resp.Succeeded {
		// Something under config/ is newer; to have seen it is to be past revision.
		return revision + 1, ErrConflict
	}
	return resp.Header.Revision, nil
}

// AddSecret stores a client secret if the service exists.
func (s *Store) AddSecret(ctx context.Context, secret clientauth.Secret) (int64, error) {
	value, err := encodeJSON(secretRecord(secret))
	if err != nil {
		return 0, err
	}
	service := s.prefix + configKey(policy.Key{Kind: policy.KindService, Name: secret.Service})
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(service), ">", 0)).
		Then(clientv3.OpPut(s.prefix+secretsPrefix+secret.Service+"/"+secret.ID, value)).
		Commit()
	if err != nil {
		return 0, fmt.Errorf("writing to etcd: %w", explain(err))
	}
	if !resp.Succeeded {
		return 0, ErrConflict
	}
	return resp.Header.Revision, nil
}

// AddFirstKey stores a signing key if there is none yet, and says whether it
// did.
func (s *Store) AddFirstKey(ctx context.Context, k keyset.Record) (bool, error) {
	value, err := s.encodeKey(k)
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(s.prefix+keysPrefix).WithPrefix(), "=", 0)).
		Then(clientv3.OpPut(s.prefix+keysPrefix+k.KeyID, string(value))).
		Commit()
	if err != nil {
		return false, fmt.Errorf("writing to etcd: %w", explain(err))
	}
	return resp.Succeeded, nil
}

// explain adds the way out to errors of etcd that an operator can act on.
func explain(err error) error {
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("etcd's space quota is used up, so that it only reads; compact and defragment it, or raise its quota, then disarm the alarm: %w", err)
	case errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrAuthFailed), errors.Is(err, rpctypes.ErrUserEmpty):
		return fmt.Errorf("etcd refuses these credentials; check --etcd-username, the password file and the role's permissions on the prefix: %w", err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("etcd did not answer within %s; is a majority of its members up and its disk writable? %w", requestTimeout, err)
	}
	return err
}
