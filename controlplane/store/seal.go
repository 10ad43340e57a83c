package store

import (
	"crypto/rand"
	"fmt"
)

// sealed is a record under envelope encryption: a fresh data key seals the
// content, the KEK wraps the data key. Both are bound to the record's place.
type sealed struct {
	KEK     string `json:"kek"`
	Key     []byte `json:"key"`
	Content []byte `json:"content"`
}

func seal(kek KEK, plain []byte, binding string) (sealed, error) {
	key := make([]byte, kekBytes)
	if _, err := rand.Read(key); err != nil {
		return sealed{}, err
	}
	aead, err := gcm(key)
	if err != nil {
		return sealed{}, err
	}
	wrapped, err := kek.Wrap(key, binding)
	if err != nil {
		return sealed{}, fmt.Errorf("wrapping a data key: %w", err)
	}
	return sealed{KEK: kek.ID(), Key: wrapped, Content: aead.Seal(nil, nil, plain, []byte(binding))}, nil
}

func open(kek KEK, box sealed, binding string) ([]byte, error) {
	if box.KEK != kek.ID() {
		return nil, fmt.Errorf("it is sealed with the key-encryption key %s, but %s was given: use --kek-file or WATCHWORD_KEK with the one that was used at first", box.KEK, kek.ID())
	}
	key, err := kek.Unwrap(box.Key, binding)
	if err != nil {
		return nil, fmt.Errorf("its data key can't be unwrapped; it was changed or moved: %w", err)
	}
	aead, err := gcm(key)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, box.Content, []byte(binding))
	if err != nil {
		return nil, fmt.Errorf("its content can't be opened; it was changed or moved: %w", err)
	}
	return plain, nil
}
