// Package rotation decides when the keys of the built-in issuer change: it brings
// together the keys, what the replicas have written down of their data planes, and
// who verifies which tokens. [Step] is what the leader does next, [Show] what people
// are told of it.
//
// The promise is that of docs/rotation.md: nothing signs for an audience before
// everybody who verifies its tokens has the key, and no key goes before its last
// token has ended. The rules of the keys are in issuer/keyset, those of the replicas
// in controlplane/ledger.
package rotation

import (
	"slices"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

// Mesh is what resources say that keys depend on.
type Mesh struct {
	// Audiences are all that tokens are issued for, each with who verifies them.
	Audiences map[string]Verifiers
	// Every and Algorithm are as in keyset.Facts.
	Every     time.Duration
	Algorithm string
	// Skew is the largest that a verifier in the mesh allows.
	Skew time.Duration
}

// Verifiers of an audience.
type Verifiers struct {
	// Services whose data planes accept its tokens.
	Services []string
	// Elsewhere: others read the keys from the JWKS endpoint.
	Elsewhere bool
}

// Moment is all that is known at one time.
type Moment struct {
	Now      time.Time
	Keys     keyset.Keys
	Mesh     Mesh
	Observer *ledger.Observer
	Bounds   ledger.Bounds
	// MaxAge is how long readers of the JWKS endpoint may keep what they read.
	MaxAge time.Duration
}

// Step is what is to be written next, by the leader alone. It holds if no key has
// changed since, and no member has joined.
func Step(m Moment) keyset.Change { return keyset.Step(m.Keys, m.facts()) }

func (m Moment) facts() keyset.Facts {
	f := keyset.Facts{
		Now: m.Now, Every: m.Mesh.Every, Algorithm: m.Mesh.Algorithm, Skew: m.Mesh.Skew,
		ClockError: m.Bounds.ClockError,
		Lifetime:   m.Observer.Lifetime(),
		Gate:       func(published int64, audience string) bool { return len(m.Gate(published, audience)) == 0 },
		Unsigned:   func(revision int64) bool { return len(m.Observer.Unsigned(revision, m.Now)) == 0 },
	}
	for audience := range m.Mesh.Audiences {
		f.Audiences = append(f.Audiences, audience)
	}
	slices.Sort(f.Audiences)
	return f
}

// Cached is a reason to wait: readers of the JWKS endpoint may have what was there
// before.
const Cached ledger.Why = "cached key set"

// Gate is what a key that was published at a revision waits for before it may sign
// for an audience.
func (m Moment) Gate(published int64, audience string) []ledger.Wait {
	v := m.Mesh.Audiences[audience]
	waits := m.Observer.Gate(published, v.Services, m.Now)
	if !v.Elsewhere {
		return waits
	}
	since, all := m.Observer.AppliedSince(published)
	if until := since.Add(m.MaxAge); all && !m.Now.After(until) {
		waits = append(waits, ledger.Wait{Why: Cached, Until: until})
	}
	return waits
}
