package store

import (
	clientv3 "go.etcd.io/etcd/client/v3"
)

// What replicas know of each other. It is no part of a Snapshot, since it changes all
// the time without a change for data planes; WatchCluster follows it.
const (
	clusterPrefix = "cluster/"
	// joinedKey is empty, and touched by each member that joins.
	joinedKey = clusterPrefix + ".joined"
	// leaderKey has the ID of the member that leads, under its lease.
	leaderKey = clusterPrefix + "leader"
)

// leads holds while a member is the leader.
func (s *Store) leads(id string) clientv3.Cmp {
	return clientv3.Compare(clientv3.Value(s.prefix+leaderKey), "=", id)
}
