package store

import (
	"context"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/policy"
)

func exists(key string) clientv3.Cmp { return clientv3.Compare(clientv3.CreateRevision(key), ">", 0) }

// unchanged holds of a key that was last written at a revision; 0 is one that is
// not there.
func unchanged(key string, revision int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(key), "=", revision)
}

func (s *Store) serviceKey(name string) string {
	return s.prefix + configKey(policy.Key{Kind: policy.KindService, Name: name})
}

// write runs one transaction with its audit entry, and returns the revision; if
// a condition does not hold, ErrConflict.
func (s *Store) write(ctx context.Context, entry audit.Entry, conditions []clientv3.Cmp, ops ...clientv3.Op) (int64, error) {
	resp, err := s.transact(ctx, entry, conditions, ops...)
	if err != nil {
		return 0, err
	}
	return resp.Header.Revision, nil
}

func (s *Store) transact(ctx context.Context, entry audit.Entry, conditions []clientv3.Cmp, ops ...clientv3.Op) (*clientv3.TxnResponse, error) {
	record, err := s.auditOps(entry)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.client.Txn(ctx).If(conditions...).Then(append(ops, record...)...).Commit()
	if err != nil {
		return nil, fmt.Errorf("writing to etcd: %w", explain(err))
	}
	if !resp.Succeeded {
		return nil, ErrConflict
	}
	return resp, nil
}

// orNoService says which of two reasons a conflict has.
func (s *Store) orNoService(ctx context.Context, service string, conflict error) error {
	kv, err := s.get(ctx, strings.TrimPrefix(s.serviceKey(service), s.prefix))
	if err == nil && kv == nil {
		return ErrNoService
	}
	return conflict
}

// get reads one record; nil is one that is not there.
func (s *Store) get(ctx context.Context, name string) (*mvccpb.KeyValue, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.client.Get(ctx, s.prefix+name)
	if err != nil {
		return nil, fmt.Errorf("reading etcd: %w", explain(err))
	}
	if len(resp.Kvs) == 0 {
		return nil, nil
	}
	return resp.Kvs[0], nil
}

// pageSize is how many records one request of a walk reads.
const pageSize = 500

// pages walks through all records under a prefix in the order of their names. A
// record that is written meanwhile may be seen as it was or as it is.
func (s *Store) pages(ctx context.Context, prefix string, each func(name string, kv *mvccpb.KeyValue) error, options ...clientv3.OpOption) error {
	from, end := s.prefix+prefix, clientv3.GetPrefixRangeEnd(s.prefix+prefix)
	for {
		kvs, more, err := s.page(ctx, from, end, pageSize, options...)
		if err != nil {
			return err
		}
		for _, kv := range kvs {
			if err := each(strings.TrimPrefix(string(kv.Key), s.prefix), kv); err != nil {
				return err
			}
			from = string(kv.Key) + "\x00"
		}
		if !more {
			return nil
		}
	}
}

func (s *Store) page(ctx context.Context, from, end string, limit int64, options ...clientv3.OpOption) (kvs []*mvccpb.KeyValue, more bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	options = append([]clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(limit)}, options...)
	resp, err := s.client.Get(ctx, from, options...)
	if err != nil {
		return nil, false, fmt.Errorf("reading etcd: %w", explain(err))
	}
	return resp.Kvs, resp.More, nil
}

// maxBatch is how many conditional operations go into one transaction. etcd
// counts those of a transaction within a transaction together with it.
const maxBatch = 100

// conditional is an operation on a key that runs if the key is as it was.
type conditional struct {
	key      string
	revision int64
	op       clientv3.Op
}

// each runs up to maxBatch operations in one transaction, each for itself, and
// says which of them ran.
func (s *Store) each(ctx context.Context, batch []conditional) (ran []bool, err error) {
	var ops []clientv3.Op
	for _, c := range batch {
		ops = append(ops, clientv3.OpTxn([]clientv3.Cmp{unchanged(c.key, c.revision)}, []clientv3.Op{c.op}, nil))
	}
	resp, err := s.transact(ctx, audit.Entry{}, nil, ops...)
	if err != nil {
		return nil, err
	}
	for _, r := range resp.Responses {
		ran = append(ran, r.GetResponseTxn().Succeeded)
	}
	return ran, nil
}

// unreadable names the record.
func unreadable(kv *mvccpb.KeyValue, err error) error {
	return fmt.Errorf("the record %s in etcd can't be read (was it written by a newer version, or damaged?): %w", kv.Key, err)
}
