package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/audit"
)

// ErrRotating means that a rotation is under way.
var ErrRotating = errors.New("the key-encryption key is being rotated already: wait for the end, which is written into the audit and the log")

// SealedWith counts the records by the ID of the key-encryption key that they are
// sealed with. Those that don't say it, since they are damaged, count under "".
func (s *Store) SealedWith(ctx context.Context) (map[string]int, error) {
	counts := map[string]int{}
	for _, prefix := range sealedPrefixes {
		err := s.pages(ctx, prefix, func(name string, kv *mvccpb.KeyValue) error {
			if box, err := sealedBox(name, kv.Value); err != nil {
				counts[""]++
			} else if box != nil {
				counts[box.KEK]++
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return counts, nil
}

// RotateKEK makes next the Keyring of the store: from the start everything that
// is written is sealed with its current key, and at the end everything is, each
// record under a fresh data key. Next must hold the keys that records are sealed
// with now. Everything else goes on meanwhile: a record that somebody writes at
// the same time stays as that one wrote it, and a resource keeps its revision,
// since its content is the same.
//
// After a stop on the way all is in order, sealed partly with one key and partly
// with the other; call it again with the same keys to go on. progress, if not
// nil, is told after each transaction. The audit is for the caller, who alone
// knows what it began with.
func (s *Store) RotateKEK(ctx context.Context, next Keyring, progress func(done, total int64)) error {
	if !s.rotating.TryLock() {
		return ErrRotating
	}
	defer s.rotating.Unlock()
	total, err := s.rotatable(ctx, next)
	if err != nil {
		return err
	}
	s.kek.use(next)
	if err := s.kek.settle(ctx); err != nil {
		return fmt.Errorf("rotating the key-encryption key: %w", err)
	}
	r := &rotation{store: s, ring: next, total: total, progress: progress}
	if err := r.run(ctx); err != nil {
		return fmt.Errorf("rotating the key-encryption key to %s: %w", next.ID(), err)
	}
	return s.dropWrapped(ctx, next)
}

// rotatable counts what is to be sealed anew, if the Keyring can open it all.
func (s *Store) rotatable(ctx context.Context, next Keyring) (total int64, err error) {
	counts, err := s.SealedWith(ctx)
	if err != nil {
		return 0, err
	}
	for _, id := range slices.Sorted(maps.Keys(counts)) {
		if id == "" {
			continue
		}
		if _, err := next.opener(id); err != nil {
			return 0, fmt.Errorf("not rotating the key-encryption key, since %d records could not be opened: of one, %w", counts[id], err)
		}
		if id != next.ID() {
			total += int64(counts[id])
		}
	}
	return total, nil
}

// rotation is one call of RotateKEK.
type rotation struct {
	store       *Store
	ring        Keyring
	done, total int64
	progress    func(done, total int64)

	batch []conditional
	bytes int
	// of one pass
	lost   int
	faults []error
}

// run passes over all records until none has another key. A second pass is only
// for records that somebody else wrote during the first.
func (r *rotation) run(ctx context.Context) error {
	for {
		r.lost, r.faults = 0, nil
		for _, prefix := range sealedPrefixes {
			err := r.store.pages(ctx, prefix, func(name string, kv *mvccpb.KeyValue) error { return r.add(ctx, name, kv) })
			if err == nil {
				err = r.flush(ctx)
			}
			if err != nil {
				return err
			}
		}
		if len(r.faults) > 0 {
			return fmt.Errorf("all other records are done, but some can't be opened; put them right, or delete them, and rotate again: %w", errors.Join(r.faults...))
		}
		if r.lost == 0 {
			return nil
		}
	}
}

// add puts one record into the batch if it has another key.
func (r *rotation) add(ctx context.Context, name string, kv *mvccpb.KeyValue) error {
	box, err := sealedBox(name, kv.Value)
	if err == nil && (box == nil || box.KEK == r.ring.ID()) {
		return nil
	}
	var value []byte
	if err == nil {
		value, err = r.store.reseal(r.ring, name, kv)
	}
	if err != nil {
		r.faults = append(r.faults, unreadable(kv, err))
		return nil
	}
	if len(r.batch) == maxBatch || r.bytes+len(value) > maxTxnBytes {
		if err := r.flush(ctx); err != nil {
			return err
		}
	}
	key := string(kv.Key)
	r.batch = append(r.batch, conditional{key, kv.ModRevision, clientv3.OpPut(key, string(value))})
	r.bytes += len(value)
	return nil
}

func (r *rotation) flush(ctx context.Context) error {
	if len(r.batch) == 0 {
		return nil
	}
	ran, err := r.store.each(ctx, r.batch)
	if err != nil {
		return err
	}
	r.batch, r.bytes = nil, 0
	for _, ok := range ran {
		if !ok {
			r.lost++
			continue
		}
		r.done++
	}
	if r.progress != nil {
		r.progress(min(r.done, r.total), r.total)
	}
	return nil
}

// dropWrapped deletes the older keys that a plug-in has wrapped: nothing is sealed
// with them any more. One that is not in the Keyring was made since.
func (s *Store) dropWrapped(ctx context.Context, ring Keyring) error {
	records, err := s.keks(ctx)
	if err != nil {
		return err
	}
	for _, r := range records {
		if r.ID == ring.ID() || ring.find(r.ID) == nil {
			continue
		}
		if _, err := s.write(ctx, audit.Entry{}, nil, clientv3.OpDelete(s.prefix+keksPrefix+r.ID)); err != nil {
			return fmt.Errorf("everything is sealed with %s, but the older key %s is still stored: %w", ring.ID(), r.ID, err)
		}
	}
	return nil
}
