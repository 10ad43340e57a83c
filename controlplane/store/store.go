// Package store keeps what must not be lost in etcd, and is the only package
// that speaks to it: an etcd inside the process, or an existing cluster,
// through the same client.
//
// Everything lies under one prefix:
//
//	meta                     format, ids, and the sealed pepper of client secrets
//	config/KIND/NAME         resources as protobuf; sealed when they hold secrets
//	config/.fence            touched by each write of resources
//	keys/KID                 signing keys, their private halves sealed
//	ca/ID                    CAs that sign certificates of instances, sealed alike
//	secrets/SERVICE/ID       hashes of client secrets
//	jointokens/SERVICE/ID    hashes of join tokens, and who has used them
//	instances/SERVICE/ID     enrolled instances
//	enrolments/SERVICE       when all enrolments of a service were revoked
//	revoked/SERVICE/ID       instances that were revoked by name
//	revocations/ID           tokens that are refused although they verify
//	keys/.floor              written with each of those
//	admintoken               which admin token is valid
//	bundles/ISSUER           the last good key set that was fetched for an Issuer
//	kek/ID                   keys that a plug-in wrapped
//	audit/TIME               what people have done, newest first
//	audit/refused/TIME       what was refused, which must not push out what was done
//	replica                  who serves on an existing cluster, under a lease
//
// Writes of resources are fenced: a transaction goes through only if no other
// has written resources since the revision that the writer looked at, so that
// checks between resources hold in what is stored. etcd's revision is the clock
// of the whole system.
//
// What people write carries an audit entry, stored by the same transaction.
package store

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	clientv3 "go.etcd.io/etcd/client/v3"
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

// Errors that callers tell apart.
var (
	// ErrConflict means that what the writer looked at has changed since: read it
	// again, and judge anew.
	ErrConflict = errors.New("what is stored has changed meanwhile")
	// ErrNoService means that the service is not there, or no more.
	ErrNoService = errors.New("there is no such service")
	// ErrUnknown means that the record is not there, or no more.
	ErrUnknown = errors.New("there is no such record")
)

// Store is the open database.
type Store struct {
	client *clientv3.Client
	server *embedded // nil with an existing cluster
	prefix string
	kek    sealers
	log    hclog.Logger

	unreadable atomic.Int64
	rotating   sync.Mutex
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

// UseKeyring sets the key-encryption keys, which seal private keys and shared
// secrets. It comes before anything that reads or writes records.
func (s *Store) UseKeyring(r Keyring) { s.kek.use(r) }

// Keyring is the one in use.
func (s *Store) Keyring() Keyring { return s.kek.ring() }

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
