package xds

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
)

// until is a lease in tests: it says for whom, and when it ends.
func until(end time.Time) ([]Resource, error) {
	at := "never"
	if !end.IsZero() {
		at = fmt.Sprint(end.Unix())
	}
	return []Resource{filter(leaseName, "envoy "+at), {TypeURL: LeaseType, Name: leaseName, Body: []byte("go " + at)}}, nil
}

// landlord is a server with leases, at a time that the test sets.
type landlord struct {
	*fixture
	seconds   atomic.Int64
	authority atomic.Bool
}

func leasing(t *testing.T) *landlord {
	l := new(landlord)
	l.seconds.Store(1000)
	l.authority.Store(true)
	l.fixture = start(t, Config{Lease: until, Authority: l.authority.Load, Now: func() time.Time { return time.Unix(l.seconds.Load(), 0) }})
	l.SetRecordedLease(time.Hour)
	return l
}

func (l *landlord) now() time.Time { return time.Unix(l.seconds.Load(), 0) }

// publishLeased publishes a service with leases of a minute.
func (l *landlord) publishLeased(revision int64, resources ...Resource) {
	l.Publish(Update{Revision: revision, Services: map[string][]Resource{"orders": resources}, Leases: map[string]time.Duration{"orders": time.Minute}})
}

// lease is the response with one that ends at a second; 0 is the one that is closed.
func (l *landlord) lease(typeURL string, second int64) *discovery.DeltaDiscoveryResponse {
	end := time.Unix(second, 0)
	if second == 0 {
		end = time.Time{}
	}
	all, _ := until(end)
	for _, r := range all {
		if r.TypeURL == typeURL {
			return &discovery.DeltaDiscoveryResponse{TypeUrl: typeURL, Resources: []*discovery.Resource{wireOf(r, l.leaseVersion(end))}}
		}
	}
	panic(typeURL)
}

// envoy connects one that asks for its filters.
func (l *landlord) envoy(t *testing.T, node string) *plane {
	p := l.connect(t, envoyNode(node, "orders"))
	p.subscribe(ecdsType, inbound1.Name, leaseName)
	return p
}

// A data plane gets its lease once it is in sync, and another after a third of it. All
// get the same end. The lease itself does not count for being in sync.
func TestLeases(t *testing.T) {
	l := leasing(t)
	l.publishLeased(1, inbound1)
	p, q := l.envoy(t, "n1"), l.envoy(t, "n2")
	p.ack(p.want(one(inbound1)))
	first := p.want(l.lease(ecdsType, 1060))
	q.ack(q.want(one(inbound1)))
	l.seconds.Store(1010)
	q.ack(q.want(l.lease(ecdsType, 1060)))
	l.untilInSync(t, "orders", 2)
	p.ack(first)
	l.renew()
	p.quiet()
	l.seconds.Store(1020)
	l.renew()
	p.ack(p.want(l.lease(ecdsType, 1080)))
	q.ack(q.want(l.lease(ecdsType, 1080)))
	if got := l.LongestLease(); got != time.Minute {
		t.Errorf("the longest lease is %v, want a minute", got)
	}
}

// Without authority nothing is renewed, and who comes is sent elsewhere; services
// without leases go on. With authority again all get leases, at once.
func TestLeasesWantAuthority(t *testing.T) {
	l := leasing(t)
	l.Publish(Update{Revision: 1, Services: map[string][]Resource{"orders": {inbound1}, "billing": {filter("mesh.inbound/billing", "x")}},
		Leases: map[string]time.Duration{"orders": time.Minute}})
	p := l.envoy(t, "n1")
	p.ack(p.want(one(inbound1)))
	p.ack(p.want(l.lease(ecdsType, 1060)))
	l.authority.Store(false)
	l.seconds.Store(1030)
	l.renew()
	p.quiet()
	late := l.connect(t, envoyNode("n2", "orders"))
	if err := late.ended(); status.Code(err) != codes.Unavailable {
		t.Errorf("a stream of a service with leases: %v, want Unavailable", err)
	}
	other := l.connect(t, envoyNode("n3", "billing"))
	other.subscribe(ecdsType, "mesh.inbound/billing")
	other.ack(other.want(one(filter("mesh.inbound/billing", "x"))))
	l.authority.Store(true)
	l.renew()
	p.ack(p.want(l.lease(ecdsType, 1090)))
}

// No lease is longer than what was recorded, and before that there are none.
func TestLeasesAreRecordedFirst(t *testing.T) {
	l := leasing(t)
	l.SetRecordedLease(0)
	l.publishLeased(1, inbound1)
	p := l.envoy(t, "n1")
	p.ack(p.want(one(inbound1)))
	l.untilInSync(t, "orders", 1)
	p.quiet()
	if dp := l.DataPlanes("orders")[0]; dp.Reason == "" {
		t.Errorf("nothing says that %+v has no lease", dp)
	}
	l.SetRecordedLease(30 * time.Second)
	p.ack(p.want(l.lease(ecdsType, 1030)))
	l.SetRecordedLease(time.Hour)
	p.ack(p.want(l.lease(ecdsType, 1060)))
}

// Who has not confirmed a revocation gets no lease before it does; who has, does.
func TestLeasesWantTheFloor(t *testing.T) {
	l := leasing(t)
	l.publishLeased(1, inbound1)
	p, q := l.envoy(t, "n1"), l.envoy(t, "n2")
	for _, w := range []*plane{p, q} {
		w.ack(w.want(one(inbound1)))
		w.ack(w.want(l.lease(ecdsType, 1060)))
	}
	l.SetFloor(2)
	l.publishLeased(2, inbound2)
	p.ack(p.want(one(inbound2)))
	refused := q.want(one(inbound2))
	l.seconds.Store(1020)
	l.renew()
	p.ack(p.want(l.lease(ecdsType, 1080)))
	q.nack(refused, "no")
	q.quiet()
	// It holds its service only as long as its lease and the error of a clock.
	l.wantClaims(t, l.now(), 2, map[string]ledger.Held{"orders": {Claim: 1, Count: 1, Who: []string{"n2 (orders-instance)"},
		Why: "refused mesh.inbound/orders: no", Until: time.Unix(1061, 0)}})
	l.wantClaims(t, time.Unix(1062, 0), 2, nil)
	l.publishLeased(3, inbound1)
	p.ack(p.want(one(inbound1)))
	q.ack(q.want(l.lease(ecdsType, 1080)))
}

// An Envoy that has no filter for leases is not in sync, if its service has some.
func TestLeaseIsMissing(t *testing.T) {
	l := leasing(t)
	open := filter(leaseName, "open")
	l.publish(1, "orders", inbound1, open)
	p := l.connect(t, envoyNode("n1", "orders"))
	p.subscribe(ecdsType, inbound1.Name)
	p.ack(p.want(one(inbound1)))
	l.untilInSync(t, "orders", 1)
	l.publishLeased(2, inbound1)
	l.until(t, "it is not in sync", func() bool {
		dp := l.DataPlanes("orders")[0]
		return !dp.InSync && dp.Reason == "has not asked for mesh.lease yet"
	})
	p.quiet()
}

// When a service begins to have leases, who is in sync gets its first in place of what
// lets everything through, and before what needs it; when it has none any more, an
// Envoy gets that again. It is in sync each time when it has confirmed.
func TestLeasesBeginAndEnd(t *testing.T) {
	l := leasing(t)
	open := filter(leaseName, "open")
	l.publish(1, "orders", inbound1, open, ruleset1, revocations1)
	p := l.envoy(t, "n1")
	p.ack(p.want(one(inbound1)))
	p.ack(p.want(one(open)))
	g := l.connect(t, &core.Node{Id: "g1", Cluster: "orders", UserAgentName: goAgent})
	g.subscribe(RulesetType, ruleset1.Name)
	g.ack(g.want(one(ruleset1)))
	g.subscribe(RevocationsType, revocations1.Name)
	g.ack(g.want(one(revocations1)))
	g.subscribe(LeaseType, leaseName)
	g.ack(g.want(removed(LeaseType, leaseName)))
	l.untilInSync(t, "orders", 2)

	leased := ruleset1
	leased.Body = []byte("leased")
	l.publishLeased(2, inbound1, leased, revocations1)
	first := p.want(l.lease(ecdsType, 1060))
	g.ack(g.want(l.lease(LeaseType, 1060)))
	g.ack(g.want(one(leased)))
	who := []string{"n1 (orders-instance)"}
	l.wantClaims(t, l.now(), 2, map[string]ledger.Held{"orders": {Claim: 1, Count: 1, Who: who}})
	p.ack(first)
	l.wantClaims(t, l.now(), 2, nil)

	l.publish(3, "orders", inbound1, open, ruleset1, revocations1)
	g.ack(g.want(one(ruleset1)))
	last := p.want(one(open))
	// What it may have taken by now holds without a lease.
	l.wantClaims(t, time.Unix(5000, 0), 3, map[string]ledger.Held{"orders": {Claim: 2, Count: 1, Who: who}})
	p.ack(last)
	l.wantClaims(t, l.now(), 3, nil)
	g.quiet()
}

// Who comes back with a lease of any replica is in sync, and gets another; who comes
// back with anything else is closed until it is in sync.
func TestLeaseIsClaimed(t *testing.T) {
	l := leasing(t)
	l.publishLeased(1, inbound1)
	claim := func(node, lease string) *plane {
		p := l.connect(t, envoyNode(node, "orders"))
		p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: ecdsType, ResourceNamesSubscribe: []string{inbound1.Name, leaseName},
			InitialResourceVersions: map[string]string{inbound1.Name: version(testKey, inbound1), leaseName: lease}})
		return p
	}
	p := claim("n1", l.leaseVersion(time.Unix(1059, 0)))
	p.ack(p.want(l.lease(ecdsType, 1060)))
	same := claim("n2", l.leaseVersion(time.Unix(1060, 0)))
	l.untilInSync(t, "orders", 2)
	same.quiet()
	for _, other := range []string{version(testKey, filter(leaseName, "open")), "1060-0123456789abcdef", "1060", "x-y"} {
		q := claim("n3", other)
		q.ack(q.want(l.lease(ecdsType, 0)))
		q.ack(q.want(l.lease(ecdsType, 1060)))
		_ = q.close()
		l.until(t, "gone", func() bool { return len(l.DataPlanes("orders")) == 2 })
	}
}
