package jose

import (
	"errors"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
)

// readHeader reads the first segment of a token.
func readHeader(encoded string) (*joseHeader, error) {
	if h := headers.get(encoded); h != nil {
		return h, nil
	}
	b, err := segment("header", encoded)
	if err != nil {
		return nil, err
	}
	h := new(joseHeader)
	if err := h.read(b); errors.Is(err, ErrAlgorithm) {
		return nil, err
	} else if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	return h, nil
}

// read judges alg first: a token that nobody here could verify is refused for that.
func (h *joseHeader) read(b []byte) (err error) {
	if len(b) > maxHeaderBytes {
		return fmt.Errorf("%d bytes; at most %d are read", len(b), maxHeaderBytes)
	}
	if h.members, err = object(b); err != nil {
		return err
	}
	named, err := h.text("alg", &h.header.Algorithm)
	if err != nil {
		return err
	}
	if !named {
		return errors.New("no alg")
	}
	if h.alg = algorithmByName[h.header.Algorithm]; h.alg == nil {
		return fmt.Errorf("%w: %s", ErrAlgorithm, unknownAlgorithm(h.header.Algorithm))
	}
	if _, err := h.text("kid", &h.header.KeyID); err != nil {
		return err
	}
	if _, err := h.text("typ", &h.header.Type); err != nil {
		return err
	}
	for _, m := range h.members {
		// A critical extension must be understood or refused (RFC 7515, section
		// 4.1.11), and we understand none; b64 (RFC 7797) is nothing without crit.
		if m.name == "crit" || m.name == "b64" {
			h.critical, h.header.Critical = m.name, true
		}
	}
	return nil
}

// text reads a member that must be a string if it is there.
func (h *joseHeader) text(name string, into *string) (present bool, err error) {
	for _, m := range h.members {
		if m.name != name {
			continue
		}
		var ok bool
		if *into, ok = text(m.value); !ok {
			return true, fmt.Errorf("%s is not a string", name)
		}
		return true, nil
	}
	return false, nil
}

// headers remembers headers of tokens that a key has verified: an issuer's tokens have
// one for each of its keys. Nobody else can put one in.
var headers headerMemo

// maxHeaders bounds it, together with maxHeaderBytes, to half a MiB. An issuer that
// writes something of the token into the header has no use of it.
const maxHeaders = 128

type headerMemo struct {
	known atomic.Pointer[map[string]*joseHeader] // replaced, never changed
	mu    sync.Mutex                             // for who replaces it
}

func (m *headerMemo) get(encoded string) *joseHeader {
	if known := m.known.Load(); known != nil {
		return (*known)[encoded]
	}
	return nil
}

func (m *headerMemo) keep(encoded string, h *joseHeader) {
	if m.get(encoded) != nil || !m.mu.TryLock() {
		return
	}
	defer m.mu.Unlock()
	next := map[string]*joseHeader{}
	if known := m.known.Load(); known != nil && len(*known) < maxHeaders {
		next = maps.Clone(*known)
	}
	next[string([]byte(encoded))] = h // without the rest of the token
	m.known.Store(&next)
}
