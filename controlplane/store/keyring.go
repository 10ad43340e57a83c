package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Keyring is the key-encryption key that records are sealed with, and older ones
// that can still open what was sealed with them.
type Keyring struct {
	current KEK
	older   []KEK
}

// NewKeyring makes a Keyring. A key that is there already is left out.
func NewKeyring(current KEK, older ...KEK) Keyring {
	r := Keyring{current: current}
	for _, k := range older {
		if r.find(k.ID()) == nil {
			r.older = append(r.older, k)
		}
	}
	return r
}

// ID is that of the current key.
func (r Keyring) ID() string {
	if r.current == nil {
		return ""
	}
	return r.current.ID()
}

// IDs are those of all keys, the current one first.
func (r Keyring) IDs() []string {
	if r.current == nil {
		return nil
	}
	ids := []string{r.current.ID()}
	for _, k := range r.older {
		ids = append(ids, k.ID())
	}
	return ids
}

// With adds all keys of another Keyring as older ones.
func (r Keyring) With(other Keyring) Keyring {
	if other.current == nil {
		return r
	}
	older := append(append([]KEK{}, r.older...), other.current)
	return NewKeyring(r.current, append(older, other.older...)...)
}

func (r Keyring) find(id string) KEK {
	if r.current != nil && r.current.ID() == id {
		return r.current
	}
	for _, k := range r.older {
		if k.ID() == id {
			return k
		}
	}
	return nil
}

var errNoKEK = errors.New("no key-encryption key was given to the store")

// opener gives the key that a box was sealed with.
func (r Keyring) opener(id string) (KEK, error) {
	if r.current == nil {
		return nil, errNoKEK
	}
	if k := r.find(id); k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("it is sealed with the key-encryption key %s, but %s was given: add the key %s as a line of its own below the first in the file of --kek-file (or in WATCHWORD_KEK), or give the --kek-exec that it came from", id, strings.Join(r.IDs(), ", "), id)
}

// sealers hands out the Keyring, and knows who may still write what was sealed
// with an earlier one: a rotation must not end before they have.
type sealers struct {
	mu  sync.Mutex
	now *sealer
	// retired are earlier ones that somebody wrote with when they were replaced.
	retired []*sealer
}

type sealer struct {
	ring    Keyring
	writers int
	idle    chan struct{} // closed when it is retired and nobody writes with it
}

// ring is for reading.
func (s *sealers) ring() Keyring {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil {
		return Keyring{}
	}
	return s.now.ring
}

// begin is for writing: done comes after the write is in etcd, or has failed.
func (s *sealers) begin() (ring Keyring, done func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now == nil {
		s.now = &sealer{idle: make(chan struct{})}
	}
	with := s.now
	with.writers++
	return with.ring, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if with.writers--; with.writers == 0 && with != s.now {
			close(with.idle)
			s.retired = slices.DeleteFunc(s.retired, func(r *sealer) bool { return r == with })
		}
	}
}

// use sets the Keyring.
func (s *sealers) use(ring Keyring) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now != nil && s.now.writers > 0 {
		s.retired = append(s.retired, s.now)
	}
	s.now = &sealer{ring: ring, idle: make(chan struct{})}
}

// settle waits until nobody writes with any earlier Keyring.
func (s *sealers) settle(ctx context.Context) error {
	s.mu.Lock()
	waiting := slices.Clone(s.retired)
	s.mu.Unlock()
	for _, r := range waiting {
		select {
		case <-r.idle:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
