package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"github.com/watchword-mesh/watchword/issuer/keyset"
)

// Names beside the keys: a key ID is a thumbprint in base64url, which has no dot.
const (
	// openKey has which key signs for which audience.
	openKey = keysPrefix + ".open"
	// floorKey is empty: what counts is when it was touched.
	floorKey = keysPrefix + ".floor"
)

// keyRecord is the stored form of a signing key.
type keyRecord struct {
	KeyID     string        `json:"kid"`
	Algorithm string        `json:"alg"`
	State     keyset.State  `json:"state"`
	Created   time.Time     `json:"created"`
	Activated time.Time     `json:"activated,omitzero"`
	Unsigned  time.Time     `json:"unsigned,omitzero"`
	Lifetime  time.Duration `json:"lifetime,omitempty"`
	Public    string        `json:"public"`
	// Private is missing in the record of a revoked key.
	Private sealed `json:"private,omitzero"`
}

// erased: the key is revoked, and its private half is not there any more.
func (r keyRecord) erased() bool {
	return r.State == keyset.Revoked && r.Private.KEK == "" && len(r.Private.Content) == 0
}

// binding is what a sealed private key is bound to: moved to another place, or
// beside another state or public key, it can't be opened.
func (r keyRecord) binding(prefix string) string {
	return strings.Join([]string{prefix + keysPrefix + r.KeyID, r.Algorithm, string(r.State), r.Created.UTC().Format(time.RFC3339Nano), r.Public}, "|")
}

// decodeKeys is decode for what is of the keys.
func (s *Store) decodeKeys(snap *Snapshot, name string, kv *mvccpb.KeyValue) (err error) {
	switch {
	case name == openKey:
		var o keyset.Open
		if o, err = decodeOpen(kv); err == nil {
			snap.Open = o
		}
	case name == floorKey:
		snap.Floor = kv.ModRevision
	case strings.HasPrefix(name, keysPrefix+"."):
	default:
		var k keyset.Record
		if k, err = s.decodeKey(name, kv); err == nil {
			snap.Keys[k.KeyID] = k
		}
	}
	return err
}

func decodeOpen(kv *mvccpb.KeyValue) (keyset.Open, error) {
	var o keyset.Open
	if err := json.Unmarshal(kv.Value, &o); err != nil {
		return keyset.Open{}, err
	}
	if o.Active == "" {
		return keyset.Open{}, errors.New("it names no key")
	}
	o.Revision = kv.ModRevision
	return o, nil
}

func (s *Store) decodeKey(name string, kv *mvccpb.KeyValue) (keyset.Record, error) {
	var r keyRecord
	if err := json.Unmarshal(kv.Value, &r); err != nil {
		return keyset.Record{}, err
	}
	if name != keysPrefix+r.KeyID {
		return keyset.Record{}, fmt.Errorf("it holds %s%s", keysPrefix, r.KeyID)
	}
	k := keyset.Record{
		KeyID: r.KeyID, Algorithm: r.Algorithm, State: r.State, Created: r.Created, PublicJWK: r.Public,
		Activated: r.Activated, Unsigned: r.Unsigned, Lifetime: r.Lifetime,
		Published: kv.CreateRevision, Revision: kv.ModRevision,
	}
	if r.erased() {
		return k, nil
	}
	private, err := open(s.kek.ring(), r.Private, r.binding(s.prefix))
	if err != nil {
		return keyset.Record{}, err
	}
	k.PrivatePKCS8 = private
	return k, nil
}

// encodeKey is the stored form of a key. That of a revoked one has no private half,
// whatever the record has.
func (s *Store) encodeKey(ring Keyring, k keyset.Record) (string, error) {
	r := keyRecord{
		KeyID: k.KeyID, Algorithm: k.Algorithm, State: k.State, Created: k.Created, Public: k.PublicJWK,
		Activated: k.Activated, Unsigned: k.Unsigned, Lifetime: k.Lifetime,
	}
	switch {
	case k.State == keyset.Revoked:
	case len(k.PrivatePKCS8) == 0:
		return "", fmt.Errorf("%s has no private key, and is not revoked", k)
	default:
		var err error
		if r.Private, err = seal(ring, k.PrivatePKCS8, r.binding(s.prefix)); err != nil {
			return "", err
		}
	}
	return encodeJSON(r)
}
