package store

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/audit"
)

// kekRecord is the stored form of a key that a plug-in has wrapped.
type kekRecord struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	// Plugin is the plug-in's own name of the key that it wrapped with.
	Plugin string `json:"plugin"`
	Key    []byte `json:"key"`
}

func (r kekRecord) binding(prefix string) string { return prefix + keksPrefix + r.ID }

// PluginKeyring returns the keys that are stored wrapped by a plug-in, the newest
// first. If there are none, it makes one.
func (s *Store) PluginKeyring(ctx context.Context, p Plugin) (Keyring, error) {
	records, err := s.keks(ctx)
	if err == nil && len(records) == 0 {
		none := clientv3.Compare(clientv3.CreateRevision(s.prefix+keksPrefix).WithPrefix(), "=", 0)
		// If another was faster, that is the first.
		if _, err = s.addKEK(ctx, p, audit.Entry{}, none); err == nil || errors.Is(err, ErrConflict) {
			records, err = s.keks(ctx)
		}
	}
	if err != nil {
		return Keyring{}, err
	}
	var keys []KEK
	for _, r := range records {
		k, err := s.unwrapKEK(ctx, p, r)
		if err != nil {
			return Keyring{}, err
		}
		keys = append(keys, k)
	}
	return NewKeyring(keys[0], keys[1:]...), nil
}

// keks reads the wrapped keys, the newest first.
func (s *Store) keks(ctx context.Context) ([]kekRecord, error) {
	type stored struct {
		kekRecord
		revision int64
	}
	var all []stored
	err := s.pages(ctx, keksPrefix, func(name string, kv *mvccpb.KeyValue) error {
		var r kekRecord
		err := json.Unmarshal(kv.Value, &r)
		if err == nil && name != keksPrefix+r.ID {
			err = fmt.Errorf("it holds %s%s", keksPrefix, r.ID)
		}
		if err != nil {
			return unreadable(kv, err)
		}
		all = append(all, stored{r, kv.CreateRevision})
		return nil
	})
	slices.SortFunc(all, func(a, b stored) int { return cmp.Compare(b.revision, a.revision) })
	var records []kekRecord
	for _, r := range all {
		records = append(records, r.kekRecord)
	}
	return records, err
}

// AddPluginKEK makes a key, which is the newest from then on, and stores it wrapped
// beside the others. Its name is added to the subjects of the entry.
func (s *Store) AddPluginKEK(ctx context.Context, p Plugin, entry audit.Entry) (id string, err error) {
	return s.addKEK(ctx, p, entry)
}

func (s *Store) addKEK(ctx context.Context, p Plugin, entry audit.Entry, conditions ...clientv3.Cmp) (id string, err error) {
	raw := make([]byte, kekBytes)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	k, err := newKEK(raw)
	if err != nil {
		return "", err
	}
	r := kekRecord{ID: k.ID(), Created: time.Now().UTC()}
	answer, err := p.ask(ctx, pluginRequest{Op: "wrap", Key: raw, Binding: r.binding(s.prefix)})
	if err != nil {
		return "", err
	}
	r.Plugin, r.Key = answer.ID, answer.Key
	// What can't be unwrapped again must not seal anything.
	if _, err := s.unwrapKEK(ctx, p, r); err != nil {
		return "", err
	}
	value, err := encodeJSON(r)
	if err != nil {
		return "", err
	}
	entry.Subjects = append(slices.Clip(entry.Subjects), keksPrefix+r.ID)
	_, err = s.write(ctx, entry, conditions, clientv3.OpPut(s.prefix+keksPrefix+r.ID, value))
	return r.ID, err
}

func (s *Store) unwrapKEK(ctx context.Context, p Plugin, r kekRecord) (KEK, error) {
	answer, err := p.ask(ctx, pluginRequest{Op: "unwrap", Key: r.Key, Binding: r.binding(s.prefix), ID: r.Plugin})
	if err != nil {
		return nil, err
	}
	if len(answer.Key) == kekBytes {
		if k, err := newKEK(answer.Key); err == nil && k.ID() == r.ID {
			return k, nil
		}
	}
	return nil, fmt.Errorf("the key-encryption program %s (--kek-exec) unwrapped %s%s%s to another key than it had wrapped: is it set up as it was then?", p.name(), s.prefix, keksPrefix, r.ID)
}
