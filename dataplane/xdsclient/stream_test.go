package xdsclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var node = &corev3.Node{Id: "host-1", Cluster: "orders", UserAgentName: "watchword-go"}

// The life of a data plane, on the wire:
//  1. it asks for everything at once, and says who it is once;
//  2. what comes is in force before the ACK, which has the nonce of its type;
//  3. a removal is an update as any other;
//  4. when the stream is cut, it comes back to the next replica and claims what is in
//     force, of what it asked for;
//  5. what it has refused it does not claim.
func TestLife(t *testing.T) {
	one, two := newPlane(t), newPlane(t)
	e := newEnforcer()
	start(t, mustClient(t, config(e, one.address, two.address)))

	s := one.next(t)
	s.want(&request{Node: node, TypeUrl: rulesetType, ResourceNamesSubscribe: []string{"orders", "shop"}})
	s.want(&request{TypeUrl: leaseType, ResourceNamesSubscribe: []string{"mesh.lease"}})

	s.send(&response{TypeUrl: rulesetType, Nonce: "a", Resources: []*discovery.Resource{resource(rulesetType, "orders", "1", "x")}})
	s.want(ack(rulesetType, "a"))
	s.send(&response{TypeUrl: leaseType, Nonce: "b", Resources: []*discovery.Resource{resource(leaseType, "mesh.lease", "7", "t")}})
	s.want(ack(leaseType, "b"))
	wantTook(t, e, "orders@1=x", "mesh.lease@7=t")
	if !take(t, e.up, "Connected") {
		t.Error("Connected(false) at first")
	}

	s.send(&response{TypeUrl: leaseType, Nonce: "c", RemovedResources: []string{"mesh.lease"}})
	s.want(ack(leaseType, "c"))
	wantTook(t, e, "-mesh.lease")

	s.finish(status.Error(codes.Unavailable, "stopping"))
	if take(t, e.up, "Connected") {
		t.Error("Connected(true) after the cut")
	}
	s = two.next(t)
	s.want(&request{Node: node, TypeUrl: rulesetType, ResourceNamesSubscribe: []string{"orders", "shop"}, InitialResourceVersions: map[string]string{"orders": "1"}})
	s.want(&request{TypeUrl: leaseType, ResourceNamesSubscribe: []string{"mesh.lease"}})

	e.mu.Lock()
	e.bad["orders"] = context.DeadlineExceeded
	e.mu.Unlock()
	s.send(&response{TypeUrl: rulesetType, Nonce: "a", Resources: []*discovery.Resource{resource(rulesetType, "orders", "2", "y")}})
	if got := take(t, s.requests, "the NACK"); got.GetResponseNonce() != "a" || got.GetErrorDetail().GetMessage() != "orders: context deadline exceeded" {
		t.Errorf("answer %v, want a NACK", got)
	}
	two.stop()
	s = one.next(t)
	s.want(&request{Node: node, TypeUrl: rulesetType, ResourceNamesSubscribe: []string{"orders", "shop"}, InitialResourceVersions: map[string]string{"orders": "1"}})
	wantTook(t, e)
}

func wantTook(t *testing.T, e *enforcer, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, e.took()); diff != "" {
		t.Errorf("put in force (-want +got):\n%s", diff)
	}
}

// An update of many MiB arrives.
func TestLarge(t *testing.T) {
	p := newPlane(t)
	e := newEnforcer()
	start(t, mustClient(t, config(e, p.address)))
	s := p.next(t)
	s.greet()
	s.greet()
	s.send(&response{TypeUrl: rulesetType, Nonce: "a", Resources: []*discovery.Resource{resource(rulesetType, "orders", "1", strings.Repeat("x", 20<<20))}})
	s.want(ack(rulesetType, "a"))
}

// What can't be answered ends the stream, and the next one is as good as any.
func TestBrokenProtocol(t *testing.T) {
	p := newPlane(t)
	e := newEnforcer()
	start(t, mustClient(t, config(e, p.address)))
	for _, resp := range []*response{
		{},
		{TypeUrl: rulesetType, Resources: []*discovery.Resource{resource(rulesetType, "orders", "1", "no nonce")}},
		{TypeUrl: "type.googleapis.com/google.protobuf.Struct", Nonce: "a", Resources: []*discovery.Resource{resource(rulesetType, "orders", "1", "another type")}},
	} {
		s := p.next(t)
		s.greet()
		s.greet()
		s.send(resp)
		select {
		case <-s.stream.Context().Done():
		case req := <-s.requests:
			t.Errorf("answer to %v: %v; want none, and the end of the stream", resp, req)
		}
	}
	s := p.next(t)
	s.greet()
	s.greet()
	s.send(&response{TypeUrl: rulesetType, Nonce: "a", Resources: []*discovery.Resource{resource(rulesetType, "orders", "1", "x")}})
	s.want(ack(rulesetType, "a"))
	wantTook(t, e, "orders@1=x")
}

// Where nobody is, or somebody else, the next address is tried, and nobody else gets a
// stream.
func TestAddresses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	good := newPlane(t)
	e := newEnforcer()
	c := config(e, nobody, good.address, "no address")
	logged := logTo(t, &c)
	stop := start(t, mustClient(t, c))
	good.next(t).finish(nil)
	good.next(t)
	stop()
	for _, want := range []string{
		`address=` + nobody + ` error=`, "connection refused",
		`address=` + good.address + ` error="the control plane has ended the stream"`,
		`address="no address" error=`,
	} {
		if !strings.Contains(logged(), want) {
			t.Errorf("the log has no %q:\n%s", want, logged())
		}
	}
}

// A server that is not the control plane gets nothing, and the log says what it is.
func TestStranger(t *testing.T) {
	stranger, good := newPlane(t), newPlane(t)
	e := newEnforcer()
	c := config(e, stranger.address, good.address)
	calls := 0
	c.TLS = c.TLS.Clone()
	c.TLS.VerifyConnection = func(tls.ConnectionState) error {
		if calls++; calls == 1 {
			return x509.HostnameError{Certificate: &x509.Certificate{DNSNames: []string{"stranger"}}, Host: "control-plane"}
		}
		return nil
	}
	logged := logTo(t, &c)
	stop := start(t, mustClient(t, c))
	good.next(t)
	stop()
	if !strings.Contains(logged(), "valid for stranger, not control-plane") {
		t.Errorf("the log does not say who it was:\n%s", logged())
	}
}
