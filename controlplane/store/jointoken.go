package store

import (
	"cmp"
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
)

// JoinToken is what is kept of a join token: enough to know it again, not enough
// to use it.
type JoinToken struct {
	ID, Service string
	// Hash is the HMAC of it under the pepper.
	Hash []byte
	// Uses is how many instances may enrol with it: 1 to MaxJoinTokenUses.
	Uses int
	// Instances are the IDs of those that have.
	Instances []string
	// Created and Expires are in UTC.
	Created, Expires time.Time
	CreatedBy        string
	// Revision is that of the last write.
	Revision int64
}

// MaxJoinTokenUses bounds the record, which each enrolment writes anew.
const MaxJoinTokenUses = 1000

// joinTokenRecord is the stored form of a JoinToken.
type joinTokenRecord struct {
	ID        string    `json:"id"`
	Service   string    `json:"service"`
	Hash      []byte    `json:"hash"`
	Uses      int       `json:"uses"`
	Instances []string  `json:"instances,omitempty"`
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires"`
	CreatedBy string    `json:"created_by"`
}

func decodeJoinToken(name string, kv *mvccpb.KeyValue) (JoinToken, error) {
	var r joinTokenRecord
	if err := json.Unmarshal(kv.Value, &r); err != nil {
		return JoinToken{}, err
	}
	if want := joinTokensPrefix + r.Service + "/" + r.ID; name != want {
		return JoinToken{}, fmt.Errorf("it holds %s", want)
	}
	return JoinToken{ID: r.ID, Service: r.Service, Hash: r.Hash, Uses: r.Uses, Instances: r.Instances,
		Created: r.Created, Expires: r.Expires, CreatedBy: r.CreatedBy, Revision: kv.ModRevision}, nil
}

func (s *Store) joinTokenKey(service, id string) string {
	return s.prefix + joinTokensPrefix + service + "/" + id
}

func (s *Store) putJoinToken(t JoinToken) (clientv3.Op, error) {
	value, err := encodeJSON(joinTokenRecord{ID: t.ID, Service: t.Service, Hash: t.Hash, Uses: t.Uses, Instances: t.Instances,
		Created: t.Created, Expires: t.Expires, CreatedBy: t.CreatedBy})
	return clientv3.OpPut(s.joinTokenKey(t.Service, t.ID), value), err
}

// AddJoinToken stores a new join token. Without its service it is ErrNoService.
func (s *Store) AddJoinToken(ctx context.Context, t JoinToken, entry audit.Entry, conditions ...Condition) error {
	if t.Uses < 1 || t.Uses > MaxJoinTokenUses {
		return fmt.Errorf("a join token is for 1 to %d instances, not %d: make several", MaxJoinTokenUses, t.Uses)
	}
	put, err := s.putJoinToken(t)
	if err != nil {
		return err
	}
	_, err = s.write(ctx, entry, s.and(conditions, exists(s.serviceKey(t.Service)), unchanged(s.joinTokenKey(t.Service, t.ID), 0)), put)
	if errors.Is(err, ErrConflict) {
		err = s.orNoService(ctx, t.Service, err)
	}
	return err
}

// ListJoinTokens lists the join tokens of a service, or with an empty name of
// all, by service and ID.
func (s *Store) ListJoinTokens(ctx context.Context, service string) ([]JoinToken, error) {
	prefix := joinTokensPrefix
	if service != "" {
		prefix += service + "/"
	}
	var tokens []JoinToken
	err := s.pages(ctx, prefix, func(name string, kv *mvccpb.KeyValue) error {
		t, err := decodeJoinToken(name, kv)
		if err != nil {
			return unreadable(kv, err)
		}
		tokens = append(tokens, t)
		return nil
	})
	slices.SortFunc(tokens, func(a, b JoinToken) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.ID, b.ID))
	})
	return tokens, err
}

// JoinToken reads one from etcd. ErrUnknown means that there is none.
func (s *Store) JoinToken(ctx context.Context, service, id string) (JoinToken, error) {
	name := joinTokensPrefix + service + "/" + id
	kv, err := s.get(ctx, name)
	switch {
	case err != nil:
		return JoinToken{}, err
	case kv == nil:
		return JoinToken{}, ErrUnknown
	}
	t, err := decodeJoinToken(name, kv)
	if err != nil {
		return JoinToken{}, unreadable(kv, err)
	}
	return t, nil
}

// FindJoinToken is JoinToken for who only knows the ID. It walks through all
// names, so it is for people's calls.
func (s *Store) FindJoinToken(ctx context.Context, id string) (JoinToken, error) {
	var service string
	err := s.pages(ctx, joinTokensPrefix, func(name string, _ *mvccpb.KeyValue) error {
		if of, ok := strings.CutSuffix(strings.TrimPrefix(name, joinTokensPrefix), "/"+id); ok {
			service = of
		}
		return nil
	}, clientv3.WithKeysOnly())
	if err != nil {
		return JoinToken{}, err
	}
	if service == "" || id == "" {
		return JoinToken{}, ErrUnknown
	}
	return s.JoinToken(ctx, service, id)
}

// RevokeJoinToken deletes one. ErrUnknown means that there is none.
func (s *Store) RevokeJoinToken(ctx context.Context, service, id string, entry audit.Entry) error {
	key := s.joinTokenKey(service, id)
	_, err := s.write(ctx, entry, []clientv3.Cmp{exists(key)}, clientv3.OpDelete(key))
	if errors.Is(err, ErrConflict) {
		err = ErrUnknown
	}
	return err
}
