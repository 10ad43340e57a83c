package controlplane

import (
	"slices"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/controlplane/bundle"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/internal/jose"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// issuerKeys returns the keys of an Issuer other than the built-in one: those
// that it holds itself, or the last good set that was fetched for it.
func issuerKeys(name string, spec *policyv1.IssuerSpec, bundles map[string]bundle.Set) ([]jose.Key, []policy.Fault) {
	source, fetched := bundle.SourceOf(name, spec)
	if !fetched {
		return policy.IssuerKeys(spec)
	}
	keys, wrong := source.Keys(bundles[name])
	var faults []policy.Fault
	for _, f := range wrong {
		faults = append(faults, policy.Fault{Field: "spec.keySet.jwksUri", Message: f.Error()})
	}
	return keys, faults
}

// tellFetcher says which key sets are to be fetched, when that or what is
// stored of them has changed.
func (l *loop) tellFetcher(e store.Event) {
	isIssuer := func(k policy.Key) bool { return k.Kind == policy.KindIssuer }
	if l.fetcher == nil || len(e.Bundles) == 0 && !slices.ContainsFunc(e.Changed, isIssuer) {
		return
	}
	var sources []bundle.Source
	for k, r := range e.Snapshot.Config {
		if s, ok := bundle.SourceOf(k.Name, r.GetIssuer()); ok {
			sources = append(sources, s)
		}
	}
	l.fetcher.SetSources(e.Snapshot.Revision, sources, e.Snapshot.Bundles)
}

func issuerNames(rs *dataplanev1.Ruleset) []string {
	var names []string
	for _, i := range rs.GetIssuers() {
		names = append(names, i.GetName())
	}
	return names
}

// keyUnknown asks for the key sets of a service at once, since a data plane of
// it has refused a token for its key: an issuer may have a new one. Which issuer
// a token that did not verify is from, nobody can say. It does not block, and
// strangers may cause it as often as they like.
func (l *loop) keyUnknown(service string) {
	names, ok := l.verifiedBy.Load(service)
	if !ok || l.fetcher == nil {
		return
	}
	for _, name := range names.([]string) {
		l.fetcher.Refetch(name)
	}
}

// keySets implements api.KeySets.
type keySets struct{ fetcher *bundle.Manager }

func (k keySets) Status(issuer string) *adminv1.KeySetStatus {
	s, ok := k.fetcher.Status(issuer)
	if !ok {
		return nil
	}
	out := &adminv1.KeySetStatus{LeftOut: s.Set.LeftOut, Error: s.Error}
	// Only what is in force now; the rest is in LeftOut from the next fetch on.
	keys, _ := s.Source.Keys(s.Set)
	for _, key := range keys {
		out.Keys = append(out.Keys, &adminv1.KeyStatus{Kid: key.ID(), Algorithm: key.Algorithm()})
	}
	for field, t := range map[**timestamppb.Timestamp]int64{
		&out.Fetched: s.Set.Fetched.Unix(), &out.Changed: s.Set.Changed.Unix(), &out.Attempted: s.Attempted.Unix(), &out.Next: s.Next.Unix(),
	} {
		if t > 0 { // the zero time is long before
			*field = &timestamppb.Timestamp{Seconds: t}
		}
	}
	return out
}
