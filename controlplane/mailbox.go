package controlplane

import (
	"slices"
	"sync"

	"github.com/watchword-mesh/watchword/controlplane/store"
)

// mailbox holds at most one event: one that comes while another is waiting is
// merged into it. Who is late sees the newest state and every name that
// changed.
type mailbox struct {
	full chan struct{}

	mu   sync.Mutex
	next *store.Event
}

func newMailbox() *mailbox {
	return &mailbox{full: make(chan struct{}, 1)}
}

func (m *mailbox) put(e store.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.Instances = slices.Clip(e.Instances) // the rest is the sender's
	e.Revocations = slices.Clip(e.Revocations)
	if m.next != nil {
		e.SigningKeys = e.SigningKeys || m.next.SigningKeys
		e.ClientSecrets = e.ClientSecrets || m.next.ClientSecrets
		e.CAs = e.CAs || m.next.CAs
		e.AdminToken = e.AdminToken || m.next.AdminToken
		// Not union: thousands may enrol at once. A name may be there twice.
		e.Instances = append(m.next.Instances, e.Instances...)
		e.Revocations = append(m.next.Revocations, e.Revocations...)
		e.Changed = union(e.Changed, m.next.Changed)
		e.Bundles = union(e.Bundles, m.next.Bundles)
	}
	m.next = &e
	select {
	case m.full <- struct{}{}:
	default:
	}
}

// union adds to a list what is missing of another.
func union[T comparable](list, more []T) []T {
	list = slices.Clip(list) // the rest is the sender's
	for _, v := range more {
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list
}

// take empties the mailbox. It returns nil if an earlier take, after the signal
// of a later put, was faster.
func (m *mailbox) take() *store.Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	e := m.next
	m.next = nil
	return e
}
