package store

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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

// ParseKEK reads the base64 text of 32 random bytes.
func ParseKEK(text []byte) (KEK, error) {
	raw, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil || len(raw) != kekBytes {
		return nil, errors.New("a key-encryption key is 32 random bytes in base64, such as from: head -c 32 /dev/urandom | base64")
	}
	return newKEK(raw)
}

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

// KEKFile reads a key-encryption key from a file that only its owner can
// read. If create is set and there is none, it is made.
func KEKFile(path string, create bool) (KEK, error) {
	text, err := ReadSecret(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		return createKEK(path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the key-encryption key: %w", err)
	}
	k, err := ParseKEK(text)
	if err != nil {
		return nil, fmt.Errorf("the key-encryption key %s is not usable: %w", path, err)
	}
	return k, nil
}

func createKEK(path string) (KEK, error) {
	raw := make([]byte, kekBytes)
	if _, err := rand.Read(raw); err != nil {
		return nil, err
	}
	if err := WriteSecret(path, base64.StdEncoding.EncodeToString(raw)+"\n"); err != nil {
		return nil, fmt.Errorf("making a key-encryption key: %w", err)
	}
	return newKEK(raw)
}

// WriteSecret makes a file that only its owner can read: whole, or not at all
// if the process or the machine stops on the way. It never overwrites one.
func WriteSecret(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// ReadSecret reads a file that only its owner may be able to read.
func ReadSecret(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s can be read by others (mode %04o): chmod 600 it", path, info.Mode().Perm())
	}
	return os.ReadFile(path)
}
