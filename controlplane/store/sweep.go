package store

import (
	"context"
	"encoding/json"
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
	// AuditEntries is how many of what was done, the newest; 0 is no limit.
	AuditEntries int
	// Refusals is how many of what was refused; 0 is no limit.
	Refusals int
	// AuditAge is for how long; 0 is no limit.
	AuditAge time.Duration
}

// maxSweep bounds what one call of Sweep removes of each kind, maxSweepStep what
// one transaction removes of the audit.
const (
	maxSweep     = 20 * maxSweepStep
	maxSweepStep = 1000
)

// Sweep removes the audit entries beyond a retention, the join tokens and instances
// that have expired, times of revocations that nothing can be as old as, and
// revocations of what is not valid any more. It says
// how many it removed, and whether there may be more: then call it again. What was
// renewed since it looked stays.
func (s *Store) Sweep(ctx context.Context, now time.Time, keep Retention) (removed int, more bool, err error) {
	for _, sweep := range []func() (int, error){
		func() (int, error) { return s.sweepAudit(ctx, auditPrefix, now, keep.AuditEntries, keep.AuditAge) },
		func() (int, error) { return s.sweepAudit(ctx, refusedPrefix, now, keep.Refusals, keep.AuditAge) },
		func() (int, error) { return s.sweepJoinTokens(ctx, now) },
		func() (int, error) { return s.sweepInstances(ctx, now) },
		func() (int, error) { return s.sweepEnrolments(ctx, now) },
		func() (int, error) { return s.sweepRevoked(ctx, now) },
		func() (int, error) { return s.sweepRevocations(ctx, now) },
	} {
		n, err := sweep()
		removed += n
		if err != nil {
			return removed, false, err
		}
		more = more || n >= maxSweep
	}
	return removed, more, nil
}

// sweepAudit needs no fence: entries don't change.
func (s *Store) sweepAudit(ctx context.Context, prefix string, now time.Time, entries int, age time.Duration) (removed int, err error) {
	end := s.prefix + prefix + auditEnd
	from, err := s.auditSurplus(ctx, prefix, entries, end)
	if err != nil {
		return 0, err
	}
	if old := now.Add(-age).UnixNano(); age > 0 && old > 0 {
		from = min(from, fmt.Sprintf("%s%016x", s.prefix+prefix, math.MaxInt64-old+1))
	}
	for removed < maxSweep && from < end {
		kvs, _, err := s.page(ctx, from, end, maxSweepStep, clientv3.WithKeysOnly())
		if err != nil || len(kvs) == 0 {
			return removed, err
		}
		last := string(kvs[len(kvs)-1].Key) + "\x00"
		resp, err := s.transact(ctx, audit.Entry{}, nil, clientv3.OpDelete(from, clientv3.WithRange(last)))
		if err != nil {
			return removed, err
		}
		removed, from = removed+int(resp.Responses[0].GetResponseDeleteRange().Deleted), last
	}
	return removed, nil
}

// auditSurplus is where the entries begin that are one too many; end if there
// are none. To count is cheap, so the walk is only for when there are.
func (s *Store) auditSurplus(ctx context.Context, prefix string, keep int, end string) (string, error) {
	from := s.prefix + prefix
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

// sweepGrace is how long an instance that has ended stays. It is refused in that
// time, and enrolled again if it was only a clock that had gone ahead, or a backup
// that was old.
const sweepGrace = 30 * 24 * time.Hour

func (s *Store) sweepInstances(ctx context.Context, now time.Time) (int, error) {
	return s.sweepExpired(ctx, instancesPrefix, func(name string, kv *mvccpb.KeyValue) bool {
		i, err := decodeInstance(name, kv)
		return err == nil && i.Expires.Add(sweepGrace).Before(now)
	})
}

// ForgetRevocations is after how long a time of revocation is forgotten: what is as
// old as that must not prove an instance whatever it says. It is more than the year
// for which Kubernetes extends tokens by itself.
const ForgetRevocations = 400 * 24 * time.Hour

func (s *Store) sweepEnrolments(ctx context.Context, now time.Time) (int, error) {
	return s.sweepExpired(ctx, enrolmentsPrefix, func(_ string, kv *mvccpb.KeyValue) bool {
		t, err := decodeEnrolments(kv.Value)
		return err == nil && t.Before(now.Add(-ForgetRevocations))
	})
}

func (s *Store) sweepRevoked(ctx context.Context, now time.Time) (int, error) {
	return s.sweepExpired(ctx, revokedPrefix, func(_ string, kv *mvccpb.KeyValue) bool {
		var r revokedRecord
		return json.Unmarshal(kv.Value, &r) == nil && r.Revoked.Before(now.Add(-ForgetRevocations))
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
