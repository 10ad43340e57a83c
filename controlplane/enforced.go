package controlplane

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/watchword-mesh/watchword/controlplane/revocation"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/controlplane/xds"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// enforced is what the data planes of a service were last given, for those who ask
// beside the loop. It doesn't change.
type enforced struct {
	ruleset     *dataplanev1.Ruleset
	accepted    revocation.Accepted
	revocations *dataplanev1.Revocations
	entries     int
}

// enforcedServices has an enforced for each service by name.
type enforcedServices struct{ services sync.Map }

func (s *enforcedServices) set(t translation) {
	s.services.Store(t.service, enforced{t.ruleset, t.accepted, t.revocations, revocation.Size(t.revocations)})
}

func (s *enforcedServices) forget(service string) { s.services.Delete(service) }

func (s *enforcedServices) of(service string) enforced {
	e, _ := s.services.Load(service)
	out, _ := e.(enforced)
	return out
}

func (s *enforcedServices) all() iter.Seq2[string, enforced] {
	return func(yield func(string, enforced) bool) {
		s.services.Range(func(name, e any) bool { return yield(name.(string), e.(enforced)) })
	}
}

// rulesets are all of them.
func (s *enforcedServices) rulesets() iter.Seq[*dataplanev1.Ruleset] {
	return func(yield func(*dataplanev1.Ruleset) bool) {
		for _, e := range s.all() {
			if !yield(e.ruleset) {
				return
			}
		}
	}
}

// concerned are the services that have to enforce one of the entries, in order.
func (s *enforcedServices) concerned(entries ...revocation.Entry) []string {
	var names []string
	for name, e := range s.all() {
		if slices.ContainsFunc(entries, e.accepted.Concerns) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// largest is the service with the most entries, and how many they are.
func (s *enforcedServices) largest() (service string, entries int) {
	for name, e := range s.all() {
		if e.entries > entries || e.entries == entries && entries > 0 && name < service {
			service, entries = name, e.entries
		}
	}
	return service, entries
}

// tooMany is why a revocation, or a change of policies, is refused.
func tooMany(service string, entries int) string {
	return fmt.Sprintf("service %q would have to enforce %d revocations; at most %d. One of a subject, of an instance, or of all that was issued before a time stands for many tokens, and so does a signing key that is revoked; `watchword revocations delete` takes away what is not needed", service, entries, revocation.MaxEntries)
}

// revoke makes what is refused anew for the services that an event concerns and that
// are not in out yet. Their rulesets stay as they are, and are not looked at.
func (l *loop) revoke(e store.Event, before map[string]revocation.Entry, out map[string][]xds.Resource) {
	var entries []revocation.Entry
	for _, id := range e.Revocations {
		for _, known := range []map[string]revocation.Entry{before, e.Snapshot.Revocations} {
			if entry, ok := known[id]; ok {
				entries = append(entries, entry)
			}
		}
	}
	if len(entries) == 0 {
		return
	}
	for _, name := range l.enforced.concerned(entries...) {
		last, known := l.last[name]
		if _, done := out[name]; done || !known {
			continue
		}
		now := last.revoking(e.Snapshot.Revocations)
		switch {
		case now.err != nil:
			l.metrics.failures.Inc()
			l.log.Error("the revocations of a service can't be translated for its data planes; they keep what they have", "service", name, "error", now.err)
		case now.revocations != last.revocations:
			l.last[name] = now
			l.enforce(now)
			out[name] = now.resources
		}
	}
}

// enforce tells those who ask beside the loop.
func (l *loop) enforce(t translation) {
	l.enforced.set(t)
	l.published.set(t.service, t.ruleset, t.revocations)
}

// entries are those of a snapshot that a service has to enforce.
func (e enforced) list(all map[string]revocation.Entry) []revocation.Entry {
	return slices.DeleteFunc(slices.Collect(maps.Values(all)), func(r revocation.Entry) bool { return !e.accepted.Concerns(r) })
}
