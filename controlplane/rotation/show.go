package rotation

import (
	"slices"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

// Key is what is to be known of one key.
type Key struct {
	keyset.Record
	// Audiences that it signs for.
	Audiences []string
	// Next says what happens to it next, When that is due, and Waits what it waits for;
	// zero and empty if there is nothing.
	Next  Event
	When  time.Time
	Waits []AudienceWait
}

// Event is what happens to a key next.
type Event string

// The events.
const (
	// Signs: it begins to sign.
	Signs Event = "signs"
	// HandsOver: the next one takes over from it.
	HandsOver Event = "hands over"
	// Goes: it is published no more.
	Goes Event = "goes"
)

// AudienceWait is what a key waits for before it may sign for an audience; without one
// before it may go.
type AudienceWait struct {
	Audience string
	ledger.Wait
}

// Show is the keys in the order of their states, and of their age.
func Show(m Moment) []Key {
	var out []Key
	due, scheduled := keyset.Due(m.Keys, m.Mesh.Every, m.Mesh.Algorithm)
	for _, r := range m.Keys.InOrder() {
		k := Key{Record: r}
		for audience := range m.Mesh.Audiences {
			if m.Keys.Open.For(audience) == r.KeyID {
				k.Audiences = append(k.Audiences, audience)
			}
		}
		slices.Sort(k.Audiences)
		switch r.State {
		case keyset.Standby:
			k.Waits = m.missing(r, m.facts().Audiences)
			if k.Next = Signs; scheduled {
				k.When = due
			}
		case keyset.Active:
			m.showActive(&k, due, scheduled)
		case keyset.Retiring:
			k.Next = Goes
			if !r.Unsigned.IsZero() {
				k.When = m.facts().Ends(r)
			}
			for _, w := range m.Observer.Unsigned(r.Revision, m.Now) {
				if r.Unsigned.IsZero() {
					k.Waits = append(k.Waits, AudienceWait{Wait: w})
				}
			}
		}
		out = append(out, k)
	}
	return out
}

// showActive tells the newest of the keys that sign from those that others have taken
// over from, but for some audiences.
func (m Moment) showActive(k *Key, due time.Time, scheduled bool) {
	newest := m.Keys.Open.Active
	if k.KeyID != newest {
		k.Next = HandsOver
		k.Waits = m.missing(m.Keys.Records[newest], k.Audiences)
		return
	}
	if scheduled {
		k.Next, k.When = HandsOver, due
	}
}

// missing is what a key waits for before it signs for each of the audiences.
func (m Moment) missing(r keyset.Record, audiences []string) []AudienceWait {
	var out []AudienceWait
	for _, audience := range audiences {
		for _, w := range m.Gate(r.Published, audience) {
			out = append(out, AudienceWait{Audience: audience, Wait: w})
		}
	}
	return out
}
