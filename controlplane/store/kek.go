package store

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
)

// KEK is a key-encryption key: it wraps the data keys that seal records.
type KEK interface {
	// ID tells keys apart without saying anything about them.
	ID() string
	// Wrap encrypts a data key, bound to what it is for.
	Wrap(key []byte, binding string) ([]byte, error)
	// Unwrap reverses Wrap; it fails if either differs.
	Unwrap(wrapped []byte, binding string) ([]byte, error)
}

const kekBytes = 32

// localKEK is an AES-256 key in memory.
type localKEK struct {
	id   string
	aead cipher.AEAD
}

// ParseKeyring reads key-encryption keys, one a line, each the base64 text of 32
// random bytes. The first is the current one; the others only open what was
// sealed with them.
func ParseKeyring(text []byte) (Keyring, error) {
	var keys []KEK
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) == 0 {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(string(line))
		if err != nil || len(raw) != kekBytes {
			return Keyring{}, errMalformedKEK
		}
		k, err := newKEK(raw)
		if err != nil {
			return Keyring{}, err
		}
		keys = append(keys, k)
	}
	if len(keys) == 0 {
		return Keyring{}, errMalformedKEK
	}
	return NewKeyring(keys[0], keys[1:]...), nil
}

var errMalformedKEK = errors.New("a key-encryption key is 32 random bytes in base64 on a line of its own, such as from: head -c 32 /dev/urandom | base64")

func newKEK(raw []byte) (KEK, error) {
	aead, err := gcm(raw)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(append([]byte("watchword kek id\x00"), raw...))
	return &localKEK{id: hex.EncodeToString(sum[:6]), aead: aead}, nil
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

func (k *localKEK) ID() string { return k.id }

func (k *localKEK) Wrap(key []byte, binding string) ([]byte, error) {
	return k.aead.Seal(nil, nil, key, []byte(binding)), nil
}

func (k *localKEK) Unwrap(wrapped []byte, binding string) ([]byte, error) {
	return k.aead.Open(nil, nil, wrapped, []byte(binding))
}
