// Package clientauth answers who asks at the token endpoint.
//
// A service proves who it is by a client secret: its client_id is its name,
// the secret is one that [NewSecret] made. Secrets have 256 random bits, so
// they can't be guessed and need no slow hash, which would let strangers make
// us work; what is kept is an HMAC under a pepper that is not kept beside it.
// A service may have several secrets at once, so that they can be replaced
// without a moment at which none is right.
//
// An enrolled instance of a service needs no secret: it signs a client assertion
// with its key (RFC 7523), which is good for one request. See
// [Authenticator.VerifyAssertion].
//
// Nothing here tells a caller which part was wrong: an unknown service and a
// wrong secret give the same error after the same work, and so do an unknown
// instance and a wrong signature.
package clientauth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"
)

// SecretPrefix begins every client secret, so that scanners for leaked secrets
// can find them in code and logs. The rest is letters and digits, so that a
// secret is the same with and without form-encoding.
const SecretPrefix = "wwcs_"

// MinPepper is the least length of a pepper, in bytes.
const MinPepper = 32

// Secret is a client secret as the store keeps it: enough to know it again,
// not enough to use it.
type Secret struct {
	// ID names the secret in lists, logs and audit. It says nothing about it.
	ID string
	// Service is whom it belongs to; the hash covers the name, so that a
	// record moved to another service is worth nothing.
	Service string
	// Hash is the HMAC-SHA-256 of service and secret under the pepper.
	Hash []byte
	// Created is in UTC.
	Created time.Time
}

// NewSecret makes a client secret for the service. The plain text is to be
// shown once and kept nowhere.
func NewSecret(service string, pepper []byte, now time.Time) (plain string, s Secret, err error) {
	if service == "" {
		return "", Secret{}, errors.New("a client secret needs the name of a service")
	}
	if len(pepper) < MinPepper {
		return "", Secret{}, fmt.Errorf("the pepper for client secrets has %d bytes; it needs at least %d", len(pepper), MinPepper)
	}
	// One Text has at least 128 bits.
	plain = SecretPrefix + rand.Text() + rand.Text()
	return plain, Secret{
		ID:      rand.Text()[:13],
		Service: service,
		Hash:    digest(pepper, service, plain),
		Created: now.UTC(),
	}, nil
}

// digest is what is kept of a secret. The names in front keep it apart from
// any other use of the pepper.
func digest(pepper []byte, service, secret string) []byte {
	mac := hmac.New(sha256.New, pepper)
	mac.Write([]byte("watchword client secret\x00" + service + "\x00" + secret))
	return mac.Sum(nil)
}
