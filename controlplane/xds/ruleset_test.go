package xds

import (
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/protobuf/proto"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

func ofType(typeURL, name, body string) Resource {
	return Resource{TypeURL: typeURL, Name: name, Body: []byte(body)}
}

var (
	ruleset1     = ofType(RulesetType, "orders", "one")
	ruleset2     = ofType(RulesetType, "orders", "two")
	outbound1    = ofType(OutboundType, "orders", "calls")
	revocations1 = ofType(RevocationsType, "orders", "none")
)

func goNode(agent string) *core.Node {
	return &core.Node{Id: "n1", Cluster: "orders", UserAgentName: agent}
}

// The type URLs are those of the messages that Go data planes know.
func TestTypeURLs(t *testing.T) {
	for typeURL, m := range map[string]proto.Message{RulesetType: &dataplanev1.Ruleset{}, RevocationsType: &dataplanev1.Revocations{}, OutboundType: &dataplanev1.Outbound{}, LeaseType: &dataplanev1.Lease{}} {
		if want := "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()); typeURL != want {
			t.Errorf("got %s, want %s", typeURL, want)
		}
	}
}

// What a Go data plane gets is the message as it was published, in an Any of that
// type, one in each response.
func TestRulesetOnTheWire(t *testing.T) {
	rs := &dataplanev1.Ruleset{Service: "orders", Routes: []*dataplanev1.Route{{Name: "r"}}}
	body, err := proto.Marshal(rs)
	if err != nil {
		t.Fatal(err)
	}
	f := start(t, Config{})
	f.publish(1, "orders", ofType(RulesetType, "orders", string(body)), outbound1)
	p := f.connectAs(t, orders1, goNode(goAgent))
	p.subscribe(RulesetType, "orders")
	p.subscribe(OutboundType, "orders")
	r := p.recv()
	got, err := r.GetResources()[0].GetResource().UnmarshalNew()
	if err != nil || !proto.Equal(got, rs) || r.GetTypeUrl() != RulesetType || len(r.GetResources()) != 1 {
		t.Errorf("got %v (%v) in %v, want one resource, %v", got, err, r, rs)
	}
	p.ack(r)
	p.ack(p.want(one(outbound1)))
	p.quiet()
}

// A data plane in Go is in sync once it has confirmed the Ruleset of its service, and
// its Revocations: that it has all it asked for is not enough. A program that only calls others
// enforces nothing, and asks for its Outbound alone.
func TestGoInSync(t *testing.T) {
	other := ofType("type.googleapis.com/test.Other", "x", "y")
	for _, tt := range []struct {
		agent string
		asked []Resource
		why   string // it is not in sync; "" if it is
	}{
		{goAgent, []Resource{ruleset1, revocations1}, ""},
		{goAgent, []Resource{ruleset1, revocations1, outbound1}, ""},
		{goAgent, []Resource{ruleset1}, "has not asked for its Revocations yet"},
		{goAgent, []Resource{ruleset1, outbound1}, "has not asked for its Revocations yet"},
		{goAgent, []Resource{revocations1}, "has not asked for its Ruleset yet"},
		{goAgent, []Resource{outbound1}, ""},
		{goAgent, []Resource{other}, "has not asked for its Ruleset yet"},
		{goAgent, []Resource{inbound1}, "has not asked for its Ruleset yet"},
		{sidecarAgent, []Resource{ruleset1, revocations1}, ""},
		{sidecarAgent, []Resource{ruleset1}, "has not asked for its Revocations yet"},
		{sidecarAgent, []Resource{outbound1}, "has not asked for its Ruleset yet"},
		{"something", []Resource{outbound1}, ""},
		{envoyAgent, []Resource{ruleset1}, "has not asked for mesh.inbound/orders yet"},
	} {
		f := start(t, Config{})
		f.publish(1, "orders", inbound1, ruleset1, revocations1, outbound1, other)
		p := f.connectAs(t, orders1, goNode(tt.agent))
		for _, r := range tt.asked {
			p.subscribe(r.TypeURL, r.Name)
			p.ack(p.want(one(r)))
		}
		p.quiet()
		f.until(t, "the mark is forgotten", func() bool { _, sent, _ := f.Sent("n1"); return len(sent) == len(tt.asked) })
		if dp := f.DataPlanes("orders")[0]; dp.Reason != tt.why || dp.InSync != (tt.why == "") || dp.Kind != tt.agent {
			t.Errorf("%s with %s: got %+v, want reason %q", tt.agent, tt.asked[0].TypeURL, dp, tt.why)
		}
	}
}

// A change is not in force before its ACK, a refusal has its words, and what a data
// plane holds since before counts if it is that of today.
func TestGoConfirms(t *testing.T) {
	f := start(t, Config{})
	f.publish(1, "orders", ruleset1, revocations1, outbound1)
	p := f.connectAs(t, orders1, goNode(goAgent))
	p.subscribe(RevocationsType, "orders")
	p.ack(p.want(one(revocations1)))
	p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: RulesetType, ResourceNamesSubscribe: []string{"orders"},
		InitialResourceVersions: map[string]string{"orders": version(testKey, ruleset1)}})
	p.quiet()
	f.untilInSync(t, "orders", 1)
	f.publish(2, "orders", ruleset2, revocations1, outbound1)
	r := p.want(one(ruleset2))
	if dp := f.DataPlanes("orders")[0]; dp.InSync || dp.Revision != 1 {
		t.Errorf("before the ACK: got %+v, want revision 1 and not in sync", dp)
	}
	p.nack(r, "route 3: no such mode")
	p.quiet()
	if dp := f.DataPlanes("orders")[0]; dp.InSync || dp.Reason != "refused orders: route 3: no such mode" {
		t.Errorf("after the NACK: got %+v", dp)
	}
	f.publish(3, "orders", ruleset2, revocations1, ofType(OutboundType, "orders", "other"))
	p.quiet() // it did not ask for that, and the other is refused
}

// Unlike an Envoy's filter, what is not there is said, also to who never had it: a
// data plane that waits for its ruleset would wait for ever. Then it gets it when
// it comes.
func TestNothingIsSaid(t *testing.T) {
	f := start(t, Config{})
	f.publish(1, "billing", ofType(RulesetType, "billing", "x"))
	p := f.connectAs(t, orders1, goNode(goAgent))
	for _, typeURL := range []string{RulesetType, RevocationsType, OutboundType} {
		p.subscribe(typeURL, "orders")
		p.ack(p.want(removed(typeURL, "orders")))
	}
	p.subscribe(LeaseType, "mesh.lease")
	p.ack(p.want(removed(LeaseType, "mesh.lease")))
	p.quiet()
	f.untilInSync(t, "orders", 1)
	if dp := f.DataPlanes("orders")[0]; dp.Reason != "service orders has no resources here, so it refuses all requests" {
		t.Errorf("got %+v, want one that says that there is nothing", dp)
	}
	f.publish(2, "orders", ruleset1)
	p.ack(p.want(one(ruleset1)))
	f.publish(3, "orders")
	p.ack(p.want(removed(RulesetType, "orders")))
	p.quiet()
}

// The ruleset of a service, which may hold shared secrets, and its outbound side go
// to its own instances alone, however another one asks: by name, by what its node
// says, by a version that it claims to hold, by a wildcard.
func TestNoOtherServicesRuleset(t *testing.T) {
	for _, typeURL := range []string{RulesetType, RevocationsType, OutboundType} {
		foreign := ofType(typeURL, "billing", "secret")
		own := ofType(typeURL, "orders", "own")
		for name, node := range map[string]*core.Node{
			"by name":     goNode(goAgent),
			"by cluster":  {Id: "n1", Cluster: "billing", UserAgentName: sidecarAgent},
			"by metadata": belongs("n1", "billing"),
		} {
			f := start(t, Config{})
			f.publish(1, "billing", foreign)
			p := f.connectAs(t, orders1, node)
			p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: typeURL, ResourceNamesSubscribe: []string{"billing", "orders"},
				InitialResourceVersions: map[string]string{"billing": version(testKey, foreign)}})
			p.ack(p.want(removed(typeURL, "billing")))
			p.ack(p.want(removed(typeURL, "orders")))
			p.subscribe(typeURL, "*")
			p.quiet()
			f.publish(2, "orders", own)
			p.ack(p.want(one(own)))
			f.publish(3, "billing", ofType(typeURL, "billing", "another secret"))
			p.quiet()
			_, sent, _ := f.Sent("n1")
			for _, s := range sent {
				if len(s.Body) > 0 && (string(s.Body) != "own" || s.Name != "orders") {
					t.Errorf("%s, %s: the ledger has %+v, want that nothing but its own was sent", typeURL, name, s)
				}
			}
		}
	}
}

// Each type has its own label.
func TestMetricsOfGo(t *testing.T) {
	reg := prometheus.NewRegistry()
	f := start(t, Config{Registerer: reg})
	lease := ofType(LeaseType, "mesh.lease", "until")
	f.publish(1, "orders", ruleset1, revocations1, outbound1, lease)
	p := f.connectAs(t, orders1, goNode(goAgent))
	for _, r := range []Resource{ruleset1, revocations1, outbound1, lease} {
		p.subscribe(r.TypeURL, r.Name)
		p.ack(p.want(one(r)))
	}
	p.quiet()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, fam := range families {
		for _, m := range fam.GetMetric() {
			for _, l := range m.GetLabel() {
				if fam.GetName() == "watchword_xds_acks_total" {
					got[l.GetValue()] = m.GetCounter().GetValue()
				}
			}
		}
	}
	for _, label := range []string{"cds", "eds", "lds", "rds", "sds", "ecds", otherLabel} {
		delete(got, label)
	}
	if d := cmp.Diff(map[string]float64{"ruleset": 1, "revocations": 1, "outbound": 1, "lease": 1}, got); d != "" {
		t.Errorf("ACKs differ (-want +got):\n%s", d)
	}
}
