package store

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/audit"
)

// Retention says how much of the audit is kept.
type Retention struct {
	// AuditEntries is how many, the newest; 0 is no limit.
	AuditEntries int
	// AuditAge is for how long; 0 is no limit.
	AuditAge time.Duration
}

// maxSweep bounds what one call of Sweep removes of each kind.
const maxSweep = 1000

// Sweep removes the audit entries beyond a retention, and the join tokens and
// instances that have expired, at most maxSweep of each: who gets that many
// calls again. It says how many it removed. What was renewed since it looked
// stays.
func (s *Store) Sweep(ctx context.Context, now time.Time, keep Retention) (removed int, err error) {
	removed, err = s.sweepAudit(ctx, now, keep)
	if err != nil {
		return removed, err
	}
	for _, sweep := range []func(context.Context, time.Time) (int, error){s.sweepJoinTokens, s.sweepInstances} {
		n, err := sweep(ctx, now)
		removed += n
		if err != nil {
			return removed, err
		}
	}
	return removed, nil
}

// sweepAudit needs no fence: entries don't change.
func (s *Store) sweepAudit(ctx context.Context, now time.Time, keep Retention) (int, error) {
	end := s.prefix + auditPrefix + "g" // behind all hexadecimal digits
	from, err := s.auditSurplus(ctx, keep.AuditEntries, end)
	if err != nil {
		return 0, err
	}
	if old := now.Add(-keep.AuditAge).UnixNano(); keep.AuditAge > 0 && old > 0 {
		from = min(from, fmt.Sprintf("%s%016x", s.prefix+auditPrefix, math.MaxInt64-old+1))
	}
	if from == end {
		return 0, nil
	}
	kvs, _, err := s.page(ctx, from, end, maxSweep, clientv3.WithKeysOnly())
	if err != nil || len(kvs) == 0 {
		return 0, err
	}
	last := string(kvs[len(kvs)-1].Key)
	resp, err := s.transact(ctx, audit.Entry{}, nil, clientv3.OpDelete(from, clientv3.WithRange(last+"\x00")))
	if err != nil {
		return 0, err
	}
	return int(resp.Responses[0].GetResponseDeleteRange().Deleted), nil
}

// auditSurplus is where the entries begin that are one too many; end if there
// are none. To count is cheap, so the walk is only for when there are.
func (s *Store) auditSurplus(ctx context.Context, keep int, end string) (string, error) {
	from := s.prefix + auditPrefix
	if keep <= 0 {
		return end, nil
	}
	counting, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.client.Get(counting, from, clientv3.WithRange(end), clientv3.WithCountOnly())
	if err != nil {
		return "", fmt.Errorf("reading etcd: %w", explain(err))
	}
	if resp.Count <= int64(keep) {
		return end, nil
	}
	for keep > 0 {
		kvs, more, err := s.page(ctx, from, end, int64(min(keep, 2*pageSize)), clientv3.WithKeysOnly())
		if err != nil {
			return "", err
		}
		if !more {
			return end, nil
		}
		keep -= len(kvs)
		from = string(kvs[len(kvs)-1].Key) + "\x00"
	}
	return from, nil
}

func (s *Store) sweepJoinTokens(ctx context.Context, now time.Time) (int, error) {
	return s.sweepExpired(ctx, joinTokensPrefix, func(name string, kv *mvccpb.KeyValue) bool {
		t, err := decodeJoinToken(name, kv)
		return err == nil && t.Expires.Before(now)
	})
}

func (s *Store) sweepInstances(ctx context.Context, now time.Time) (int, error) {
	return s.sweepExpired(ctx, instancesPrefix, func(name string, kv *mvccpb.KeyValue) bool {
		i, err := decodeInstance(name, kv)
		return err == nil && i.Expires.Before(now)
	})
}

// sweepExpired removes records as they were when they were read. One that can't
// be read stays: it is for people to look at.
func (s *Store) sweepExpired(ctx context.Context, prefix string, expired func(name string, kv *mvccpb.KeyValue) bool) (removed int, err error) {
	var batch []conditional
	flush := func() error {
		ran, err := s.each(ctx, batch)
		for _, ok := range ran {
			if ok {
				removed++
			}
		}
		batch = nil
		return err
	}
	err = s.pages(ctx, prefix, func(name string, kv *mvccpb.KeyValue) error {
		if removed+len(batch) < maxSweep && expired(name, kv) {
			key := string(kv.Key)
			batch = append(batch, conditional{key, kv.ModRevision, clientv3.OpDelete(key)})
		}
		if len(batch) == maxBatch {
			return flush()
		}
		return nil
	})
	if err == nil && len(batch) > 0 {
		err = flush()
	}
	if err != nil {
		return removed, fmt.Errorf("removing what has expired under %s: %w", strings.TrimSuffix(prefix, "/"), err)
	}
	return removed, nil
}
