package xds

import (
	"context"
	"strings"
	"testing"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	extension "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var (
	inbound1 = filter("mesh.inbound/orders", "one")
	inbound2 = filter("mesh.inbound/orders", "two")
	inbound3 = filter("mesh.inbound/orders", "three")
	revoked1 = filter("mesh.revoked/orders", "none")
)

// An object goes in, the whole discovery response comes out; two names asked for
// at once come one by one, the second after the ACK of the first.
func TestOneResourcePerResponse(t *testing.T) {
	f := start(t, Config{})
	f.publish(1, "orders", inbound1, revoked1)
	p := f.connect(t, envoyNode("n1", "orders"))
	p.subscribe(ecdsType, inbound1.Name, revoked1.Name)
	r := p.want(one(inbound1))
	p.quiet()
	p.ack(r)
	p.ack(p.want(one(revoked1)))
	p.quiet()
	f.untilInSync(t, "orders", 1)
}

// A request for another name that comes before the ACK does not get its answer
// before the ACK either.
func TestAnotherNameBeforeTheAck(t *testing.T) {
	f := start(t, Config{})
	f.publish(1, "orders", inbound1, revoked1)
	p := f.connect(t, envoyNode("n1", "orders"))
	p.subscribe(ecdsType, inbound1.Name)
	r := p.want(one(inbound1))
	p.subscribe(ecdsType, revoked1.Name)
	p.quiet()
	f.publish(2, "orders", inbound2, revoked1)
	p.quiet()
	p.ack(r)
	p.ack(p.want(one(revoked1)))
	p.ack(p.want(one(inbound2)))
	p.quiet()
}

// A version that was refused is not sent again: not for another request, not for
// a publication of equal content, only when the content changes.
func TestNothingAgainAfterARefusal(t *testing.T) {
	f := start(t, Config{})
	f.publish(1, "orders", inbound1, revoked1)
	p := f.connect(t, envoyNode("n1", "orders"))
	p.subscribe(ecdsType, inbound1.Name)
	p.nack(p.want(one(inbound1)), "bad\x00 provider\n")
	p.quiet()
	f.publish(2, "orders", inbound1, revoked1)
	p.quiet()
	p.subscribe(ecdsType, revoked1.Name)
	p.ack(p.want(one(revoked1)))
	p.subscribe(ecdsType, inbound1.Name) // asks again for what it refused
	p.quiet()
	dp, sent, _ := f.Sent("n1")
	if want := "refused mesh.inbound/orders: bad provider"; dp.Reason != want || dp.InSync {
		t.Errorf("got %+v, want reason %q", dp, want)
	}
	if got := sent[0]; got.Refusal != "bad provider" || got.AckedVersion != "" {
		t.Errorf("got %+v, want a refusal and nothing confirmed", got)
	}
	f.publish(3, "orders", inbound2, revoked1)
	p.ack(p.want(one(inbound2)))
	p.quiet()
	f.untilInSync(t, "orders", 1)
	f.publish(4, "orders", inbound1, revoked1) // now it is a change again
	p.want(one(inbound1))
}

// An ACK of an older response does not confirm the one in flight, and a NACK of
// an older one does not refuse it.
func TestStaleNonce(t *testing.T) {
	f := start(t, Config{})
	f.publish(1, "orders", inbound1)
	p := f.connect(t, envoyNode("n1", "orders"))
	p.subscribe(ecdsType, inbound1.Name)
	old := p.want(one(inbound1))
	p.ack(old)
	p.quiet()
	f.publish(2, "orders", inbound2)
	now := p.want(one(inbound2))
	p.ack(old)
	p.nack(old, "too late")
	p.ack(&discovery.DeltaDiscoveryResponse{TypeUrl: ecdsType, Nonce: "77"})
	p.quiet()
	if dp := f.DataPlanes("orders")[0]; dp.InSync || dp.Revision != 1 || !strings.HasPrefix(dp.Reason, "waiting for the ACK of mesh.inbound/orders (version ") {
		t.Errorf("got %+v, want one that waits for the ACK, with revision 1", dp)
	}
	p.ack(now)
	f.untilInSync(t, "orders", 1)
}

// What a client claims when it connects counts as confirmed if it is current;
// the rest is sent, and what no longer exists is removed.
func TestReconnectWithVersions(t *testing.T) {
	f := start(t, Config{})
	f.publish(1, "orders", inbound1, revoked1)
	p := f.connect(t, envoyNode("n1", "orders"))
	p.send(&discovery.DeltaDiscoveryRequest{
		TypeUrl:                ecdsType,
		ResourceNamesSubscribe: []string{inbound1.Name, revoked1.Name},
		InitialResourceVersions: map[string]string{
			inbound1.Name: version(testKey, inbound1), revoked1.Name: version(testKey, revoked1)},
	})
	p.quiet()
	f.untilInSync(t, "orders", 1)
	if dp := f.DataPlanes("orders")[0]; dp.Revision != 1 {
		t.Errorf("got revision %d, want 1: %+v", dp.Revision, dp)
	}
	late := f.connect(t, envoyNode("n2", "orders"))
	late.send(&discovery.DeltaDiscoveryRequest{
		TypeUrl:                ecdsType,
		ResourceNamesSubscribe: []string{inbound1.Name, revoked1.Name, "mesh.gone/orders"},
		InitialResourceVersions: map[string]string{
			inbound1.Name: version(testKey, inbound2), revoked1.Name: version(testKey, revoked1), "mesh.gone/orders": "abc"},
	})
	late.ack(late.want(one(inbound1)))
	late.ack(late.want(removed(ecdsType, "mesh.gone/orders")))
	late.quiet()
	f.untilInSync(t, "orders", 2)
}

// Before the first publication nobody is answered: a server that has not loaded
// must not tell clients that all they hold is gone.
func TestSilentBeforeTheFirstPublication(t *testing.T) {
	f := start(t, Config{})
	p := f.connect(t, envoyNode("n1", "orders"))
	p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: ecdsType,
		ResourceNamesSubscribe:  []string{inbound1.Name, "mesh.lease"},
		InitialResourceVersions: map[string]string{inbound1.Name: version(testKey, inbound1)}})
	q := f.connect(t, envoyNode("n2", "other"))
	q.subscribe(ecdsType, "mesh.inbound/other")
	f.until(t, "two data planes", func() bool { return len(f.DataPlanes("")) == 2 })
	if dp := f.DataPlanes("orders")[0]; dp.InSync || dp.Reason != "nothing was published here yet" {
		t.Errorf("got %+v, want one that is not in sync since nothing was published", dp)
	}
	f.publish(5, "orders", inbound1)
	// Both hold what there is: one by its claim, the other nothing.
	p.quiet()
	q.quiet()
	f.untilInSync(t, "", 2)
}

// Wildcard types: all of the service in one response, an empty one if there is
// nothing, removals, and nothing again after a reconnect with versions.
func TestWildcard(t *testing.T) {
	l1 := Resource{TypeURL: resource.ListenerType, Name: "a", Body: []byte("1")}
	l2 := Resource{TypeURL: resource.ListenerType, Name: "b", Body: []byte("2")}
	f := start(t, Config{})
	f.publish(1, "orders", l1, l2)
	p := f.connect(t, envoyNode("n1", "orders"))
	p.subscribe(resource.ClusterType)
	p.ack(p.want(&discovery.DeltaDiscoveryResponse{TypeUrl: resource.ClusterType}))
	p.subscribe(resource.ListenerType, "*")
	p.ack(p.want(&discovery.DeltaDiscoveryResponse{TypeUrl: resource.ListenerType,
		Resources: []*discovery.Resource{newEntry(testKey, l1).wire, newEntry(testKey, l2).wire}}))
	f.publish(2, "orders", l2)
	p.ack(p.want(removed(resource.ListenerType, "a")))
	p.quiet()

	q := f.connect(t, envoyNode("n2", "orders"))
	q.send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.ListenerType,
		InitialResourceVersions: map[string]string{"a": version(testKey, l1), "b": version(testKey, l2)}})
	q.ack(q.want(removed(resource.ListenerType, "a")))
	q.quiet()
}

// After a refused response with several resources they come one by one, so that
// the refusal gets a name, and the good one is confirmed.
func TestRefusedBatchGoesOneByOne(t *testing.T) {
	l1 := Resource{TypeURL: resource.ListenerType, Name: "a", Body: []byte("1")}
	l2 := Resource{TypeURL: resource.ListenerType, Name: "b", Body: []byte("2")}
	f := start(t, Config{})
	f.publish(1, "orders", l1, l2)
	p := f.connect(t, envoyNode("n1", "orders"))
	p.subscribe(resource.ListenerType, "*")
	p.nack(p.recv(), "b is bad")
	p.ack(p.want(one(l1)))
	p.nack(p.want(one(l2)), "b is bad")
	p.quiet()
	if dp := f.DataPlanes("orders")[0]; dp.Reason != "refused b: b is bad" {
		t.Errorf("got %+v, want a refusal of b", dp)
	}
}

// A service that is removed is removed at its data planes.
func TestServiceRemoved(t *testing.T) {
	f := start(t, Config{})
	f.publish(1, "orders", inbound1)
	p := f.connect(t, envoyNode("n1", "orders"))
	p.subscribe(ecdsType, inbound1.Name)
	p.ack(p.want(one(inbound1)))
	p.quiet()
	f.publish(2, "orders")
	r := p.want(removed(ecdsType, inbound1.Name))
	if dp := f.DataPlanes("orders")[0]; dp.InSync || dp.Reason != "waiting for the ACK of the removal of mesh.inbound/orders" || dp.Revision != 1 {
		t.Errorf("got %+v, want one that has not confirmed the removal", dp)
	}
	p.ack(r)
	f.untilInSync(t, "orders", 1)
	if err := p.close(); status.Code(err) != codes.Canceled {
		t.Errorf("stream ended with %v", err)
	}
	f.until(t, "service forgotten", func() bool { return f.countServices() == 0 })
}

// State of the world is refused with what to change, on both services.
func TestStateOfTheWorldIsRefused(t *testing.T) {
	f := start(t, Config{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	a, err := discovery.NewAggregatedDiscoveryServiceClient(f.conn).StreamAggregatedResources(ctx)
	if err != nil {
		t.Fatal(err)
	}
	e, err := extension.NewExtensionConfigDiscoveryServiceClient(f.conn).StreamExtensionConfigs(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for name, recv := range map[string]func() (*discovery.DiscoveryResponse, error){"ADS": a.Recv, "ECDS": e.Recv} {
		_, err := recv()
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "set api_type: DELTA_GRPC") {
			t.Errorf("%s: got %v, want FailedPrecondition that tells what to set", name, err)
		}
	}
}

// An Envoy with another ADS opens one ECDS stream per filter: one data plane,
// that is in sync when it has asked for both.
func TestOneStreamPerFilter(t *testing.T) {
	f := start(t, Config{})
	f.publish(1, "orders", inbound1, revoked1)
	a := f.connectECDS(t, envoyNode("n1", "orders"))
	a.subscribe("", inbound1.Name) // the type is implied
	a.ack(a.want(one(inbound1)))
	f.until(t, "the other filter is missing", func() bool {
		all := f.DataPlanes("")
		return len(all) == 1 && all[0].Reason == "has not asked for mesh.revoked/orders yet"
	})
	b := f.connectECDS(t, envoyNode("n1", "orders"))
	b.subscribe(ecdsType, revoked1.Name)
	b.ack(b.want(one(revoked1)))
	f.untilInSync(t, "orders", 1)
	if _, sent, _ := f.Sent("n1"); len(sent) != 2 {
		t.Errorf("got %+v, want both resources", sent)
	}
	if err := b.close(); status.Code(err) != codes.Canceled {
		t.Errorf("stream ended with %v", err)
	}
	f.until(t, "out of sync again", func() bool { return !f.DataPlanes("")[0].InSync })
	a.subscribe(resource.ClusterType, "*")
	if err := a.ended(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("CDS on an ECDS stream: got %v, want InvalidArgument", err)
	}
}

// A name that is unsubscribed is forgotten; subscribed anew it is sent anew,
// though an answer to the old one comes in between.
func TestSubscribeAnew(t *testing.T) {
	f := start(t, Config{})
	f.publish(1, "orders", inbound1)
	p := f.connect(t, envoyNode("n1", "orders"))
	p.subscribe(ecdsType, inbound1.Name)
	r := p.want(one(inbound1))
	p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: ecdsType, ResourceNamesUnsubscribe: []string{inbound1.Name}})
	f.publish(2, "orders", inbound2)
	p.quiet()
	p.subscribe(ecdsType, inbound1.Name)
	p.ack(r)
	p.ack(p.want(one(inbound2)))
	p.quiet()
	f.untilInSync(t, "orders", 1)
}

// A refusal that crosses an unsubscribe is forgotten with the name, so the same
// version is sent again to who subscribes anew. One that comes after the name was
// subscribed anew counts.
func TestRefusedAndSubscribedAnew(t *testing.T) {
	f := start(t, Config{})
	f.publish(1, "orders", inbound1)
	p := f.connect(t, envoyNode("n1", "orders"))
	leave := &discovery.DeltaDiscoveryRequest{TypeUrl: ecdsType, ResourceNamesUnsubscribe: []string{inbound1.Name}}
	p.subscribe(ecdsType, inbound1.Name)
	r := p.want(one(inbound1))
	p.send(leave)
	p.nack(r, "no longer mine")
	p.subscribe(ecdsType, inbound1.Name)
	r = p.want(one(inbound1))
	p.send(leave)
	p.subscribe(ecdsType, inbound1.Name)
	p.nack(r, "bad provider")
	p.quiet()
	if dp, want := f.DataPlanes("orders")[0], "refused mesh.inbound/orders: bad provider"; dp.Reason != want || dp.InSync {
		t.Errorf("got %+v, want reason %q", dp, want)
	}
}

// Close ends the streams and says so.
func TestClose(t *testing.T) {
	f := start(t, Config{})
	f.publish(1, "orders", inbound1)
	p := f.connect(t, envoyNode("n1", "orders"))
	p.subscribe(ecdsType, inbound1.Name)
	p.recv()
	f.Close()
	if err := p.ended(); status.Code(err) != codes.Unavailable {
		t.Errorf("got %v, want Unavailable", err)
	}
}

// The bound on streams is an answer, not a hang.
func TestMaxStreams(t *testing.T) {
	f := start(t, Config{MaxStreams: 1})
	f.publish(1, "orders", inbound1)
	p := f.connect(t, envoyNode("n1", "orders"))
	p.subscribe(ecdsType, inbound1.Name)
	p.recv()
	if err := f.connect(t, envoyNode("n2", "orders")).ended(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("got %v, want ResourceExhausted", err)
	}
}
