package store

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

// Event is the next state after a change, or after a loss of the watch. The
// snapshot is whole: who is late sees the newest state and misses nothing that
// matters.
type Event struct {
	Snapshot *Snapshot
	// Changed are the resources that differ from the event before, in order.
	Changed []policy.Key
	// SigningKeys, ClientSecrets, CAs and AdminToken say that those differ.
	SigningKeys, ClientSecrets, CAs, AdminToken bool
	// Instances are those, by SERVICE/ID, that came, were renewed or went.
	Instances []string
	// Bundles are the Issuers whose fetched key sets differ.
	Bundles []string
	// Revocations are the IDs of those that came, changed or went.
	Revocations []string
}

// retryPause is the time between attempts to watch again.
const retryPause = 500 * time.Millisecond

// Watch calls next with each change after a snapshot, in order and one at a
// time, until ctx ends. All changes of one revision come together. When etcd
// has compacted what was missed, or a watch breaks, the state is read anew and
// compared, so that deletions are not lost.
func (s *Store) Watch(ctx context.Context, from *Snapshot, next func(Event)) error {
	w := watched{state: from, revision: from.Revision}
	for {
		err := s.watchOnce(ctx, &w, next)
		if ctx.Err() != nil {
			return nil
		}
		s.log.Warn("watch of etcd broke; reading the state anew", "revision", w.revision, "error", err)
		if err := s.reload(ctx, &w, next); err != nil {
			return err
		}
	}
}

// watched is how far a watch has come.
type watched struct {
	state *Snapshot
	// revision of the last event, also if it was none that state is about. Only it is
	// as far as etcd is: state may be of long ago.
	revision int64
}

// watchOnce follows one watch until it breaks.
func (s *Store) watchOnce(ctx context.Context, w *watched, next func(Event)) error {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	watch := s.client.Watch(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithRev(w.revision+1),
		clientv3.WithCreatedNotify(), clientv3.WithProgressNotify())
	for resp := range watch {
		if err := resp.Err(); err != nil {
			return err
		}
		if resp.Header.Revision < w.revision {
			return wentBack(resp.Header.Revision, w.revision)
		}
		for len(resp.Events) > 0 {
			n := sameRevision(resp.Events)
			events := resp.Events[:n]
			resp.Events = resp.Events[n:]
			w.revision = events[0].Kv.ModRevision
			if s.aside(events) {
				continue
			}
			e := s.advance(w.state, events)
			w.state = e.Snapshot
			next(e)
		}
	}
	return errors.New("the watch ended")
}

// sameRevision counts the events at the front that belong to one transaction.
func sameRevision(events []*clientv3.Event) int {
	n := 1
	for n < len(events) && events[n].Kv.ModRevision == events[0].Kv.ModRevision {
		n++
	}
	return n
}

// aside says that nobody who follows the state is concerned: the events are of the
// audit, or of what replicas write of themselves. That a replica has joined does count,
// so that who joins knows by its revision that it has seen all of before.
func (s *Store) aside(events []*clientv3.Event) bool {
	for _, ev := range events {
		name := strings.TrimPrefix(string(ev.Kv.Key), s.prefix)
		if name == joinedKey || !strings.HasPrefix(name, auditPrefix) && !strings.HasPrefix(name, clusterPrefix) {
			return false
		}
	}
	return true
}

// advance applies the events of one revision to a copy of the state. A record
// that can't be read leaves the last one in force: one bad record must not keep
// everything else from changing.
func (s *Store) advance(state *Snapshot, events []*clientv3.Event) Event {
	next := *state
	snap := &next
	snap.Revision = events[0].Kv.ModRevision
	delta := newSnapshot(snap.Revision)
	e := Event{Snapshot: snap}
	for _, ev := range events {
		name := strings.TrimPrefix(string(ev.Kv.Key), s.prefix)
		if ev.Type == clientv3.EventTypePut {
			if err := s.decode(delta, ev.Kv); err != nil {
				s.log.Error("keeping the last good version of a record", "revision", snap.Revision, "error", err)
				s.unreadable.Add(1)
			}
		} else {
			s.remove(&e, name)
		}
	}
	snap.Instances = snap.Instances.without(e.Instances)
	e.put(state, delta)
	return e
}

// put merges decoded records into the event's own copies of the maps. One that
// was only sealed anew is no change.
func (e *Event) put(before, delta *Snapshot) {
	if len(delta.Config) > 0 {
		e.Snapshot.Config = merged(e.Snapshot.Config, delta.Config)
		for _, k := range delta.Config.Keys() {
			if before.Config[k].GetMetadata().GetRevision() != delta.Config[k].GetMetadata().GetRevision() {
				e.Changed = append(e.Changed, k)
			}
		}
	}
	if len(delta.Secrets) > 0 {
		e.Snapshot.Secrets, e.ClientSecrets = merged(e.Snapshot.Secrets, delta.Secrets), true
	}
	if len(delta.Bundles) > 0 {
		e.Snapshot.Bundles = merged(e.Snapshot.Bundles, delta.Bundles)
		e.Bundles = append(e.Bundles, slices.Sorted(maps.Keys(delta.Bundles))...)
	}
	e.putRevocations(before, delta)
	e.putIdentity(before, delta)
}

// putIdentity is put for what says who is who.
func (e *Event) putIdentity(before, delta *Snapshot) {
	if len(delta.Keys) > 0 {
		e.Snapshot.Keys = merged(e.Snapshot.Keys, delta.Keys)
	}
	if delta.Open.Revision > 0 {
		e.Snapshot.Open, e.SigningKeys = delta.Open, e.SigningKeys || !sameOpen(before.Open, delta.Open)
	}
	e.Snapshot.Floor = max(before.Floor, delta.Floor)
	for kid, k := range delta.Keys {
		e.SigningKeys = e.SigningKeys || !sameKey(before.Keys[kid], k)
	}
	if len(delta.CAs) > 0 {
		e.Snapshot.CAs = merged(e.Snapshot.CAs, delta.CAs)
	}
	for id, c := range delta.CAs {
		e.CAs = e.CAs || !sameCA(before.CAs[id], c)
	}
	if len(delta.RevokedBefore) > 0 {
		e.Snapshot.RevokedBefore = merged(e.Snapshot.RevokedBefore, delta.RevokedBefore)
	}
	if delta.AdminToken.Revision > 0 {
		e.Snapshot.AdminToken, e.AdminToken = delta.AdminToken, true
	}
	e.Snapshot.Instances = e.Snapshot.Instances.merged(delta.Instances)
	for i := range delta.Instances.All() {
		e.Instances = append(e.Instances, i.key())
	}
	slices.Sort(e.Instances)
}

// remove takes one record out of the event's own copies of the maps. Instances
// go together at the end.
func (s *Store) remove(e *Event, name string) {
	snap := e.Snapshot
	if id, ok := strings.CutPrefix(name, secretsPrefix); ok {
		snap.Secrets, e.ClientSecrets = without(snap.Secrets, id), true
	} else if name == openKey {
		snap.Open, e.SigningKeys = keyset.Open{}, true
	} else if id, ok := revocationID(name); ok {
		snap.Revocations = without(snap.Revocations, id)
		e.Revocations = append(e.Revocations, id)
	} else if kid, ok := strings.CutPrefix(name, keysPrefix); ok {
		snap.Keys, e.SigningKeys = without(snap.Keys, kid), true
	} else if id, ok := strings.CutPrefix(name, casPrefix); ok {
		snap.CAs, e.CAs = without(snap.CAs, id), true
	} else if key, ok := strings.CutPrefix(name, instancesPrefix); ok {
		e.Instances = append(e.Instances, key)
	} else if service, ok := strings.CutPrefix(name, enrolmentsPrefix); ok {
		snap.RevokedBefore = without(snap.RevokedBefore, service)
	} else if issuer, ok := strings.CutPrefix(name, bundlesPrefix); ok {
		snap.Bundles = without(snap.Bundles, issuer)
		e.Bundles = append(e.Bundles, issuer)
	} else if key, ok := configName(name); ok {
		snap.Config = without(snap.Config, key)
		e.Changed = append(e.Changed, key)
	} else if name == adminTokenKey {
		snap.AdminToken, e.AdminToken = AdminTokenState{}, true
	}
}

// reload reads the state until it succeeds or ctx ends, and reports how it
// differs.
func (s *Store) reload(ctx context.Context, w *watched, next func(Event)) error {
	for {
		snap, err := s.load(ctx, w.state)
		if err == nil && snap.Revision < w.revision {
			return wentBack(snap.Revision, w.revision)
		}
		if err == nil {
			next(difference(w.state, snap))
			w.state, w.revision = snap, snap.Revision
			return nil
		}
		if errors.Is(err, rpctypes.ErrPermissionDenied) {
			return fmt.Errorf("watching etcd: %w", err)
		}
		s.log.Warn("can't read the state from etcd; trying again", "error", err)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retryPause):
		}
	}
}
