package store

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/audit"
)

// enrolmentsRecord is kept of a service whose enrolments were all revoked, or which
// was deleted: who makes it again must not find old proofs valid.
type enrolmentsRecord struct {
	RevokedBefore time.Time `json:"revoked_before"`
}

func (s *Store) putEnrolments(service string, revokedBefore time.Time) (clientv3.Op, error) {
	value, err := encodeJSON(enrolmentsRecord{RevokedBefore: revokedBefore.UTC()})
	return clientv3.OpPut(s.prefix+enrolmentsPrefix+service, value), err
}

func decodeEnrolments(value []byte) (time.Time, error) {
	var r enrolmentsRecord
	err := json.Unmarshal(value, &r)
	return r.RevokedBefore, err
}

// maxRevoked is how many instances one transaction revokes: each is deleted, and
// noted.
const maxRevoked = maxBatch / 2

// putRevoked notes that an instance was revoked by name, so that its key is not
// enrolled again, whatever it proves: a pod has a token of its account all the time.
func (s *Store) putRevoked(service, id string, at time.Time) (clientv3.Op, error) {
	if at.IsZero() {
		at = time.Now()
	}
	value, err := encodeJSON(revokedRecord{Revoked: at.UTC()})
	return clientv3.OpPut(s.revokedKey(service, id), value), err
}

type revokedRecord struct {
	Revoked time.Time `json:"revoked"`
}

func (s *Store) revokedKey(service, id string) string {
	return s.prefix + revokedPrefix + service + "/" + id
}

// RevokeInstances ends the enrolments of some instances of a service, or of all:
// then its join tokens end in the same transaction, and what proves an instance
// from elsewhere must be younger than the entry's time (default now), see
// Snapshot.RevokedBefore. It returns what it ended.
//
// More instances than fit into one transaction are ended by several, each with an
// audit entry that has those of the subjects that are about it, if there is one for
// each instance. One that is not there is ErrUnknown: then its transaction has ended
// nothing, and those that are returned were ended by the ones before.
func (s *Store) RevokeInstances(ctx context.Context, service string, ids []string, entry audit.Entry) (revoked, tokens []string, revision int64, err error) {
	if len(ids) == 0 {
		return s.revokeAll(ctx, service, entry)
	}
	all := entry.Subjects
	for from := 0; from < len(ids); from += maxRevoked {
		to := min(from+maxRevoked, len(ids))
		if len(all) == len(ids) {
			entry.Subjects = all[from:to]
		}
		var ops []clientv3.Op
		var there []clientv3.Cmp
		for _, id := range slices.Compact(slices.Sorted(slices.Values(ids[from:to]))) {
			key := s.prefix + instancesPrefix + service + "/" + id
			there = append(there, exists(key))
			ops = append(ops, clientv3.OpDelete(key, clientv3.WithPrevKV()))
		}
		// Behind the deletions, whose answers are looked at by number.
		for _, id := range slices.Compact(slices.Sorted(slices.Values(ids[from:to]))) {
			put, err := s.putRevoked(service, id, entry.Time)
			if err != nil {
				return revoked, nil, revision, err
			}
			ops = append(ops, put)
		}
		resp, err := s.transact(ctx, entry, there, ops...)
		if errors.Is(err, ErrConflict) {
			err = ErrUnknown
		}
		if err != nil {
			return revoked, nil, revision, err
		}
		revision = resp.Header.Revision
		for n := range len(ops) / 2 {
			revoked = append(revoked, s.deleted(resp, n, instancesPrefix+service+"/")...)
		}
	}
	return revoked, nil, revision, nil
}

func (s *Store) revokeAll(ctx context.Context, service string, entry audit.Entry) (revoked, tokens []string, revision int64, err error) {
	now := entry.Time
	if now.IsZero() {
		now = time.Now()
	}
	put, err := s.putEnrolments(service, now)
	if err != nil {
		return nil, nil, 0, err
	}
	instances, joinTokens := instancesPrefix+service+"/", joinTokensPrefix+service+"/"
	// However many there are: a range is one operation.
	resp, err := s.transact(ctx, entry, []clientv3.Cmp{exists(s.serviceKey(service))},
		clientv3.OpDelete(s.prefix+instances, clientv3.WithPrefix(), clientv3.WithPrevKV()),
		clientv3.OpDelete(s.prefix+joinTokens, clientv3.WithPrefix(), clientv3.WithPrevKV()),
		put)
	if errors.Is(err, ErrConflict) {
		err = ErrNoService
	}
	if err != nil {
		return nil, nil, 0, err
	}
	return s.deleted(resp, 0, instances), s.deleted(resp, 1, joinTokens), resp.Header.Revision, nil
}

// deleted are the names, without a prefix, that the nth operation deleted.
func (s *Store) deleted(resp *clientv3.TxnResponse, n int, prefix string) []string {
	var names []string
	for _, kv := range resp.Responses[n].GetResponseDeleteRange().PrevKvs {
		names = append(names, strings.TrimPrefix(string(kv.Key), s.prefix+prefix))
	}
	return names
}
