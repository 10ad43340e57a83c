package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// replicaTTL is how long a replica that died without a word keeps its place,
// in seconds.
const replicaTTL = 10

// Replica describes who serves on a prefix.
type Replica struct {
	ID      string    `json:"id"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
}

// ErrTaken means that another replica serves on the prefix.
var ErrTaken = errors.New("another replica serves on this prefix")

// Claim takes the one place for a replica, waiting for the lease of one that
// has died to run out. The channel is closed when the place is lost. With an
// etcd inside the process nobody else can be there, so there is nothing to
// take, and nothing is lost by standing still.
func (s *Store) Claim(ctx context.Context, self Replica) (lost <-chan struct{}, release func(), err error) {
	if s.server != nil {
		return nil, func() {}, nil
	}
	value, err := encodeJSON(self)
	if err != nil {
		return nil, nil, err
	}
	session, err := s.session(ctx)
	if err != nil {
		return nil, nil, err
	}
	deadline := time.Now().Add((replicaTTL + 2) * time.Second)
	for told := false; ; told = true {
		holder, err := s.claimOnce(ctx, session.Lease(), value)
		if err == nil {
			return session.Done(), func() { _ = session.Close() }, nil
		}
		if !errors.Is(err, ErrTaken) || time.Now().After(deadline) {
			_ = session.Close()
			return nil, nil, err
		}
		if !told {
			s.log.Info("waiting for the lease of a replica that may have died", "host", holder.Host, "pid", holder.PID, "at_most", fmt.Sprintf("%ds", replicaTTL+2))
		}
		select {
		case <-ctx.Done():
			_ = session.Close()
			return nil, nil, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

// session takes a lease and keeps it alive. Only taking it is bound to ctx.
func (s *Store) session(ctx context.Context) (*concurrency.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	lease, err := s.client.Grant(ctx, replicaTTL)
	if err != nil {
		return nil, fmt.Errorf("taking a lease: %w", explain(err))
	}
	session, err := concurrency.NewSession(s.client, concurrency.WithLease(lease.ID), concurrency.WithTTL(replicaTTL))
	if err != nil {
		return nil, fmt.Errorf("keeping a lease: %w", explain(err))
	}
	return session, nil
}

func (s *Store) claimOnce(ctx context.Context, lease clientv3.LeaseID, value string) (Replica, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	key := s.prefix + replicaKey
	put := clientv3.OpPut(key, value, clientv3.WithLease(lease))
	resp, err := s.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).Then(put).Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		return Replica{}, fmt.Errorf("registering this replica: %w", explain(err))
	}
	if resp.Succeeded {
		return Replica{}, nil
	}
	var holder Replica
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		_ = json.Unmarshal(kvs[0].Value, &holder)
	}
	return holder, fmt.Errorf("%w (%s, process %d, since %s): this version runs one replica for a prefix; stop the other, or give this one its own --etcd-prefix",
		ErrTaken, holder.Host, holder.PID, holder.Started.Format(time.RFC3339))
}
