package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

// AddFirstKey stores the first two signing keys, one that signs and one that is to
// sign next, if there is none yet, and says whether it did. Data of before there was
// more than one key get what says which signs.
func (s *Store) AddFirstKey(ctx context.Context, active, next keyset.Record) (bool, error) {
	none := clientv3.Compare(clientv3.CreateRevision(s.prefix+keysPrefix).WithPrefix(), "=", 0)
	ops, done, err := s.keyOps(KeyChange{Put: []keyset.Record{active, next}, Open: &keyset.Open{Active: active.KeyID}})
	defer done()
	if err != nil {
		return false, err
	}
	_, err = s.write(ctx, audit.Entry{}, []clientv3.Cmp{none}, ops...)
	if errors.Is(err, ErrConflict) {
		return false, s.openOnly(ctx)
	}
	return err == nil, err
}

// openOnly writes down that the only active key signs, if nothing says it yet. If
// several replicas do it at the same time, they write the same.
func (s *Store) openOnly(ctx context.Context) error {
	if kv, err := s.get(ctx, openKey); err != nil || kv != nil {
		return err
	}
	snap, err := s.Load(ctx)
	if err != nil || snap.Open.Active != "" {
		return err
	}
	for kid, k := range snap.Keys {
		if k.State != keyset.Active {
			continue
		}
		c := KeyChange{Read: map[string]int64{kid: k.Revision}, Open: &keyset.Open{Active: kid}}
		if _, err := s.CommitKeys(ctx, c); !errors.Is(err, ErrConflict) {
			return err
		}
		return s.isOpen(ctx)
	}
	return fmt.Errorf("there are signing keys under %s%s, and none of them is active: restore a backup", s.prefix, keysPrefix)
}

func (s *Store) isOpen(ctx context.Context) error {
	kv, err := s.get(ctx, openKey)
	if err == nil && kv == nil {
		return ErrConflict
	}
	return err
}

// KeyChange is what changes of the signing keys at once, and what must hold for it.
type KeyChange struct {
	// Leader is the ID of the member that must still be the leader; empty for an
	// emergency, which any replica may write.
	Leader string
	// Joined is the revision after which no member may have joined; 0: any may have.
	Joined int64
	// Read has the revision of each key that was looked at, by its ID: none may have
	// changed. A key of Put that is not in it must be a new one.
	Read map[string]int64
	// OpenRevision is that of the Open that was looked at, which must not have changed;
	// 0 if there was none.
	OpenRevision int64

	Put    []keyset.Record
	Delete []string
	Open   *keyset.Open
	// Floor: what some data planes accept is to be refused from here on.
	Floor bool
	Audit audit.Entry
}

// CommitKeys writes a change in one transaction, and returns its revision. If
// something of what must hold does not, it is ErrConflict, and nothing is written.
func (s *Store) CommitKeys(ctx context.Context, c KeyChange) (int64, error) {
	ops, done, err := s.keyOps(c)
	defer done()
	if err != nil {
		return 0, err
	}
	return s.write(ctx, c.Audit, s.keyConditions(c), ops...)
}

func (s *Store) keyConditions(c KeyChange) []clientv3.Cmp {
	conditions := []clientv3.Cmp{unchanged(s.prefix+openKey, c.OpenRevision)}
	if c.Leader != "" {
		conditions = append(conditions, s.leads(c.Leader))
	}
	if c.Joined > 0 {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(s.prefix+joinedKey), "<", c.Joined+1))
	}
	for _, kid := range slices.Sorted(maps.Keys(c.Read)) {
		conditions = append(conditions, unchanged(s.prefix+keysPrefix+kid, c.Read[kid]))
	}
	for _, k := range c.Put {
		if _, read := c.Read[k.KeyID]; !read {
			conditions = append(conditions, unchanged(s.prefix+keysPrefix+k.KeyID, 0))
		}
	}
	return conditions
}

// keyOps are the operations of a change; done comes when they have run.
func (s *Store) keyOps(c KeyChange) (ops []clientv3.Op, done func(), err error) {
	ring, done := s.kek.begin()
	for _, k := range c.Put {
		if k.KeyID == "" || strings.HasPrefix(k.KeyID, ".") {
			return nil, done, fmt.Errorf("%q is no ID of a signing key", k.KeyID)
		}
		value, err := s.encodeKey(ring, k)
		if err != nil {
			return nil, done, err
		}
		ops = append(ops, clientv3.OpPut(s.prefix+keysPrefix+k.KeyID, value))
	}
	for _, kid := range c.Delete {
		ops = append(ops, clientv3.OpDelete(s.prefix+keysPrefix+kid))
	}
	if c.Open != nil {
		value, err := encodeJSON(c.Open)
		if err != nil {
			return nil, done, err
		}
		ops = append(ops, clientv3.OpPut(s.prefix+openKey, value))
	}
	if c.Floor {
		ops = append(ops, clientv3.OpPut(s.prefix+floorKey, ""))
	}
	return ops, done, nil
}
