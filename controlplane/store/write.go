package store

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Limits of one transaction, which are the defaults of an etcd server.
const (
	maxTxnOps   = 128
	maxTxnBytes = 1 << 20
	// MaxTxnChanges is how many resources one transaction puts or deletes: of its
	// operations one is for the fence and one for the audit entry. A deletion may
	// count as several, see deletions.
	MaxTxnChanges = maxTxnOps - 2
)

// Change is a set of resources to put and to delete at once.
type Change struct {
	Put    []*policyv1.Resource
	Delete []policy.Key
	// Audit is stored with the change; with one that was split, with each part.
	Audit audit.Entry
}

// Split cuts a change into parts that each fit into one transaction, keeping
// the order. A service and its secrets stay together.
func (s *Store) Split(c Change) ([]Change, error) {
	var parts []Change
	part := Change{Audit: c.Audit}
	ops, size := 0, 0
	add := func(n, bytes int, more func()) {
		if ops > 0 && (ops+n > MaxTxnChanges || size+bytes > maxTxnBytes) {
			parts, part, ops, size = append(parts, part), Change{Audit: c.Audit}, 0, 0
		}
		ops, size = ops+n, size+bytes
		more()
	}
	for _, r := range c.Put {
		value, err := s.encodeResource(s.kek.ring(), r)
		if err != nil {
			return nil, fmt.Errorf("encoding %s: %w", policy.KeyOf(r), err)
		}
		add(1, len(value), func() { part.Put = append(part.Put, r) })
	}
	for _, k := range c.Delete {
		deletions, err := s.deletions(k)
		if err != nil {
			return nil, err
		}
		add(len(deletions), 0, func() { part.Delete = append(part.Delete, k) })
	}
	if ops > 0 {
		parts = append(parts, part)
	}
	return parts, nil
}

// Commit writes a change in one transaction if nobody has written resources
// since revision, and returns the new revision. With ErrConflict the revision is
// the least one at which another try makes sense.
func (s *Store) Commit(ctx context.Context, revision int64, c Change) (int64, error) {
	ring, done := s.kek.begin()
	defer done()
	var ops []clientv3.Op
	for _, r := range c.Put {
		value, err := s.encodeResource(ring, r)
		if err != nil {
			return revision, fmt.Errorf("encoding %s: %w", policy.KeyOf(r), err)
		}
		ops = append(ops, clientv3.OpPut(s.prefix+configKey(policy.KeyOf(r)), string(value)))
	}
	for _, k := range c.Delete {
		more, err := s.deletions(k)
		if err != nil {
			return revision, err
		}
		ops = append(ops, more...)
	}
	return s.fenced(ctx, revision, c.Audit, ops)
}

func (s *Store) deletions(k policy.Key) ([]clientv3.Op, error) {
	ops := []clientv3.Op{clientv3.OpDelete(s.prefix + configKey(k))}
	switch k.Kind {
	case policy.KindIssuer:
		ops = append(ops, clientv3.OpDelete(s.prefix+bundlesPrefix+k.Name))
	case policy.KindService:
		// Who makes a service of that name again must not find what proved the
		// old one valid.
		for _, prefix := range []string{secretsPrefix, instancesPrefix, joinTokensPrefix} {
			ops = append(ops, clientv3.OpDelete(s.prefix+prefix+k.Name+"/", clientv3.WithPrefix()))
		}
		// Neither do Kubernetes tokens of before count.
		put, err := s.putEnrolments(k.Name, time.Now())
		if err != nil {
			return nil, err
		}
		ops = append(ops, put)
	}
	return ops, nil
}

// fenced runs one transaction if nobody wrote resources since revision. What
// is compared is a key of its own, since a deletion leaves none behind, and a
// record that is only sealed anew is no change of what writers look at.
func (s *Store) fenced(ctx context.Context, revision int64, entry audit.Entry, ops []clientv3.Op) (int64, error) {
	fence := s.prefix + fenceKey
	now, err := s.write(ctx, entry,
		[]clientv3.Cmp{ResourcesAt(revision)(s)},
		append(ops, clientv3.OpPut(fence, ""))...)
	switch {
	case errors.Is(err, ErrConflict):
		// Somebody wrote later; to have seen it is to be past revision.
		return revision + 1, err
	case err != nil:
		return 0, err
	case now <= revision:
		return 0, wentBack(now, revision)
	}
	return now, nil
}

// wentBack is what an etcd that lost writes, or was restored from an older
// backup, gets: its revision is the clock that everything else goes by.
func wentBack(now, before int64) error { return wentBackError{now, before} }

type wentBackError struct{ now, before int64 }

// Error says it, and the way out.
func (e wentBackError) Error() string {
	return fmt.Sprintf("etcd went back from revision %d to %d (restored from a backup?): restart this control plane to work with what etcd has now; restore with a revision bump to avoid this", e.before, e.now)
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
