package store

import clientv3 "go.etcd.io/etcd/client/v3"

// Condition must hold for a write besides those that it has anyway; else nothing is
// written, and the error is ErrConflict.
type Condition func(*Store) clientv3.Cmp

// ResourcesAt is that nobody has written resources since a revision: what was decided
// by them, such as who may make a join token, still holds.
func ResourcesAt(revision int64) Condition {
	return func(s *Store) clientv3.Cmp {
		return clientv3.Compare(clientv3.ModRevision(s.prefix+fenceKey), "<", revision+1)
	}
}

// and adds conditions to those of a write.
func (s *Store) and(more []Condition, own ...clientv3.Cmp) []clientv3.Cmp {
	for _, c := range more {
		own = append(own, c(s))
	}
	return own
}
