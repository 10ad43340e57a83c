// Package bundle holds the key sets that others publish at a URI: the control
// plane fetches each of them once for the whole mesh, data planes never do.
//
// Three things are kept apart. A fetch (fetch.go, network.go) gets bytes from
// where a policy author says, and from nowhere else: not from this host, its
// neighbours or the metadata service, unless the policy allows it. Their content
// (content.go) is checked key by key. The Manager (manager.go, schedule.go)
// decides when, and hands what differs to a Keeper; what is in force is what
// the Keeper holds, so that a failed fetch, an outage or a restart changes
// nothing.
package bundle

import (
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/internal/jose"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Set is the last good key set of an Issuer. It holds public keys only.
type Set struct {
	// Issuer is the name of the resource.
	Issuer string
	// Source is the URI that the set came from. It says nothing about keys of
	// an Issuer that has another one now.
	Source string
	// JWKS is the set as canonical text: sound keys only, public members only,
	// in an order of its own.
	JWKS string
	// LeftOut says which keys of the source are not in the set, and why.
	LeftOut []string
	// Changed is when the keys came to be, Fetched when the source last gave or
	// confirmed them.
	Changed, Fetched time.Time
	// Revision of the record, given by the store; 0 if it was never stored.
	Revision int64
}

// Source says where the keys of an Issuer are, and which of them may be used.
type Source struct {
	Issuer  string
	JWKSURI *policyv1.JwksUri
	Options jose.SetOptions
}

// SourceOf returns the Source of an Issuer whose keys are at a URI.
func SourceOf(name string, spec *policyv1.IssuerSpec) (Source, bool) {
	uri := spec.GetKeySet().GetJwksUri()
	return Source{
		Issuer:  name,
		JWKSURI: uri,
		Options: jose.SetOptions{Algorithms: spec.GetAlgorithms(), AllowWeak: spec.GetKeySet().GetAllowWeakKeys()},
	}, uri != nil
}

// Keys returns the keys of a set that may be used for a source today: none of a
// set from elsewhere, and none that the options of the Issuer no longer take.
func (s Source) Keys(from Set) ([]jose.Key, []jose.Fault) {
	if from.JWKS == "" || from.Source != s.JWKSURI.GetUri() {
		return nil, nil
	}
	keys, faults := jose.ParseSet([]byte(from.JWKS), s.Options)
	return slices.DeleteFunc(keys, jose.Key.Symmetric), faults
}

func (s Source) equal(o Source) bool {
	return s.Issuer == o.Issuer && proto.Equal(s.JWKSURI, o.JWKSURI) &&
		s.Options.AllowWeak == o.Options.AllowWeak && slices.Equal(s.Options.Algorithms, o.Options.Algorithms)
}

// The bounds of a source's times, and what holds where it says nothing.
const (
	DefaultInterval = 5 * time.Minute
	MinInterval     = 10 * time.Second
	DefaultTimeout  = 5 * time.Second
)

func (s Source) interval() time.Duration {
	if d := s.JWKSURI.GetInterval(); d != nil {
		return max(d.AsDuration(), MinInterval)
	}
	return DefaultInterval
}

func (s Source) timeout() time.Duration {
	if d := s.JWKSURI.GetTimeout().AsDuration(); d > 0 {
		return d
	}
	return DefaultTimeout
}
