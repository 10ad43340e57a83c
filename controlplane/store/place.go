package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/ledger"
)

// ErrLost means that the place of a replica is gone: its lease has run out, or it was
// forgotten.
var ErrLost = errors.New("this replica has lost its place in etcd")

// ErrOlder means that a replica of a version serves that knows of no others.
var ErrOlder = errors.New("a replica of an older version serves on this prefix")

// replicaKey is of versions that had one replica.
const replicaKey = "replica"

// Place is that of one replica among all. Only Renew keeps it.
type Place struct {
	// ID of the member.
	ID string
	// Revision at which it joined: who serves must have read what is stored then.
	Revision int64

	store *Store
	lease clientv3.LeaseID
	// record is the revision of the last record that was written.
	record int64
	lost   chan struct{}
	once   sync.Once
}

// Join gives a replica a place under a lease of ttl (whole seconds; an etcd may make it
// longer). previous is the ID of a place that it had before and lost, if any: it carries
// on what that one has promised, so that nobody waits for it. With an etcd inside the
// process nobody else can be there, so that all others have stopped.
func (s *Store) Join(ctx context.Context, m ledger.Member, ttl time.Duration, previous string) (*Place, error) {
	value, err := encodeJSON(m)
	if err != nil {
		return nil, err
	}
	lease, err := s.grant(ctx, ttl)
	if err != nil {
		return nil, err
	}
	ops := []clientv3.Op{
		clientv3.OpPut(s.prefix+membersPrefix+m.ID, value),
		clientv3.OpPut(s.prefix+alivePrefix+m.ID, "", clientv3.WithLease(lease)),
		clientv3.OpPut(s.prefix+joinedKey, ""),
	}
	carried, err := s.carry(ctx, previous, m.ID)
	if err != nil {
		return nil, err
	}
	ops = append(ops, carried...)
	if s.server != nil {
		if err := s.othersStopped(ctx, previous); err != nil {
			return nil, err
		}
	}
	revision, err := s.write(ctx, audit.Entry{}, []clientv3.Cmp{unchanged(s.prefix+replicaKey, 0)}, ops...)
	if errors.Is(err, ErrConflict) {
		err = fmt.Errorf("%w: stop it first, or give this one another --etcd-prefix", ErrOlder)
	}
	if err != nil {
		s.revoke(ctx, lease)
		return nil, fmt.Errorf("joining the replicas: %w", err)
	}
	return &Place{ID: m.ID, Revision: revision, store: s, lease: lease, lost: make(chan struct{})}, nil
}

// carry ends the former place of a member, whose record goes on as that of the new one:
// if this process ends before it writes another, the others still know how long its
// data planes may go by what it gave them.
func (s *Store) carry(ctx context.Context, previous, id string) ([]clientv3.Op, error) {
	if previous == "" {
		return nil, nil
	}
	kv, err := s.get(ctx, recordsPrefix+previous)
	if err != nil {
		return nil, err
	}
	var ops []clientv3.Op
	if kv != nil {
		ops = append(ops, clientv3.OpPut(s.prefix+recordsPrefix+id, string(kv.Value)))
	}
	for _, prefix := range []string{membersPrefix, recordsPrefix, alivePrefix} {
		ops = append(ops, clientv3.OpDelete(s.prefix+prefix+previous))
	}
	return ops, nil
}

func (s *Store) grant(ctx context.Context, ttl time.Duration) (clientv3.LeaseID, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	lease, err := s.client.Grant(ctx, int64(math.Ceil(ttl.Seconds())))
	if err != nil {
		return 0, fmt.Errorf("taking a lease: %w", explain(err))
	}
	return lease.ID, nil
}

// revoke ends a lease that is of no use; else it ends by itself.
func (s *Store) revoke(ctx context.Context, lease clientv3.LeaseID) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), requestTimeout)
	defer cancel()
	if _, err := s.client.Revoke(ctx, lease); err != nil {
		s.log.Debug("a lease could not be given back", "error", err)
	}
}

// othersStopped notes of all members that they sign no more: they were processes on
// the same locked folder.
func (s *Store) othersStopped(ctx context.Context, previous string) error {
	c, _, err := s.cluster(ctx)
	if err != nil {
		return err
	}
	for id := range c.Members {
		r := c.Records[id]
		if id == previous || r.SigningStopped && !c.Alive[id] {
			continue
		}
		r.SigningStopped = true
		value, err := encodeJSON(r)
		if err != nil {
			return err
		}
		_, err = s.write(ctx, audit.Entry{}, []clientv3.Cmp{exists(s.prefix + membersPrefix + id)},
			clientv3.OpPut(s.prefix+recordsPrefix+id, value), clientv3.OpDelete(s.prefix+alivePrefix+id))
		if err != nil && !errors.Is(err, ErrConflict) {
			return err
		}
	}
	return nil
}

// Lost is closed when etcd has said that the place is gone.
func (p *Place) Lost() <-chan struct{} { return p.lost }

func (p *Place) lose() error {
	p.once.Do(func() { close(p.lost) })
	return ErrLost
}

// Renew asks etcd once to begin the time of the lease anew. ErrLost is final; after
// any other error nobody knows.
func (p *Place) Renew(ctx context.Context) error {
	_, err := p.store.client.KeepAliveOnce(ctx, p.lease)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return p.lose()
	}
	if err != nil {
		return fmt.Errorf("renewing the lease: %w", explain(err))
	}
	return nil
}

// WriteRecord writes down what the member has and claims. One call follows the other.
func (p *Place) WriteRecord(ctx context.Context, r ledger.Record) error {
	value, err := encodeJSON(r)
	if err != nil {
		return err
	}
	err = p.writeRecord(ctx, value)
	if !errors.Is(err, ErrConflict) {
		return err
	}
	// An earlier write may have arrived although no answer came; or the member was
	// forgotten.
	if kv, err := p.store.get(ctx, membersPrefix+p.ID); err != nil || kv == nil {
		if err == nil {
			err = p.lose()
		}
		return err
	}
	kv, err := p.store.get(ctx, recordsPrefix+p.ID)
	if err != nil {
		return err
	}
	if p.record = 0; kv != nil {
		p.record = kv.ModRevision
	}
	return p.writeRecord(ctx, value)
}

// writeRecord follows on the last record alone, so that one that was under way for
// long doesn't replace a newer one. One that was forgotten, or has come back as another,
// leaves nothing behind.
func (p *Place) writeRecord(ctx context.Context, value string) error {
	key := p.store.prefix + recordsPrefix + p.ID
	revision, err := p.store.write(ctx, audit.Entry{},
		[]clientv3.Cmp{exists(p.store.prefix + membersPrefix + p.ID), unchanged(key, p.record)}, clientv3.OpPut(key, value))
	if err == nil {
		p.record = revision
	}
	return err
}

// Leave ends the place for good: the member signs no more, and has said so.
func (p *Place) Leave(ctx context.Context, r ledger.Record) error {
	r.SigningStopped = true
	err := p.WriteRecord(ctx, r)
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	_, revoked := p.store.client.Revoke(ctx, p.lease)
	if errors.Is(revoked, rpctypes.ErrLeaseNotFound) {
		revoked = nil
	}
	return errors.Join(err, revoked)
}

// Campaign waits until the member is the leader, which it then is as long as it keeps
// its place. It may be called again.
func (p *Place) Campaign(ctx context.Context) error {
	key := p.store.prefix + leaderKey
	for {
		leader, revision, err := p.takeLead(ctx, key)
		if errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return p.lose()
		}
		if err != nil {
			return fmt.Errorf("asking to lead: %w", explain(err))
		}
		if leader == p.ID {
			return nil
		}
		if err := p.leaderGone(ctx, key, revision); err != nil {
			return err
		}
	}
}

// takeLead makes the member the leader if there is none, and says who is.
func (p *Place) takeLead(ctx context.Context, key string) (leader string, revision int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := p.store.client.Txn(ctx).If(unchanged(key, 0)).
		Then(clientv3.OpPut(key, p.ID, clientv3.WithLease(p.lease))).Else(clientv3.OpGet(key)).Commit()
	if err != nil {
		return "", 0, err
	}
	if resp.Succeeded {
		return p.ID, resp.Header.Revision, nil
	}
	return string(resp.Responses[0].GetResponseRange().Kvs[0].Value), resp.Header.Revision, nil
}

func (p *Place) leaderGone(ctx context.Context, key string, revision int64) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	for resp := range p.store.client.Watch(ctx, key, clientv3.WithRev(revision+1)) {
		if err := resp.Err(); err != nil && resp.CompactRevision == 0 {
			return fmt.Errorf("waiting to lead: %w", err)
		}
		for _, ev := range resp.Events {
			if ev.Type == clientv3.EventTypeDelete {
				return nil
			}
		}
		if resp.CompactRevision > 0 {
			return nil // look again
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.New("waiting to lead: the watch ended")
}

// Forget removes a departed member, of which nothing is waited for any more. Only
// the leader may. ErrConflict is that it does not lead any more, or the member is alive.
func (s *Store) Forget(ctx context.Context, leader, id string) error {
	_, err := s.write(ctx, audit.Entry{}, []clientv3.Cmp{s.leads(leader), unchanged(s.prefix+alivePrefix+id, 0)},
		clientv3.OpDelete(s.prefix+membersPrefix+id), clientv3.OpDelete(s.prefix+recordsPrefix+id))
	return err
}
