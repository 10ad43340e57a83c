// Package store keeps what must not be lost in etcd, and is the only package
// that speaks to it: an etcd inside the process, or an existing cluster,
// through the same client.
//
// Everything lies under one prefix:
//
//	meta                 format, ids, and the sealed pepper of client secrets
//	config/KIND/NAME     resources as protobuf; sealed when they hold secrets
//	config/.deleted      touched by each deletion, for the fence below
//	keys/KID             signing keys, their private halves sealed
//	secrets/SERVICE/ID   hashes of client secrets
//	bundles/ISSUER       the last good key set that was fetched for an Issuer
//	replica              who serves on an existing cluster, under a lease
//
// Writes of resources are fenced: a transaction goes through only if nothing
// under config/ has changed since the revision that the writer looked at, so
// that checks between resources hold in what is stored. etcd's revision is the
// clock of the whole system.
package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/bundle"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/issuer/clientauth"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

// Config says where the data are.
type Config struct {
	// DataDir holds the data of the etcd inside the process. Empty: use
	// Endpoints.
	DataDir string
	// Endpoints, TLS files and credentials of an existing etcd cluster.
	Endpoints                 []string
	CAFile, CertFile, KeyFile string
	Username, Password        string
	// Prefix of all keys. Default "/watchword/".
	Prefix string
	// Logger for etcd and the store; nil is silent.
	Logger hclog.Logger
	// Fatal is told when the etcd inside the process can't go on, such as on
	// a full disk. It is called at most once.
	Fatal func(error)

	// fast trades safety against power loss for speed; for tests.
	fast bool
}

// requestTimeout bounds one exchange with etcd.
const requestTimeout = 5 * time.Second

// ErrConflict means that the resources have changed since the revision that
// the writer looked at.
var ErrConflict = errors.New("the configuration has changed meanwhile")

// Store is the open database.
type Store struct {
	client *clientv3.Client
	server *embedded // nil with an existing cluster
	prefix string
	kek    KEK
	log    hclog.Logger

	unreadable atomic.Int64
}

// Snapshot is everything that a replica works with, at one revision.
type Snapshot struct {
	Revision int64
	Config   policy.State
	Keys     map[string]keyset.Record
	Secrets  map[string]clientauth.Secret // by SERVICE/ID
	Bundles  map[string]bundle.Set        // by the name of the Issuer
}

// Open connects to etcd, or starts it. The error says what an operator can do.
func Open(ctx context.Context, c Config) (*Store, error) {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Prefix == "" {
		c.Prefix = "/watchword/"
	}
	s := &Store{prefix: c.Prefix, log: c.Logger}
	var err error
	if c.DataDir != "" {
		s.server, s.client, err = openEmbedded(ctx, c)
	} else {
		s.client, err = dial(ctx, c)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// UseKEK sets the key-encryption key, which seals private keys and shared
// secrets. It comes before anything that reads or writes records.
func (s *Store) UseKEK(k KEK) { s.kek = k }

// Close ends the client and the server inside the process.
func (s *Store) Close() error {
	err := s.client.Close()
	if errors.Is(err, context.Canceled) {
		err = nil
	}
	if s.server != nil {
		s.server.close()
	}
	return err
}

// Ping asks etcd for a linearizable answer.
func (s *Store) Ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	if _, err := s.client.Get(ctx, s.prefix+"meta", clientv3.WithCountOnly()); err != nil {
		return fmt.Errorf("asking etcd: %w", err)
	}
	return nil
}

// Load reads everything at one revision.
func (s *Store) Load(ctx context.Context) (*Snapshot, error) { return s.load(ctx, nil) }

// load reads everything. With a snapshot to fall back on, a record that can't
// be read is taken from there.
func (s *Store) load(ctx context.Context, last *Snapshot) (*Snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, 6*requestTimeout)
	defer cancel()
	resp, err := s.client.Get(ctx, s.prefix, clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("reading etcd: %w", explain(err))
	}
	snap := newSnapshot(resp.Header.Revision)
	for _, kv := range resp.Kvs {
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

// keep takes one record from another snapshot, if it is there.
func (snap *Snapshot) keep(from *Snapshot, name string) {
	if id, ok := strings.CutPrefix(name, secretsPrefix); ok {
		if secret, there := from.Secrets[id]; there {
			snap.Secrets[id] = secret
		}
	} else if kid, ok := strings.CutPrefix(name, keysPrefix); ok {
		if key, there := from.Keys[kid]; there {
			snap.Keys[kid] = key
		}
	} else if issuer, ok := strings.CutPrefix(name, bundlesPrefix); ok {
		if set, there := from.Bundles[issuer]; there {
			snap.Bundles[issuer] = set
		}
	} else if key, ok := configName(name); ok && from.Config[key] != nil {
		snap.Config[key] = from.Config[key]
	}
}

// Unreadable counts the records that could not be read since the start.
func (s *Store) Unreadable() int64 { return s.unreadable.Load() }

func newSnapshot(revision int64) *Snapshot {
	return &Snapshot{
		Revision: revision,
		Config:   policy.State{},
		Keys:     map[string]keyset.Record{},
		Secrets:  map[string]clientauth.Secret{},
		Bundles:  map[string]bundle.Set{},
	}
}
