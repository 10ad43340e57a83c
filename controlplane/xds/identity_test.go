package xds

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

var (
	orders1 = Identity{Service: "orders", Instance: "one"}
	orders2 = Identity{Service: "orders", Instance: "two"}
)

// belongs is a node that says by its metadata which service it is of.
func belongs(id, service string) *core.Node {
	return &core.Node{Id: id, UserAgentName: "envoy", Metadata: &structpb.Struct{
		Fields: map[string]*structpb.Value{"watchword.service": structpb.NewStringValue(service)}}}
}

// A stream gets what its certificate's service has, and nothing of another one,
// by whatever way it asks: metadata, the node's cluster, names, versions that it
// claims to hold, a wildcard. What is not there is not answered, so that an
// Envoy's initial_fetch_timeout ends its wait, and sent once it is.
func TestOnlyItsOwnService(t *testing.T) {
	listener := Resource{TypeURL: resource.ListenerType, Name: "inbound", Body: []byte("billing's")}
	foreign := filter("mesh.inbound/billing", "secret")
	for name, node := range map[string]*core.Node{
		"by metadata": belongs("n1", "billing"),
		"by cluster":  {Id: "n1", Cluster: "billing", UserAgentName: "envoy"},
		"by name":     {Id: "n1", UserAgentName: "envoy"},
	} {
		t.Run(name, func(t *testing.T) {
			log := &lockedBuffer{}
			f := start(t, Config{Logger: hclog.New(&hclog.LoggerOptions{Output: log})})
			f.publish(1, "billing", foreign, listener)
			p := f.connectAs(t, orders1, node)
			p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: ecdsType, ResourceNamesSubscribe: []string{foreign.Name, inbound1.Name},
				InitialResourceVersions: map[string]string{foreign.Name: version(testKey, foreign)}})
			r := p.want(removed(ecdsType, foreign.Name)) // claimed to be held, and not there for this one
			p.ack(r)
			p.subscribe(ecdsType, foreign.Name)
			p.subscribe(resource.ListenerType, "*")
			p.ack(p.want(&discovery.DeltaDiscoveryResponse{TypeUrl: resource.ListenerType}))
			p.quiet()
			f.publish(2, "orders", inbound1)
			p.ack(p.want(one(inbound1)))
			p.quiet()
			f.publish(3, "billing", filter(foreign.Name, "another secret"))
			p.quiet()
			rows := f.DataPlanes("")
			if len(rows) != 1 || rows[0].Service != "orders" || rows[0].Instance != "one" || rows[0].Node != "n1" {
				t.Errorf("the ledger has %+v, want one data plane n1, which is instance one of orders", rows)
			}
			if n := strings.Count(log.String(), "another service than its certificate"); n != 1 {
				t.Errorf("it was logged %d times that the data plane says something else, want once:\n%s", n, log)
			}
		})
	}
}

// untilStreams waits for a number of streams: a client knows of the end of one
// before it is counted out.
func (f *fixture) untilStreams(t *testing.T, who Identity, want int) {
	t.Helper()
	for deadline := time.Now().Add(patience); f.Streams(who.Service, who.Instance) != want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%+v has %d streams after %v, want %d", who, f.Streams(who.Service, who.Instance), patience, want)
		}
	}
}

// A data plane that says nothing of itself is what its certificate says.
func TestNodeIsALabel(t *testing.T) {
	f := start(t, Config{})
	f.publish(1, "orders", inbound1)
	for _, tt := range []struct{ node, want string }{
		{"", "one"},
		{"a\nb\x00c", "a bc"},
		{"\x00\x1b", "one"},
		{strings.Repeat("x", 300), strings.Repeat("x", 256)},
	} {
		p := f.connectAs(t, orders1, &core.Node{Id: tt.node})
		p.subscribe(ecdsType, inbound1.Name)
		p.ack(p.want(one(inbound1)))
		p.quiet()
		if rows := f.DataPlanes("orders"); len(rows) != 1 || rows[0].Node != tt.want || rows[0].Kind != "unknown" {
			t.Errorf("node.id %q: the ledger has %+v, want node %q", tt.node, rows, tt.want)
		}
		_ = p.close()
		f.until(t, "the row is gone", func() bool { return len(f.DataPlanes("")) == 0 })
	}
}

// Two instances with one label are two data planes; two streams of one instance
// and label are one. Who asks for an instance by name gets that one, whatever
// others call themselves.
func TestRowsOfInstances(t *testing.T) {
	f := start(t, Config{})
	f.publish(1, "orders", inbound1)
	connect := func(who Identity, node string) {
		p := f.connectAs(t, who, envoyNode(node, "orders"))
		p.subscribe(ecdsType, inbound1.Name)
		p.ack(p.want(one(inbound1)))
		p.quiet()
	}
	connect(orders1, "n")
	connect(orders1, "n")
	connect(orders2, "n")
	connect(orders2, "one") // which is the name of the other
	var got []string
	for _, dp := range f.DataPlanes("") {
		got = append(got, dp.Service+" "+dp.Node+" "+dp.Instance)
	}
	if d := cmp.Diff([]string{"orders n one", "orders n two", "orders one two"}, got); d != "" {
		t.Errorf("rows differ (-want +got):\n%s", d)
	}
	for asked, want := range map[string]string{"n": "one", "one": "one", "two": "two"} {
		if dp, _, ok := f.Sent(asked); !ok || dp.Instance != want {
			t.Errorf("Sent(%q) = %+v, %v, want instance %s", asked, dp, ok, want)
		}
	}
}

// Who is nobody gets nothing, and no words about why that are not meant for it.
func TestIdentifyRefuses(t *testing.T) {
	for _, tt := range []struct {
		name     string
		identify func(context.Context) (Identity, error)
		code     codes.Code
		says     string
	}{
		{"nobody to ask", nil, codes.Unauthenticated, "watchword enrol"},
		{"an error", func(context.Context) (Identity, error) { return orders1, errors.New("etcd at 10.0.0.1") }, codes.Unauthenticated, "watchword enrol"},
		{"a status of another code", func(context.Context) (Identity, error) { return orders1, status.Error(codes.Internal, "10.0.0.1") }, codes.Unauthenticated, "watchword enrol"},
		{"a revoked one", func(context.Context) (Identity, error) { return orders1, errRevoked }, codes.PermissionDenied, "this instance was revoked"},
		{"no service", func(context.Context) (Identity, error) { return Identity{Instance: "x"}, nil }, codes.Unauthenticated, "watchword enrol"},
		{"no instance", func(context.Context) (Identity, error) { return Identity{Service: "orders"}, nil }, codes.Unauthenticated, "watchword enrol"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := start(t, Config{})
			f.who = tt.identify
			f.publish(1, "orders", inbound1)
			err := f.connect(t, envoyNode("n1", "orders")).ended()
			if status.Code(err) != tt.code || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "10.0.0.1") {
				t.Errorf("the stream ended with %v, want %s and %q", err, tt.code, tt.says)
			}
			f.untilStreams(t, orders1, 0)
		})
	}
}

// Disconnect ends the streams of an instance and of no other; without an
// instance those of the service. Nothing goes out over them any more.
func TestDisconnect(t *testing.T) {
	f := start(t, Config{})
	billing := Identity{Service: "billing", Instance: "one"}
	f.publish(1, "orders", inbound1)
	open := func(who Identity) *plane {
		p := f.connectAs(t, who, belongs("n", who.Service))
		p.subscribe(markType, "x")
		p.ack(p.recv())
		return p
	}
	a, b, c, d := open(orders1), open(orders1), open(orders2), open(billing)
	counts := func() string {
		return fmt.Sprint(f.Streams("orders", "one"), f.Streams("orders", "two"), f.Streams("orders", ""), f.Streams("billing", ""))
	}
	if got := counts(); got != "2 1 3 1" {
		t.Errorf("open streams of orders/one, orders/two, orders, billing: %s, want 2 1 3 1", got)
	}
	f.Disconnect("orders", "one")
	for _, p := range []*plane{a, b} {
		if err := p.ended(); status.Code(err) != codes.PermissionDenied || !strings.Contains(err.Error(), "this instance was revoked") {
			t.Errorf("a stream of orders/one ended with %v, want PermissionDenied that says why", err)
		}
	}
	c.quiet()
	f.Disconnect("orders", "")
	if err := c.ended(); status.Code(err) != codes.PermissionDenied {
		t.Errorf("the stream of orders/two ended with %v, want PermissionDenied", err)
	}
	d.quiet()
	f.untilStreams(t, orders1, 0)
	f.untilStreams(t, orders2, 0)
	if got := counts(); got != "0 0 0 1" || len(f.DataPlanes("")) != 1 {
		t.Errorf("open streams: %s, data planes: %+v; want those of billing only", got, f.DataPlanes(""))
	}
}

// A revocation that comes while a stream is being opened is not lost: whether
// before or after it is booked, the stream ends. Meant for the race detector.
func TestRevokedWhileOpening(t *testing.T) {
	var revoked atomic.Bool
	f := start(t, Config{Identify: func(context.Context) (Identity, error) {
		if revoked.Load() {
			return Identity{}, errRevoked
		}
		return orders1, nil
	}})
	f.publish(1, "orders", inbound1)
	for round := range 50 {
		revoked.Store(false)
		var opening sync.WaitGroup
		planes := make([]*plane, 4)
		for i := range planes {
			opening.Go(func() {
				planes[i] = f.connectAs(t, orders1, envoyNode("n", "orders"))
				// May fail, since the stream may be over.
				_ = planes[i].stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: ecdsType, ResourceNamesSubscribe: []string{inbound1.Name}})
			})
		}
		revoked.Store(true)
		f.Disconnect("orders", "one")
		opening.Wait()
		for _, p := range planes {
			if err := p.ended(); status.Code(err) != codes.PermissionDenied {
				t.Fatalf("round %d: a stream ended with %v, want PermissionDenied", round, err)
			}
		}
	}
	f.untilStreams(t, orders1, 0)
	if rows := f.DataPlanes(""); len(rows) != 0 {
		t.Errorf("the ledger has %+v, want no row", rows)
	}
}

// The second question, after a stream was booked, is the one that counts: who was
// revoked, or became another, between the two is refused.
func TestIdentityIsAskedAgain(t *testing.T) {
	for name, second := range map[string]func() (Identity, error){
		"revoked": func() (Identity, error) { return Identity{}, errRevoked },
		"another": func() (Identity, error) { return orders2, nil },
	} {
		var asked atomic.Int64
		f := start(t, Config{Identify: func(context.Context) (Identity, error) {
			if asked.Add(1) == 1 {
				return orders1, nil
			}
			return second()
		}})
		f.publish(1, "orders", inbound1)
		err := f.connectAs(t, orders1, envoyNode("n", "orders")).ended()
		if code := status.Code(err); code != codes.PermissionDenied && code != codes.Unauthenticated {
			t.Errorf("%s: the stream ended with %v, want a refusal", name, err)
		}
		f.untilStreams(t, orders1, 0)
	}
}

// An instance can't take the streams of others; it can open new ones when old
// ones are closed.
func TestStreamsOfAnInstanceAreBounded(t *testing.T) {
	f := start(t, Config{})
	f.publish(1, "orders", inbound1)
	open := func(who Identity) *plane {
		p := f.connectAs(t, who, envoyNode("n", "orders"))
		p.subscribe(ecdsType, inbound1.Name)
		return p
	}
	var last *plane
	for range maxInstanceStreams {
		last = open(orders1)
		last.want(one(inbound1))
	}
	if err := f.connectAs(t, orders1, envoyNode("n", "orders")).ended(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("stream %d ended with %v, want ResourceExhausted", maxInstanceStreams+1, err)
	}
	open(orders2).want(one(inbound1))
	_ = last.close()
	f.untilStreams(t, orders1, maxInstanceStreams-1)
	open(orders1).want(one(inbound1))
}

// A server without a key for its versions is a fault of the program.
func TestNewNeedsAVersionKey(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("New without VersionKey returned, want a panic")
		}
	}()
	New(Config{VersionKey: make([]byte, minVersionKey-1)})
}

// lockedBuffer is a log that two goroutines write and read.
type lockedBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
