// Package keyset is the life of the keys that the built-in issuer signs with.
//
// A key is in one of these states:
//
//	standby   published to every verifier; does not sign yet
//	active    signs
//	retiring  signs no more; published until its last token has expired
//	gone      not published
//
// and it can be revoked at any time, which takes it out of the published keys
// at once. There is one rule: nothing signs before everyone can verify. A key
// therefore becomes active only from standby, with one exception: the first
// key of an issuer, made by [First], is active at once, since no verifier
// could hold an older one.
//
// Which of several active keys signs for an audience, [Open] says: a new key
// takes over audience by audience, each as soon as all that verify tokens for it
// have the key.
//
// The package has no clock and does no I/O. What is stored is a Record, what
// signs and is published is a [Set]; a change is a new Set.
package keyset

import (
	"fmt"
	"slices"
	"time"

	"github.com/watchword-mesh/watchword/internal/jose"
)

// State is where a key is in its life.
type State string

// The states; a key that is gone has no record.
const (
	Standby  State = "standby"
	Active   State = "active"
	Retiring State = "retiring"
	Revoked  State = "revoked"
)

// Open says which key signs for which audience: one value, so that every replica
// goes from one state to the next as a whole.
type Open struct {
	// Active is the ID of the key that signs.
	Active string `json:"active"`
	// Except has the audiences that an older key still signs for, and that key's ID.
	Except map[string]string `json:"except,omitempty"`
	// Asked is when somebody asked that the next key takes over, until it does.
	Asked time.Time `json:"asked,omitzero"`
	// Revision is that of its last change; etcd's own.
	Revision int64 `json:"-"`
}

// For is the ID of the key that signs for an audience.
func (o Open) For(audience string) string {
	if kid, older := o.Except[audience]; older {
		return kid
	}
	return o.Active
}

// Record is a key as the store keeps it.
type Record struct {
	// KeyID is the RFC 7638 thumbprint of the public key. It is never used
	// again for another key.
	KeyID string
	// Algorithm is the JWA name (RFC 7518 section 3.1) that the key signs with.
	Algorithm string
	State     State
	// Created, in UTC, is when the key was published.
	Created time.Time
	// Activated is when it began to sign, and Unsigned since when nobody signs with
	// it; zero before that.
	Activated, Unsigned time.Time
	// Lifetime is the longest of a token that it has signed, as far as is known here.
	Lifetime time.Duration
	// Published is the revision that the key was published at, and Revision that of
	// the last change of its record; etcd's own.
	Published, Revision int64
	// PublicJWK is the canonical JSON of the public key.
	PublicJWK string
	// PrivatePKCS8 is the private key, DER. The store seals it; it belongs
	// into no log and no answer.
	PrivatePKCS8 []byte
}

// String names the key without showing it.
func (r Record) String() string {
	return fmt.Sprintf("signing key %s (%s, %s)", r.KeyID, r.Algorithm, r.State)
}

// GoString is String, so that no way of printing shows the private key.
func (r Record) GoString() string { return r.String() }

// First makes the first key of an issuer: a new active key for the JWA name alg.
func First(alg string, now time.Time) (Record, error) {
	r, err := New(alg, now)
	r.State, r.Activated = Active, r.Created
	return r, err
}

// New makes a standby for the JWA name alg.
func New(alg string, now time.Time) (Record, error) {
	private, err := jose.GenerateKey(alg)
	if err != nil {
		return Record{}, fmt.Errorf("generating a signing key: %w", err)
	}
	der, err := private.PKCS8()
	if err != nil {
		return Record{}, fmt.Errorf("encoding signing key %s: %w", private.ID(), err)
	}
	return Record{
		KeyID:        private.ID(),
		Algorithm:    private.Algorithm(),
		State:        Standby,
		Created:      now.UTC(),
		PublicJWK:    private.Public().JWK(),
		PrivatePKCS8: der,
	}, nil
}

// parse gives the private key of a record that agrees with itself. Records are
// sealed with their key ID, so a difference means a fault of ours or a store
// that somebody else wrote to; neither may sign.
func (r Record) parse() (*jose.PrivateKey, error) {
	if !slices.Contains([]State{Standby, Active, Retiring}, r.State) {
		return nil, fmt.Errorf("signing key %s is in state %q, which this version does not know; was it written by a newer version?", r.KeyID, r.State)
	}
	private, err := jose.ParsePrivateKey(r.PrivatePKCS8, r.Algorithm)
	if err != nil {
		return nil, fmt.Errorf("reading signing key %s: %w", r.KeyID, err)
	}
	if private.ID() != r.KeyID {
		return nil, fmt.Errorf("signing key %s: its private key has the thumbprint %s", r.KeyID, private.ID())
	}
	if r.PublicJWK != private.Public().JWK() {
		return nil, fmt.Errorf("signing key %s: its public key is not that of its private key", r.KeyID)
	}
	return private, nil
}
