package store

import (
	"crypto/rand"
	"fmt"
	"strconv"
)

// sealed is a record under envelope encryption: a fresh data key seals the
// content, the KEK wraps the data key. Both are bound to the record's place.
type sealed struct {
	KEK     string `json:"kek"`
	Key     []byte `json:"key"`
	Content []byte `json:"content"`
	// Revision is the one at which the content was written, if the box was
	// sealed anew since: another key is no other content.
	Revision int64 `json:"revision,omitempty"`
}

// bound adds what a box says of itself to what it is bound to.
func (box sealed) bound(binding string) string {
	if box.Revision == 0 {
		return binding
	}
	return binding + "|revision " + strconv.FormatInt(box.Revision, 10)
}

func seal(ring Keyring, plain []byte, binding string) (sealed, error) {
	return sealAt(ring, plain, binding, 0)
}

func sealAt(ring Keyring, plain []byte, binding string, revision int64) (sealed, error) {
	if ring.current == nil {
		return sealed{}, errNoKEK
	}
	key := make([]byte, kekBytes)
	if _, err := rand.Read(key); err != nil {
		return sealed{}, err
	}
	aead, err := gcm(key)
	if err != nil {
		return sealed{}, err
	}
	box := sealed{KEK: ring.current.ID(), Revision: revision}
	if box.Key, err = ring.current.Wrap(key, box.bound(binding)); err != nil {
		return sealed{}, fmt.Errorf("wrapping a data key: %w", err)
	}
	box.Content = aead.Seal(nil, nil, plain, []byte(box.bound(binding)))
	return box, nil
}

func open(ring Keyring, box sealed, binding string) ([]byte, error) {
	kek, err := ring.opener(box.KEK)
	if err != nil {
		return nil, err
	}
	key, err := kek.Unwrap(box.Key, box.bound(binding))
	if err != nil {
		return nil, fmt.Errorf("its data key can't be unwrapped; it was changed or moved: %w", err)
	}
	aead, err := gcm(key)
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, nil, box.Content, []byte(box.bound(binding)))
	if err != nil {
		return nil, fmt.Errorf("its content can't be opened; it was changed or moved: %w", err)
	}
	return plain, nil
}
