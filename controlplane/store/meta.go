package store

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// format is the version of everything under the prefix.
const format = 1

const metaKey = "meta"

// metaRecord is written once, at the first start.
type metaRecord struct {
	Format  int       `json:"format"`
	Created time.Time `json:"created"`
	// Pepper is the key under which client secrets are hashed.
	Pepper sealed `json:"pepper"`
}

// Setup is what the first start on a prefix writes.
type Setup struct {
	Issuer  *policyv1.Resource
	Created time.Time
}

// Initialized says whether a first start has been on the prefix. It needs no
// key-encryption key.
func (s *Store) Initialized(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.client.Get(ctx, s.prefix+metaKey, clientv3.WithCountOnly())
	if err != nil {
		return false, fmt.Errorf("reading etcd: %w", explain(err))
	}
	return resp.Count > 0, nil
}

// Init prepares an empty prefix, or checks that this program and this
// key-encryption key fit to what is there. It returns the pepper of client
// secrets, and whether the prefix was empty.
func (s *Store) Init(ctx context.Context, setup Setup) (pepper []byte, first bool, err error) {
	ring, done := s.kek.begin()
	defer done()
	value, err := s.newMeta(ring, setup.Created)
	if err != nil {
		return nil, false, err
	}
	issuer, err := s.encodeResource(ring, setup.Issuer)
	if err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	key := s.prefix + metaKey
	resp, err := s.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, value), clientv3.OpPut(s.prefix+configPrefix+"Issuer/"+setup.Issuer.GetMetadata().GetName(), string(issuer))).
		Else(clientv3.OpGet(key)).
		Commit()
	if err != nil {
		return nil, false, fmt.Errorf("preparing etcd: %w", explain(err))
	}
	if !resp.Succeeded {
		value = string(resp.Responses[0].GetResponseRange().Kvs[0].Value)
	}
	pepper, err = s.readMeta(value)
	return pepper, resp.Succeeded, err
}

func (s *Store) newMeta(ring Keyring, created time.Time) (string, error) {
	pepper := make([]byte, 32)
	if _, err := rand.Read(pepper); err != nil {
		return "", err
	}
	box, err := seal(ring, pepper, s.prefix+metaKey)
	if err != nil {
		return "", err
	}
	return encodeJSON(metaRecord{Format: format, Created: created, Pepper: box})
}

func (s *Store) readMeta(value string) ([]byte, error) {
	var m metaRecord
	if err := json.Unmarshal([]byte(value), &m); err != nil {
		return nil, fmt.Errorf("the record %s%s in etcd can't be read: %w", s.prefix, metaKey, err)
	}
	if m.Format != format {
		return nil, fmt.Errorf("the data under %s have format %d, this version reads %d: use the version that wrote them, or another --etcd-prefix", s.prefix, m.Format, format)
	}
	pepper, err := open(s.kek.ring(), m.Pepper, s.prefix+metaKey)
	if err != nil {
		return nil, fmt.Errorf("the record %s%s in etcd can't be opened: %w", s.prefix, metaKey, err)
	}
	return pepper, nil
}
