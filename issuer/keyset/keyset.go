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
// So far an issuer has this one active key and nothing else. A [Record] in any
// other state is refused rather than guessed at, because publishing it, or
// not, could break the rule.
//
// The package has no clock and does no I/O. What is stored is a Record, what
// signs and is published is a [Set]; a change is a new Set.
package keyset

import (
	"fmt"
	"time"

	"github.com/watchword-mesh/watchword/internal/jose"
)

// State is where a key is in its life.
type State string

// Active is the state of the key that signs.
const Active State = "active"

// Record is a key as the store keeps it.
type Record struct {
	// KeyID is the RFC 7638 thumbprint of the public key. It is never used
	// again for another key.
	KeyID string
	// Algorithm is the JWA name (RFC 7518 section 3.1) that the key signs with.
	Algorithm string
	State     State
	// Created is in UTC.
	Created time.Time
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
		State:        Active,
		Created:      now.UTC(),
		PublicJWK:    private.Public().JWK(),
		PrivatePKCS8: der,
	}, nil
}

// parse gives the private key of a record that agrees with itself. Records are
// sealed with their key ID, so a difference means a fault of ours or a store
// that somebody else wrote to; neither may sign.
func (r Record) parse() (*jose.PrivateKey, error) {
	if r.State != Active {
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
