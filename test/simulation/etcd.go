package simulation

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

// service as somebody applied it.
type service struct {
	accepts []string // sorted; never changed in place
	leased  bool
}

// settings of the issuer.
type settings struct {
	lifetime, every time.Duration
	algorithm       string
}

// entry revokes a subject: all tokens, or those issued until a time.
type entry struct {
	id, subject string
	until       time.Time // zero: all
	revision    int64
}

// resources is what is stored outside of cluster/, at one revision that changed some of
// it. It does not change.
type resources struct {
	revision int64
	keys     keyset.Keys
	services map[string]service
	settings settings
	entries  map[string]entry
	// gone are the subjects that get no tokens any more.
	gone  map[string]bool
	floor int64
}

func (r *resources) clone() *resources {
	c := *r
	c.keys.Records = maps.Clone(r.keys.Records)
	c.services = maps.Clone(r.services)
	c.entries = maps.Clone(r.entries)
	c.gone = maps.Clone(r.gone)
	return &c
}

// members is what is stored below cluster/. It does not change.
type members struct {
	revision int64
	ledger.Cluster
	// elected is the revision of the election of the leader.
	elected int64
}

func (m *members) clone() *members {
	c := *m
	c.Members, c.Alive, c.Records = maps.Clone(m.Members), maps.Clone(m.Alive), maps.Clone(m.Records)
	return &c
}

// etcd is the store: each write makes a revision, and those who watch hear of it.
type etcd struct {
	w        *world
	revision int64
	main     *resources
	cluster  *members
	// older are what main was before, for who reads what is not the newest.
	older []*resources
	// leases are the ends of those that hold alive/ID.
	leases map[string]time.Duration
	kids   int
}

func newEtcd(w *world) *etcd {
	e := &etcd{w: w, leases: map[string]time.Duration{}}
	e.main = &resources{keys: keyset.Keys{Records: map[string]keyset.Record{}}, services: map[string]service{}, entries: map[string]entry{}, gone: map[string]bool{}}
	e.cluster = &members{Cluster: ledger.Cluster{Members: map[string]ledger.Member{}, Alive: map[string]bool{}, Records: map[string]ledger.Record{}}}
	return e
}

// write changes resources in one transaction, and returns its revision.
func (e *etcd) write(what string, change func(r *resources, revision int64)) int64 {
	e.revision++
	before := e.main
	after := before.clone()
	after.revision = e.revision
	change(after, e.revision)
	e.older = append(e.older, before)
	e.main = after
	e.w.told(func() string { return fmt.Sprintf("etcd: revision %d: %s", e.revision, what) })
	e.w.checkWrite(before, after)
	for _, s := range e.w.slots {
		if s.proc != nil {
			s.proc.mainChanged()
		}
	}
	e.w.dirty = true
	return e.revision
}

// writeCluster changes what is stored of the replicas.
func (e *etcd) writeCluster(what string, change func(m *members, revision int64)) int64 {
	e.revision++
	after := e.cluster.clone()
	after.revision = e.revision
	change(after, e.revision)
	e.w.checkCluster(e.cluster, after)
	e.cluster = after
	if what != "" {
		e.w.told(func() string { return fmt.Sprintf("etcd: revision %d: %s", e.revision, what) })
	}
	for _, s := range e.w.slots {
		if s.proc != nil {
			s.proc.clusterChanged()
		}
	}
	return e.revision
}

// keep makes the lease of a member last longer; false if it has none.
func (e *etcd) keep(id string) bool {
	if !e.cluster.Alive[id] {
		return false
	}
	e.grant(id)
	return true
}

func (e *etcd) grant(id string) {
	life := e.w.bounds.Authority
	end := e.w.now + life
	e.leases[id] = end
	e.w.after(life, func() {
		if e.leases[id] == end {
			e.expire(id)
		}
	})
}

// expire takes what hangs on a lease.
func (e *etcd) expire(id string) {
	delete(e.leases, id)
	if !e.cluster.Alive[id] {
		return
	}
	e.writeCluster(id+" has lost its lease", func(m *members, revision int64) {
		m.take(id, revision)
	})
}

// take removes what is there of a member only while it lives.
func (m *members) take(id string, revision int64) {
	delete(m.Alive, id)
	if m.Leader == id {
		m.Leader, m.elected = "", revision
	}
}

// newKey is a key that is not stored yet.
func (e *etcd) newKey(algorithm string, now time.Time) keyset.Record {
	e.kids++
	return keyset.Record{KeyID: fmt.Sprintf("k%d", e.kids), Algorithm: algorithm, State: keyset.Standby, Created: now}
}

// same says whether the keys and what is open are as they were read.
func (r *resources) same(read keyset.Keys) bool {
	return r.keys.Open.Revision == read.Open.Revision && maps.EqualFunc(r.keys.Records, read.Records, func(a, b keyset.Record) bool { return a.Revision == b.Revision })
}

// change writes a change of the keys.
func (e *etcd) change(who string, c keyset.Change, now time.Time, floor bool) int64 {
	if c.Publish != "" {
		c.Put = append(slices.Clone(c.Put), e.newKey(c.Publish, now))
	}
	return e.write(who+": "+describe(c), func(r *resources, revision int64) {
		for _, k := range c.Put {
			k.Revision = revision
			if was, there := r.keys.Records[k.KeyID]; there {
				k.Published = was.Published
			} else {
				k.Published = revision
			}
			r.keys.Records[k.KeyID] = k
		}
		for _, kid := range c.Delete {
			delete(r.keys.Records, kid)
		}
		if c.Open != nil {
			r.keys.Open = *c.Open
			r.keys.Open.Revision = revision
		}
		if c.Removes && floor {
			r.floor = revision
		}
	})
}

// describe tells a change of the keys.
func describe(c keyset.Change) string {
	text := "keys:"
	for _, k := range c.Put {
		text += fmt.Sprintf(" %s %s", k.KeyID, k.State)
		if k.State == keyset.Retiring && !k.Unsigned.IsZero() {
			text += fmt.Sprintf(" (unsigned, lifetime %v)", k.Lifetime)
		}
	}
	for _, kid := range c.Delete {
		text += fmt.Sprintf(" %s gone", kid)
	}
	if c.Open != nil {
		text += fmt.Sprintf("; open %s", c.Open.Active)
		for _, a := range slices.Sorted(maps.Keys(c.Open.Except)) {
			text += fmt.Sprintf(", %s: %s", a, c.Open.Except[a])
		}
	}
	return text
}
