package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/bundle"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/revocation"
	"github.com/watchword-mesh/watchword/issuer/ca"
	"github.com/watchword-mesh/watchword/issuer/clientauth"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

// Snapshot is everything that a replica works with, at one revision.
type Snapshot struct {
	// Revision that all of this is of. Those that only the audit, or what replicas have
	// written of themselves, has made are not waited for: the next Snapshot is that of
	// the next change of something in it.
	Revision int64
	Config   policy.State
	Keys     map[string]keyset.Record
	// Open says which key signs.
	Open keyset.Open
	// Floor is the revision of the last revocation or removal of a key; 0 if there was
	// none.
	Floor     int64
	CAs       map[string]ca.Record
	Secrets   map[string]clientauth.Secret // by SERVICE/ID
	Instances Instances                    // by SERVICE/ID
	// RevokedBefore says of services whose enrolments were all revoked, and of those
	// that were deleted, when: what was made earlier proves no instance any more.
	RevokedBefore map[string]time.Time
	AdminToken    AdminTokenState
	Bundles       map[string]bundle.Set       // by the name of the Issuer
	Revocations   map[string]revocation.Entry // by ID
}

func newSnapshot(revision int64) *Snapshot {
	return &Snapshot{
		Revision:      revision,
		Config:        policy.State{},
		Keys:          map[string]keyset.Record{},
		CAs:           map[string]ca.Record{},
		Secrets:       map[string]clientauth.Secret{},
		RevokedBefore: map[string]time.Time{},
		Bundles:       map[string]bundle.Set{},
		Revocations:   map[string]revocation.Entry{},
	}
}

// Load reads everything at one revision.
func (s *Store) Load(ctx context.Context) (*Snapshot, error) { return s.load(ctx, nil) }

// load reads everything. With a snapshot to fall back on, a record that can't
// be read is taken from there.
func (s *Store) load(ctx context.Context, last *Snapshot) (*Snapshot, error) {
	kvs, revision, err := s.readAll(ctx)
	if err != nil {
		return nil, err
	}
	snap := newSnapshot(revision)
	for _, kv := range kvs {
		err := s.decode(snap, kv)
		if err != nil && last == nil {
			return nil, err
		}
		if err != nil {
			s.log.Error("keeping the last good version of a record", "revision", kv.ModRevision, "error", err)
			s.unreadable.Add(1)
			snap.keep(last, strings.TrimPrefix(string(kv.Key), s.prefix))
		}
	}
	return snap, nil
}

// readAll reads what belongs into a snapshot: all but the audit and the join
// tokens, which may be much, and which are read when somebody asks, and but what
// replicas have written of themselves.
func (s *Store) readAll(ctx context.Context) ([]*mvccpb.KeyValue, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 6*requestTimeout)
	defer cancel()
	end := func(prefix string) string { return clientv3.GetPrefixRangeEnd(s.prefix + prefix) }
	resp, err := s.client.Txn(ctx).Then(
		clientv3.OpGet(s.prefix, clientv3.WithRange(s.prefix+auditPrefix)),
		clientv3.OpGet(end(auditPrefix), clientv3.WithRange(s.prefix+clusterPrefix)),
		clientv3.OpGet(end(clusterPrefix), clientv3.WithRange(s.prefix+joinTokensPrefix)),
		clientv3.OpGet(end(joinTokensPrefix), clientv3.WithRange(end(""))),
	).Commit()
	if err != nil {
		return nil, 0, fmt.Errorf("reading etcd: %w", explain(err))
	}
	var kvs []*mvccpb.KeyValue
	for _, r := range resp.Responses {
		kvs = append(kvs, r.GetResponseRange().Kvs...)
	}
	return kvs, resp.Header.Revision, nil
}

// keep takes one record from another snapshot, if it is there.
func (snap *Snapshot) keep(from *Snapshot, name string) {
	if id, ok := strings.CutPrefix(name, secretsPrefix); ok {
		keepOne(snap.Secrets, from.Secrets, id)
	} else if name == openKey {
		snap.Open = from.Open
	} else if kid, ok := strings.CutPrefix(name, keysPrefix); ok {
		keepOne(snap.Keys, from.Keys, kid)
	} else if id, ok := strings.CutPrefix(name, casPrefix); ok {
		keepOne(snap.CAs, from.CAs, id)
	} else if service, ok := strings.CutPrefix(name, enrolmentsPrefix); ok {
		keepOne(snap.RevokedBefore, from.RevokedBefore, service)
	} else if key, ok := strings.CutPrefix(name, instancesPrefix); ok {
		if i, there := from.Instances.Get(key); there {
			snap.Instances.set(i)
		}
	} else if issuer, ok := strings.CutPrefix(name, bundlesPrefix); ok {
		keepOne(snap.Bundles, from.Bundles, issuer)
	} else if id, ok := revocationID(name); ok {
		keepOne(snap.Revocations, from.Revocations, id)
	} else if key, ok := configName(name); ok {
		keepOne(snap.Config, from.Config, key)
	} else if name == adminTokenKey {
		snap.AdminToken = from.AdminToken
	}
}

func keepOne[M ~map[K]V, K comparable, V any](to, from M, key K) {
	if v, there := from[key]; there {
		to[key] = v
	}
}

// Unreadable counts the records that could not be read since the start.
func (s *Store) Unreadable() int64 { return s.unreadable.Load() }
