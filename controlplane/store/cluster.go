package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
)

// What replicas know of each other. It is no part of a Snapshot, since it changes all
// the time without a change for data planes; WatchCluster follows it.
const (
	clusterPrefix = "cluster/"
	membersPrefix = clusterPrefix + "member/"
	alivePrefix   = clusterPrefix + "alive/"
	recordsPrefix = clusterPrefix + "record/"
	// joinedKey is empty, and touched by each member that joins.
	joinedKey = clusterPrefix + ".joined"
	// leaderKey has the ID of the member that leads, under its lease.
	leaderKey = clusterPrefix + "leader"
)

// leads holds while a member is the leader.
func (s *Store) leads(id string) clientv3.Cmp {
	return clientv3.Compare(clientv3.Value(s.prefix+leaderKey), "=", id)
}

// WatchCluster calls next with what is stored of all replicas, and again with each
// change of it, one at a time, until ctx ends. Who is late sees the newest state. When
// a watch breaks, or etcd has compacted what was missed, all is read anew.
func (s *Store) WatchCluster(ctx context.Context, next func(ledger.Cluster)) error {
	for seen := int64(0); ; {
		err := s.watchCluster(ctx, &seen, next)
		if ctx.Err() != nil {
			return nil
		}
		if errors.As(err, new(wentBackError)) {
			return err
		}
		s.log.Warn("watch of the replicas in etcd broke; reading them anew", "revision", seen, "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryPause):
		}
	}
}

func (s *Store) watchCluster(ctx context.Context, seen *int64, next func(ledger.Cluster)) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	c, revision, err := s.cluster(ctx)
	if err != nil {
		return err
	}
	if revision < *seen {
		return wentBack(revision, *seen)
	}
	*seen = revision
	next(c)
	for resp := range s.client.Watch(ctx, s.prefix+clusterPrefix, clientv3.WithPrefix(), clientv3.WithRev(revision+1), clientv3.WithCreatedNotify()) {
		if err := resp.Err(); err != nil {
			return err
		}
		if resp.Header.Revision < *seen {
			return wentBack(resp.Header.Revision, *seen)
		}
		if len(resp.Events) == 0 {
			continue
		}
		c = copied(c)
		for _, ev := range resp.Events {
			*seen = ev.Kv.ModRevision
			s.see(&c, ev.Kv, ev.Type == clientv3.EventTypePut)
		}
		next(c)
	}
	return errors.New("the watch ended")
}

// cluster reads what is stored of all replicas, at one revision.
func (s *Store) cluster(ctx context.Context) (ledger.Cluster, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.client.Get(ctx, s.prefix+clusterPrefix, clientv3.WithPrefix())
	if err != nil {
		return ledger.Cluster{}, 0, fmt.Errorf("reading etcd: %w", explain(err))
	}
	c := copied(ledger.Cluster{})
	for _, kv := range resp.Kvs {
		s.see(&c, kv, true)
	}
	return c, resp.Header.Revision, nil
}

// copied is a Cluster of its own; those that were handed out don't change.
func copied(c ledger.Cluster) ledger.Cluster {
	own := ledger.Cluster{Members: map[string]ledger.Member{}, Alive: map[string]bool{}, Records: map[string]ledger.Record{}, Leader: c.Leader, Joined: c.Joined}
	maps.Copy(own.Members, c.Members)
	maps.Copy(own.Alive, c.Alive)
	maps.Copy(own.Records, c.Records)
	return own
}

// see puts one key, or its end, where it belongs. A record that can't be read is as one
// that was never written, which holds up what waits for it.
func (s *Store) see(c *ledger.Cluster, kv *mvccpb.KeyValue, there bool) {
	name := strings.TrimPrefix(string(kv.Key), s.prefix)
	var err error
	switch {
	case name == joinedKey:
		c.Joined = kv.ModRevision
	case name == leaderKey:
		if c.Leader = string(kv.Value); !there {
			c.Leader = ""
		}
	case strings.HasPrefix(name, membersPrefix):
		var m ledger.Member
		if there {
			err = json.Unmarshal(kv.Value, &m)
		}
		// Without its own words it still is one.
		m.ID, m.Joined = strings.TrimPrefix(name, membersPrefix), kv.CreateRevision
		keepIf(there, c.Members, m.ID, m)
	case strings.HasPrefix(name, alivePrefix):
		keepIf(there, c.Alive, strings.TrimPrefix(name, alivePrefix), true)
	case strings.HasPrefix(name, recordsPrefix):
		var r ledger.Record
		if there {
			err = json.Unmarshal(kv.Value, &r)
		}
		keepIf(there && err == nil, c.Records, strings.TrimPrefix(name, recordsPrefix), r)
	}
	if err != nil {
		s.log.Error("a record of a replica can't be read", "error", unreadable(kv, err))
		s.unreadable.Add(1)
	}
}

func keepIf[M ~map[K]V, K comparable, V any](keep bool, m M, key K, v V) {
	if !keep {
		delete(m, key)
		return
	}
	m[key] = v
}
