package store

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
)

// KEKFile reads key-encryption keys from a file that only its owner can read.
// If create is set and there is none, it is made with one key.
func KEKFile(path string, create bool) (Keyring, error) {
	text, err := ReadSecret(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		return createKEK(path)
	}
	if err != nil {
		return Keyring{}, fmt.Errorf("reading the key-encryption key: %w", err)
	}
	ring, err := ParseKeyring(text)
	if err != nil {
		return Keyring{}, fmt.Errorf("the key-encryption key %s is not usable: %w", path, err)
	}
	return ring, nil
}

func createKEK(path string) (Keyring, error) {
	line, err := newKEKLine()
	if err == nil {
		err = WriteSecret(path, line)
	}
	if err != nil {
		return Keyring{}, fmt.Errorf("making a key-encryption key: %w", err)
	}
	return ParseKeyring([]byte(line))
}

func newKEKLine() (string, error) {
	raw := make([]byte, kekBytes)
	if _, err := rand.Read(raw); err != nil {
		return "", err
	}
	return base64.StdEncoding.EncodeToString(raw) + "\n", nil
}

// AddKEK puts a new key in front of those of a file, which stay and can open
// what they sealed. After a stop on the way the file is as it was, or whole.
func AddKEK(path string) (Keyring, error) {
	text, err := ReadSecret(path)
	if err == nil {
		_, err = ParseKeyring(text)
	}
	if err != nil {
		return Keyring{}, fmt.Errorf("adding a key-encryption key to %s: %w", path, err)
	}
	line, err := newKEKLine()
	if err == nil {
		text = append([]byte(line), text...)
		err = replaceSecret(path, text)
	}
	if err != nil {
		return Keyring{}, fmt.Errorf("adding a key-encryption key to %s: %w", path, err)
	}
	return ParseKeyring(text)
}

// DropKEKs takes all keys out of a file but the one of an ID, which is for when
// nothing is sealed with the others any more. A file that doesn't hold it stays
// as it is.
func DropKEKs(path, keep string) error {
	text, err := ReadSecret(path)
	if err != nil {
		return fmt.Errorf("dropping older key-encryption keys: %w", err)
	}
	for line := range bytes.Lines(text) {
		if ring, err := ParseKeyring(line); err == nil && ring.ID() == keep {
			if err := replaceSecret(path, append(bytes.TrimSpace(line), '\n')); err != nil {
				return fmt.Errorf("dropping older key-encryption keys: %w", err)
			}
			return nil
		}
	}
	return fmt.Errorf("dropping older key-encryption keys: %s does not hold %s: put it back before the next start", path, keep)
}
