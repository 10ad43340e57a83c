package store

import (
	"context"
	"errors"
	"fmt"
	"syscall"

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

// Split cuts a change into parts that each fit into one transaction, keeping
// the order. A service and its secrets stay together.
func (s *Store) Split(c Change) ([]Change, error) {
	var parts []Change
	var part Change
	ops, size := 0, 0
	add := func(n, bytes int, more func()) {
		// One operation is kept for deletedMarker.
		if ops > 0 && (ops+n > MaxTxnChanges-1 && !(len(c.Delete) == 0 && ops+n == MaxTxnChanges) || size+bytes > maxTxnBytes) {
			parts, part, ops, size = append(parts, part), Change{}, 0, 0
		}
		ops, size = ops+n, size+bytes
		more()
	}
	for _, r := range c.Put {
		value, err := s.encodeResource(r)
		if err != nil {
			return nil, fmt.Errorf("encoding %s: %w", policy.KeyOf(r), err)
		}
		add(1, len(value), func() { part.Put = append(part.Put, r) })
	}
	for _, k := range c.Delete {
		add(len(s.deletions(k)), 0, func() { part.Delete = append(part.Delete, k) })
	}
	if ops > 0 {
		parts = append(parts, part)
	}
	return parts, nil
}

// Commit writes a change in one transaction if nothing under config/ has
// changed since revision, and returns the new revision. With ErrConflict the
// revision is the least one at which another try makes sense.
func (s *Store) Commit(ctx context.Context, revision int64, c Change) (int64, error) {
	var ops []clientv3.Op
	for _, r := range c.Put {
		value, err := s.encodeResource(r)
		if err != nil {
			return revision, fmt.Errorf("encoding %s: %w", policy.KeyOf(r), err)
		}
		ops = append(ops, clientv3.OpPut(s.prefix+configKey(policy.KeyOf(r)), string(value)))
	}
	for _, k := range c.Delete {
		ops = append(ops, s.deletions(k)...)
	}
	if len(c.Delete) > 0 {
		ops = append(ops, clientv3.OpPut(s.prefix+deletedMarker, ""))
	}
	return s.fenced(ctx, revision, ops)
}

func (s *Store) deletions(k policy.Key) []clientv3.Op {
	ops := []clientv3.Op{clientv3.OpDelete(s.prefix + configKey(k))}
	switch k.Kind {
	case policy.KindIssuer:
		ops = append(ops, clientv3.OpDelete(s.prefix+bundlesPrefix+k.Name))
	case policy.KindService:
		// Who makes a service of that name again must not find the secrets of
		// the old one valid.
		ops = append(ops, clientv3.OpDelete(s.prefix+secretsPrefix+k.Name+"/", clientv3.WithPrefix()))
	}
	return ops
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
	if resp.Header.Revision <= revision {
		return 0, wentBack(resp.Header.Revision, revision)
	}
	return resp.Header.Revision, nil
}

// wentBack is what an etcd that lost writes, or was restored from an older
// backup, gets: its revision is the clock that everything else goes by.
func wentBack(now, before int64) error {
	return fmt.Errorf("etcd went back from revision %d to %d (restored from a backup?): restart this control plane to work with what etcd has now; restore with a revision bump to avoid this", before, now)
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
	case errors.Is(err, syscall.ENOSPC):
		return fmt.Errorf("the disk is full, make room and start again; what was confirmed is kept: %w", err)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("etcd's space quota is used up, so that it only reads; compact and defragment it, or raise its quota, then disarm the alarm: %w", err)
	case errors.Is(err, rpctypes.ErrPermissionDenied), errors.Is(err, rpctypes.ErrAuthFailed), errors.Is(err, rpctypes.ErrUserEmpty):
		return fmt.Errorf("etcd refuses these credentials; check --etcd-username, the password file and the role's permissions on the prefix: %w", err)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("etcd did not answer within %s; is a majority of its members up and its disk writable, and do http or https and the TLS files fit to it? %w", requestTimeout, err)
	}
	return err
}
