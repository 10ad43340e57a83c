package controlplane

import (
	"context"
	"maps"
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/revocation"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/controlplane/xds"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// goPlane is a data plane in Go, that ACKs all that it gets. What it was sent is read
// in order; the control plane's ledger says when there is no more.
type goPlane struct {
	t        *testing.T
	received chan *discovery.DeltaDiscoveryResponse
}

func (r *replicaInMemory) connectGo(service string) *goPlane {
	r.t.Helper()
	ctx, cancel := context.WithCancel(asService(context.Background(), service))
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(r.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, typeURL := range []string{xds.RulesetType, xds.RevocationsType, xds.OutboundType} {
		if err := stream.Send(&discovery.DeltaDiscoveryRequest{
			Node: &core.Node{Id: "go-" + service, Cluster: service, UserAgentName: "watchword-go"}, TypeUrl: typeURL, ResourceNamesSubscribe: []string{service},
		}); err != nil {
			r.t.Fatal(err)
		}
	}
	p := &goPlane{r.t, make(chan *discovery.DeltaDiscoveryResponse, 100)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			resp, err := stream.Recv()
			if err != nil {
				return
			}
			p.received <- resp
			_ = stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()})
		}
	}()
	r.t.Cleanup(func() { cancel(); <-done })
	return p
}

// got is the number of responses since the last call, with the last message of each
// type. It is called when the data plane is in sync, so all have come.
func (p *goPlane) got() (n int, rs *dataplanev1.Ruleset, out *dataplanev1.Outbound) {
	p.t.Helper()
	for {
		select {
		case resp := <-p.received:
			n++
			for _, res := range resp.GetResources() {
				m, err := res.GetResource().UnmarshalNew()
				if err != nil {
					p.t.Fatal(err)
				}
				switch m := m.(type) {
				case *dataplanev1.Ruleset:
					rs = m
				case *dataplanev1.Outbound:
					out = m
				}
			}
		default:
			return n, rs, out
		}
	}
}

// A data plane in Go gets the ruleset of its service and what it calls others with,
// as messages; of a change, the one that it is about and nothing else; and nothing
// where what comes out is equal. A revocation is a message of its own.
func TestLoopServesGo(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Run("steps", func(t *testing.T) {
		r := begin(t)
		p := r.connectGo("a")
		r.until(0, 1)
		n, rs, out := p.got()
		want := &dataplanev1.Outbound{Service: "a", SigningKeys: []string{signingKeyID(r.state)}, Callees: []*dataplanev1.Callee{{Service: "b", Audience: "b", Hosts: []string{"b"}}}}
		if n != 3 || !proto.Equal(out, want) || rs.GetService() != "a" || len(rs.GetIssuers()) != 1 {
			t.Fatalf("at the start: %d responses, %v and %v; want 3, with a ruleset of a and %v", n, rs, out, want)
		}
		service := func(name, spec string) string {
			return "{apiVersion: watchword.dev/v1, kind: Service, metadata: {name: " + name + "}, spec: " + spec + "}"
		}
		for _, step := range []struct {
			name              string
			event             func() store.Event
			rulesets, changes int
			revoked           int
		}{
			{"what is equal", func() store.Event { return r.edit(service("a", "{calls: [{service: b}]}")) }, 0, 0, 0},
			{"a scope, which the token endpoint goes by", func() store.Event { return r.edit(service("a", "{calls: [{service: b, scopes: [x]}]}")) }, 0, 0, 0},
			{"where who is called is", func() store.Event { return r.edit(service("b", "{hosts: [b.test], endpoints: [\"10.0.0.7:8443\"]}")) }, 0, 1, 0},
			{"a route of who is called", func() store.Event {
				return r.edit(service("b", "{hosts: [b.test], endpoints: [\"10.0.0.7:8443\"], routes: [{name: r, paths: [/r]}]}"))
			}, 0, 0, 0},
			{"a route of its own", func() store.Event {
				return r.edit(service("a", "{calls: [{service: b}], routes: [{name: r, paths: [/r]}]}"))
			}, 1, 0, 0},
			{"another service", func() store.Event { return r.edit(service("d", "{}")) }, 0, 0, 0},
			{"another signing key", func() store.Event { return r.rekey(signingKey(t)) }, 1, 1, 0},
			{"a revocation", func() store.Event {
				return r.revoke(t, revocation.Entry{Kind: revocation.Token, Issuer: "watchword", Value: "j1"})
			}, 0, 0, 1},
			{"the same again", func() store.Event {
				return r.revoke(t, revocation.Entry{Kind: revocation.Token, Issuer: "watchword", Value: "j1"})
			}, 0, 0, 0},
			{"one of an issuer that it does not accept", func() store.Event {
				return r.revoke(t, revocation.Entry{Kind: revocation.Token, Issuer: "idp", Value: "j1"})
			}, 0, 0, 0},
			{"one for another service", func() store.Event {
				return r.revoke(t, revocation.Entry{Kind: revocation.Token, Issuer: "watchword", Value: "j2", Audiences: []string{"b"}})
			}, 0, 0, 0},
			{"nobody is called", func() store.Event { return r.edit(service("a", "{routes: [{name: r, paths: [/r]}]}")) }, 0, 1, 0},
			{"its end", func() store.Event { return r.edit("", policy.Key{Kind: policy.KindService, Name: "a"}) }, 1, 1, 1},
		} {
			e := step.event()
			r.apply(e)
			r.until(0, 1)
			got, rs, out := p.got()
			if got != step.rulesets+step.changes+step.revoked || step.name != "its end" && ((rs != nil) != (step.rulesets > 0) || (out != nil) != (step.changes > 0)) {
				t.Errorf("%s: %d responses, ruleset %v, outbound side %v; want %d, %d, and %d of revocations", step.name, got, rs, out, step.rulesets, step.changes, step.revoked)
			}
		}
	})
}

// revoke is an event that adds one.
func (r *replicaInMemory) revoke(t *testing.T, e revocation.Entry) store.Event {
	t.Helper()
	e, err := revocation.New(e)
	if err != nil {
		t.Fatal(err)
	}
	next := r.state
	next.Revision++
	next.Revocations = maps.Clone(next.Revocations)
	if next.Revocations == nil {
		next.Revocations = map[string]revocation.Entry{}
	}
	next.Revocations[e.ID] = e
	r.state = next
	return store.Event{Snapshot: &next, Revocations: []string{e.ID}}
}

func signingKeyID(s store.Snapshot) string {
	for id := range s.Keys {
		return id
	}
	return ""
}

// An operator sees what a data plane in Go was sent, without the shared secrets in it.
func TestShownRulesetHasNoSecrets(t *testing.T) {
	defer goleak.VerifyNone(t)
	t.Run("shown", func(t *testing.T) {
		r := begin(t)
		r.apply(r.edit(`
{apiVersion: watchword.dev/v1, kind: Issuer, metadata: {name: own}, spec: {issuer: own, keySet: {secret: {keys: [{secret: "a secret of thirty-two characters"}]}}}}
---
{apiVersion: watchword.dev/v1, kind: AuthenticationPolicy, metadata: {name: a}, spec: {target: {services: [a]}, jwtRules: [{issuer: own, audiences: [a]}]}}`))
		p := r.connectGo("a")
		r.until(0, 1)
		_, rs, _ := p.got()
		const sent, shown = "YSBzZWNyZXQgb2YgdGhpcnR5LXR3byBjaGFyYWN0ZXJz", "a secret of thirty"
		if key := rs.GetIssuers()[0].GetKeys()[0]; !key.GetSymmetric() || !strings.Contains(key.GetJwk(), sent) {
			t.Fatalf("the ruleset has the key %v, want the secret: the test proves nothing", key)
		}
		resp, err := dataPlanes{xds: r.xds}.Config("go-a")
		if err != nil || len(resp.GetResources()) != 3 {
			t.Fatalf("Config = %v, %v; want three resources", resp, err)
		}
		if text := resp.String(); strings.Contains(text, sent) || strings.Contains(text, shown) || !strings.Contains(text, "[redacted]") {
			t.Errorf("what is shown has the secret, or not the place where it was: %s", text)
		}
	})
}
