package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/revocation"
)

const revocationsPrefix = "revocations/"

// revocationRecord is the stored form of an entry.
type revocationRecord struct {
	ID           string          `json:"id"`
	Kind         revocation.Kind `json:"kind"`
	Issuer       string          `json:"issuer,omitempty"`
	Value        string          `json:"value,omitempty"`
	IssuedBefore int64           `json:"issued_before,omitempty"`
	Audiences    []string        `json:"audiences,omitempty"`
	Created      time.Time       `json:"created"`
	Ends         time.Time       `json:"ends,omitzero"`
	Reason       string          `json:"reason,omitempty"`
	Actor        string          `json:"actor,omitempty"`
}

func decodeRevocation(name string, value []byte) (revocation.Entry, error) {
	var r revocationRecord
	if err := json.Unmarshal(value, &r); err != nil {
		return revocation.Entry{}, err
	}
	e, err := revocation.New(revocation.Entry(r))
	if err != nil {
		return revocation.Entry{}, err
	}
	if name != revocationsPrefix+e.ID {
		return revocation.Entry{}, fmt.Errorf("it holds %s%s", revocationsPrefix, e.ID)
	}
	return e, nil
}

// RevocationsAt is that nobody has revoked anything since a revision.
func RevocationsAt(revision int64) Condition {
	return func(s *Store) clientv3.Cmp {
		return clientv3.Compare(clientv3.ModRevision(s.prefix+floorKey), "<", revision+1)
	}
}

// Revoke stores an entry, joined with the one that is there. One that adds nothing is
// not written, and the revision is that of what is there. ErrConflict says that somebody
// wrote meanwhile, or that a condition does not hold.
func (s *Store) Revoke(ctx context.Context, e revocation.Entry, entry audit.Entry, conditions ...Condition) (revocation.Entry, int64, error) {
	name := revocationsPrefix + e.ID
	kv, err := s.get(ctx, name)
	if err != nil {
		return e, 0, err
	}
	var known int64
	if kv != nil {
		before, err := decodeRevocation(name, kv.Value)
		if err != nil {
			return e, 0, unreadable(kv, err)
		}
		known = kv.ModRevision
		if e = before.Widen(e); e.Same(before) {
			return before, known, nil
		}
	}
	value, err := encodeJSON(revocationRecord(e))
	if err != nil {
		return e, 0, err
	}
	revision, err := s.write(ctx, entry, s.and(conditions, unchanged(s.prefix+name, known)),
		clientv3.OpPut(s.prefix+name, value), clientv3.OpPut(s.prefix+floorKey, ""))
	return e, revision, err
}

// ErrNoRevocation is that there is none of that ID.
var ErrNoRevocation = errors.New("there is no such revocation")

// DeleteRevocation takes one back.
func (s *Store) DeleteRevocation(ctx context.Context, id string, entry audit.Entry) (int64, error) {
	key := s.prefix + revocationsPrefix + id
	revision, err := s.write(ctx, entry, []clientv3.Cmp{exists(key)}, clientv3.OpDelete(key))
	if errors.Is(err, ErrConflict) {
		return 0, ErrNoRevocation
	}
	return revision, err
}

// sweepRevocations leaves one that was widened meanwhile: it is another revision.
func (s *Store) sweepRevocations(ctx context.Context, now time.Time) (int, error) {
	return s.sweepExpired(ctx, revocationsPrefix, func(name string, kv *mvccpb.KeyValue) bool {
		e, err := decodeRevocation(name, kv.Value)
		return err == nil && e.Expired(now)
	})
}

// putRevocations is put for those.
func (e *Event) putRevocations(before, delta *Snapshot) {
	if len(delta.Revocations) == 0 {
		return
	}
	e.Snapshot.Revocations = merged(e.Snapshot.Revocations, delta.Revocations)
	for id, r := range delta.Revocations {
		if known, ok := before.Revocations[id]; !ok || !known.Same(r) {
			e.Revocations = append(e.Revocations, id)
		}
	}
	slices.Sort(e.Revocations)
}

// differentRevocations are the IDs of those that came, changed or went.
func differentRevocations(from, to map[string]revocation.Entry) []string {
	var ids []string
	for id, r := range to {
		if known, ok := from[id]; !ok || !known.Same(r) {
			ids = append(ids, id)
		}
	}
	for id := range from {
		if _, ok := to[id]; !ok {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

func revocationID(name string) (string, bool) { return strings.CutPrefix(name, revocationsPrefix) }
