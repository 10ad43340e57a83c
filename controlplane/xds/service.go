package xds

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// What data planes call themselves in node.user_agent_name.
const (
	envoyAgent   = "envoy"
	goAgent      = "watchword-go"
	sidecarAgent = "watchword-sidecar"
)

// service has content and the streams that may get it. Its lock is the only one
// that a push, an ACK or a request takes; it is never held over a send.
type service struct {
	server *Server
	name   string

	mu      sync.Mutex
	content content
	// lease is how long its data planes go on without us; 0: as long as it takes.
	lease time.Duration
	// changed is the revision that last changed the content.
	changed int64
	// ready: something was published at all. Until then nothing is answered, or a
	// restarted server would tell its clients that all they hold is gone.
	ready bool
	rows  map[rowKey]*row
	// waiting holds the rows that are not in sync.
	waiting map[*row]struct{}
	// pushed is when the last change went out; zero once all have confirmed it.
	pushed time.Time

	// publishing keeps it in the set; guarded by Server.mu.
	publishing bool
}

// rowKey says which data plane of a service a row is. An instance may run
// several, which tell themselves apart by the node.
type rowKey struct{ instance, node string }

// row is a data plane: the streams of one node of an instance of a service.
type row struct {
	rowKey
	service *service
	kind    string
	streams []*stream
	inSync  bool
	// upTo is, while the row is not in sync, the last revision at which it was.
	upTo  int64
	since time.Time
	// refusing: it has refused something, and may still.
	refusing bool
}

// replace swaps the content and pushes the difference.
func (svc *service) replace(revision int64, resources []Resource, lease time.Duration) {
	svc.mu.Lock()
	defer svc.mu.Unlock()
	now, diff := svc.content.replace(svc.server.versionKey, resources)
	turned := (lease > 0) != (svc.lease > 0)
	svc.lease = lease
	if len(diff) == 0 && !turned {
		return
	}
	svc.content, svc.changed = now, revision
	svc.bookChange(revision)
	for _, r := range svc.rows {
		if turned {
			svc.turn(r)
		}
		for _, st := range r.streams {
			st.push(diff)
		}
		svc.judge(r)
	}
	if len(svc.waiting) > 0 {
		svc.pushed = svc.server.now()
	}
}

// turn is for a row whose service begins to have leases, or has none any more. Who was
// in sync gets its first before what needs it, so that nothing is refused meanwhile.
func (svc *service) turn(r *row) {
	for _, st := range r.streams {
		st.bind(svc.lease > 0)
	}
	if svc.lease > 0 {
		if l := svc.server.leaseOf(svc.lease); r.inSync || r.open() {
			svc.offer(r, l, true)
		}
	}
}

// open starts to answer the streams that came before the first publication.
func (svc *service) open() {
	svc.mu.Lock()
	defer svc.mu.Unlock()
	svc.ready = true
	for _, r := range svc.rows {
		for _, st := range r.streams {
			for _, sub := range st.subs {
				sub.next()
				if sub.tokens > 0 {
					st.wakeMinter()
				}
			}
		}
		svc.judge(r)
	}
}

// judge decides anew whether a row is in sync. Whoever changes what a row
// depends on calls it, under the lock.
func (svc *service) judge(r *row) {
	inSync := svc.ready && r.behind() == 0 && svc.missing(r) == ""
	if inSync == r.inSync {
		if r.refusing {
			svc.book(r)
		}
		return
	}
	r.inSync, r.since = inSync, svc.server.now()
	if inSync {
		svc.wait(r, false)
	} else {
		r.upTo = svc.server.Published()
		svc.wait(r, true)
	}
	svc.book(r)
	if inSync && svc.lease > 0 {
		svc.offer(r, svc.server.leaseOf(svc.lease), false)
	}
	svc.server.changed()
}

// wait books a row as waiting or not.
func (svc *service) wait(r *row, waiting bool) {
	before := len(svc.waiting)
	if waiting {
		svc.waiting[r] = struct{}{}
	} else {
		delete(svc.waiting, r)
	}
	switch after := len(svc.waiting); {
	case before == 0 && after > 0:
		svc.server.lagging.Add(1)
	case before > 0 && after == 0:
		svc.server.lagging.Add(-1)
	}
}

// confirmed measures a push, if the ACK just booked was the last one.
func (svc *service) confirmed() {
	if len(svc.waiting) == 0 && !svc.pushed.IsZero() {
		svc.server.metrics.toLastAck.Observe(svc.server.now().Sub(svc.pushed).Seconds())
		svc.pushed = time.Time{}
	}
}

func (r *row) behind() int {
	n := 0
	for _, st := range r.streams {
		for _, sub := range st.subs {
			n += sub.behind
		}
	}
	return n
}

// missing names what the row must ask for and did not, or returns "". An Envoy
// enforces by its ECDS filters, and the data planes in Go by their Ruleset and their
// Revocations, so one that lacks those is not in sync, though all that it asked for is confirmed. Others
// are judged by what they ask for; and so is a program that only calls services, and
// asks for no more than its Outbound.
func (svc *service) missing(r *row) string {
	switch {
	case r.kind == envoyAgent:
		return svc.missingFilter(r)
	case r.asked(RulesetType, svc.name) && !r.asked(RevocationsType, svc.name):
		return "its Revocations"
	case r.kind == goAgent && r.asked(OutboundType, svc.name):
	case r.kind == goAgent || r.kind == sidecarAgent:
		if !r.asked(RulesetType, svc.name) {
			return "its Ruleset"
		}
	case !r.asked("", ""):
		return "any resource"
	case r.asked(resource.ExtensionConfigType, ""):
		return svc.missingLease(r)
	}
	return ""
}

// missingLease: what is enforced by ECDS needs the filter that ends it.
func (svc *service) missingLease(r *row) string {
	if svc.lease > 0 && !r.asked(resource.ExtensionConfigType, leaseName) {
		return leaseName
	}
	return ""
}

// missingFilter names the first filter that an Envoy did not ask for.
func (svc *service) missingFilter(r *row) string {
	lowest := ""
	for name := range svc.content[resource.ExtensionConfigType] {
		if name == leaseName {
			continue // it lets everything through
		}
		if !r.asked(resource.ExtensionConfigType, name) && (lowest == "" || name < lowest) {
			lowest = name
		}
	}
	if lowest == "" && !r.asked(resource.ExtensionConfigType, "") {
		return "any of its filters"
	}
	return cmp.Or(lowest, svc.missingLease(r))
}

// asked says whether one of the row's streams subscribes to a resource of that type
// and name; empty ones stand for any.
func (r *row) asked(typeURL, name string) bool {
	for _, st := range r.streams {
		for _, sub := range st.subs {
			if (typeURL == "" || sub.kind.typeURL == typeURL) && (sub.items[name] != nil || name == "" && len(sub.items) > 0) {
				return true
			}
		}
	}
	return false
}

// closed says whether there is nothing that the row could enforce.
func (svc *service) closed(r *row) bool {
	switch r.kind {
	case envoyAgent:
		return len(svc.content[resource.ExtensionConfigType]) == 0
	case goAgent, sidecarAgent:
		return len(svc.content[RulesetType]) == 0
	}
	return len(svc.content) == 0
}

// dataPlane is the row as others see it.
func (svc *service) dataPlane(r *row) DataPlane {
	first := r.streams[0]
	dp := DataPlane{Node: r.node, Service: svc.name, Instance: r.instance, Kind: r.kind, Address: first.address,
		InSync: r.inSync, Revision: r.upTo, Since: r.since, Connected: first.connected}
	if r.inSync {
		dp.Revision = svc.server.Published()
		if svc.closed(r) {
			dp.Reason = fmt.Sprintf("service %s has no resources here, so it refuses all requests", svc.name)
		} else if r.hasLease(func(_ *subscription, it *item) bool { return it.entry == nil }) {
			dp.Reason = "it has no lease from this replica yet, and refuses all requests when the one that it may have has ended"
		}
		return dp
	}
	dp.Reason = svc.reason(r)
	return dp
}

// reason says why a row is not in sync: a refusal before anything else, since
// that is what somebody has to act on.
func (svc *service) reason(r *row) string {
	if !svc.ready {
		return "nothing was published here yet"
	}
	waiting := ""
	for _, it := range r.items() {
		if it.synced {
			continue
		}
		if it.refused == it.want {
			return it.refusalText()
		}
		if waiting != "" {
			continue
		}
		waiting = fmt.Sprintf("waiting for the ACK of %s (version %s)", it.name, it.want)
		switch {
		case it.entry == nil && it.lease != nil:
			waiting = "its service has leases, and this replica can't give it any now"
		case it.entry == nil:
			waiting = fmt.Sprintf("waiting for the ACK of the removal of %s", it.name)
		}
	}
	if waiting != "" {
		return waiting
	}
	return fmt.Sprintf("has not asked for %s yet", svc.missing(r))
}

// items of all streams of the row, sorted by type and name.
func (r *row) items() []ledgerItem {
	var all []ledgerItem
	for _, st := range r.streams {
		for _, sub := range st.subs {
			for _, it := range sub.items {
				all = append(all, ledgerItem{item: it, typeURL: sub.kind.typeURL})
			}
		}
	}
	slices.SortFunc(all, func(a, b ledgerItem) int {
		if c := strings.Compare(a.typeURL, b.typeURL); c != 0 {
			return c
		}
		return strings.Compare(a.name, b.name)
	})
	return all
}

// ledgerItem is an item with its type.
type ledgerItem struct {
	*item
	typeURL string
}

func (it ledgerItem) refusalText() string { return fmt.Sprintf("refused %s: %s", it.name, it.refusal) }
