package store

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/watchword-mesh/watchword/controlplane/bundle"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/issuer/ca"
	"github.com/watchword-mesh/watchword/issuer/clientauth"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

// difference is the event that leads from one snapshot to another.
func difference(from, to *Snapshot) Event {
	e := Event{Snapshot: to}
	for k, r := range to.Config {
		if old := from.Config[k]; old.GetMetadata().GetRevision() != r.GetMetadata().GetRevision() {
			e.Changed = append(e.Changed, k)
		}
	}
	for k := range from.Config {
		if to.Config[k] == nil {
			e.Changed = append(e.Changed, k)
		}
	}
	slices.SortFunc(e.Changed, policy.Key.Compare)
	sameSecret := func(a, b clientauth.Secret) bool { return a.ID == b.ID }
	e.SigningKeys = !maps.EqualFunc(from.Keys, to.Keys, sameKey) || !sameOpen(from.Open, to.Open)
	e.CAs = !maps.EqualFunc(from.CAs, to.CAs, sameCA)
	e.AdminToken = from.AdminToken.Revision != to.AdminToken.Revision
	e.Instances = differentInstances(from.Instances, to.Instances)
	e.ClientSecrets = !maps.EqualFunc(from.Secrets, to.Secrets, sameSecret)
	for _, sets := range []map[string]bundle.Set{from.Bundles, to.Bundles} {
		for issuer := range sets {
			// One that is not there has the revision 0.
			if from.Bundles[issuer].Revision != to.Bundles[issuer].Revision {
				e.Bundles = append(e.Bundles, issuer)
			}
		}
	}
	slices.Sort(e.Bundles)
	e.Bundles = slices.Compact(e.Bundles)
	return e
}

func sameKey(a, b keyset.Record) bool {
	return a.KeyID == b.KeyID && a.State == b.State && a.Unsigned.Equal(b.Unsigned)
}

func sameOpen(a, b keyset.Open) bool {
	return a.Active == b.Active && maps.Equal(a.Except, b.Except) && a.Asked.Equal(b.Asked)
}

func sameCA(a, b ca.Record) bool { return a.ID == b.ID && a.State == b.State }

// differentInstances are the names of those that came, were written or went.
func differentInstances(from, to Instances) []string {
	var names []string
	for i := range to.All() {
		if old, _ := from.Get(i.key()); old.Revision != i.Revision {
			names = append(names, i.key())
		}
	}
	for i := range from.All() {
		if _, there := to.Get(i.key()); !there {
			names = append(names, i.key())
		}
	}
	slices.Sort(names)
	return names
}

func merged[M ~map[K]V, K comparable, V any](m, delta M) M {
	out := maps.Clone(m)
	maps.Copy(out, delta)
	return out
}

func without[M ~map[K]V, K comparable, V any](m M, key K) M {
	out := maps.Clone(m)
	delete(out, key)
	return out
}

func encodeJSON(v any) (string, error) {
	b, err := json.Marshal(v)
	return string(b), err
}
