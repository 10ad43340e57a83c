package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/bundle"
	"github.com/watchword-mesh/watchword/controlplane/policy"
)

// bundleRecord is the stored form of a key set that was fetched. It holds
// public keys only, so it is not sealed.
type bundleRecord struct {
	Issuer  string    `json:"issuer"`
	Source  string    `json:"source"`
	JWKS    string    `json:"jwks"`
	LeftOut []string  `json:"left_out,omitempty"`
	Changed time.Time `json:"changed"`
	Fetched time.Time `json:"fetched"`
}

func decodeBundle(name string, kv *mvccpb.KeyValue) (bundle.Set, error) {
	var r bundleRecord
	if err := json.Unmarshal(kv.Value, &r); err != nil {
		return bundle.Set{}, err
	}
	if name != bundlesPrefix+r.Issuer {
		return bundle.Set{}, fmt.Errorf("it holds %s%s", bundlesPrefix, r.Issuer)
	}
	return bundle.Set{Issuer: r.Issuer, Source: r.Source, JWKS: r.JWKS, LeftOut: r.LeftOut, Changed: r.Changed, Fetched: r.Fetched, Revision: kv.ModRevision}, nil
}

// KeepBundle implements bundle.Keeper: it stores a set if its Issuer exists and
// the record there is still that of b.Revision.
func (s *Store) KeepBundle(ctx context.Context, b bundle.Set) (int64, error) {
	value, err := encodeJSON(bundleRecord{Issuer: b.Issuer, Source: b.Source, JWKS: b.JWKS, LeftOut: b.LeftOut, Changed: b.Changed, Fetched: b.Fetched})
	if err != nil {
		return 0, err
	}
	issuer := s.prefix + configKey(policy.Key{Kind: policy.KindIssuer, Name: b.Issuer})
	key := s.prefix + bundlesPrefix + b.Issuer
	return s.changeBundle(ctx, clientv3.OpPut(key, value),
		clientv3.Compare(clientv3.CreateRevision(issuer), ">", 0),
		clientv3.Compare(clientv3.ModRevision(key), "=", b.Revision))
}

// DropBundle implements bundle.Keeper.
func (s *Store) DropBundle(ctx context.Context, issuer string, revision int64) error {
	key := s.prefix + bundlesPrefix + issuer
	_, err := s.changeBundle(ctx, clientv3.OpDelete(key), clientv3.Compare(clientv3.ModRevision(key), "=", revision))
	return err
}

func (s *Store) changeBundle(ctx context.Context, op clientv3.Op, conditions ...clientv3.Cmp) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.client.Txn(ctx).If(conditions...).Then(op).Commit()
	if err != nil {
		return 0, fmt.Errorf("writing to etcd: %w", explain(err))
	}
	if !resp.Succeeded {
		return 0, bundle.ErrConflict
	}
	return resp.Header.Revision, nil
}
