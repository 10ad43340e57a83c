package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// extensions is how many an Envoy lists in its node, each about 100 bytes.
const extensions = 300

// client is a data plane that confirms whatever it gets.
type client struct {
	id      int
	service int
	conn    *grpc.ClientConn
	fleet   *fleet
	// versions by name, claimed when it connects again.
	versions map[string]string
}

// fleet of clients against one address.
type fleet struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
	// largest message that any client got, in bytes.
	largest atomic.Int64
}

// startFleet connects a client for each stream of the mesh, as what they have
// enrolled as.
func startFleet(address string, m mesh, as identities) (*fleet, error) {
	ctx, cancel := context.WithCancel(context.Background())
	f := &fleet{cancel: cancel}
	for i := range m.streams {
		c := &client{id: i, service: i % m.services, fleet: f, versions: map[string]string{}}
		var err error
		c.conn, err = grpc.NewClient("passthrough:///"+address,
			grpc.WithTransportCredentials(as.credentials(m, i)),
			grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{})),
			grpc.WithReadBufferSize(2<<10), grpc.WithWriteBufferSize(2<<10),
			grpc.WithContextDialer(func(ctx context.Context, a string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", a)
			}),
			grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: 20 * time.Second,
				Backoff: backoff.Config{BaseDelay: retry, Multiplier: 1, Jitter: 0.5, MaxDelay: retry}}))
		if err != nil {
			f.stop()
			return nil, err
		}
		f.done.Go(func() { c.run(ctx) })
	}
	return f, nil
}

func (f *fleet) stop() {
	f.cancel()
	f.done.Wait()
}

const retry = 100 * time.Millisecond

// run keeps a stream open until ctx ends.
func (c *client) run(ctx context.Context) {
	defer c.conn.Close()
	for ctx.Err() == nil {
		c.stream(ctx)
		select {
		case <-ctx.Done():
		case <-time.After(retry/2 + rand.N(retry)):
		}
	}
}

var method = grpc.StreamDesc{StreamName: "DeltaAggregatedResources", ServerStreams: true, ClientStreams: true}

func (c *client) stream(ctx context.Context) {
	s, err := c.conn.NewStream(ctx, &method, "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources", grpc.WaitForReady(true))
	if err != nil {
		return
	}
	if s.SendMsg(c.first()) != nil {
		return
	}
	var in []byte
	for s.RecvMsg(&in) == nil {
		nonce := string(field(in, 5))
		if r := field(in, 2); r != nil {
			c.versions[string(field(r, 3))] = string(field(r, 1))
		}
		if size := int64(len(in)); size > c.fleet.largest.Load() {
			c.fleet.largest.Store(size)
		}
		ack := protowire.AppendString(protowire.AppendTag(nil, 2, protowire.BytesType), ecdsType)
		ack = protowire.AppendString(protowire.AppendTag(ack, 6, protowire.BytesType), nonce)
		if s.SendMsg(ack) != nil {
			return
		}
	}
}

// extensionList is the part of the node that all clients share, encoded once.
var extensionList = func() []byte {
	node := &core.Node{UserAgentName: "envoy"}
	for i := range extensions {
		node.Extensions = append(node.Extensions, &core.Extension{Name: fmt.Sprintf("envoy.filters.http.extension_%d", i), Category: "envoy.filters.http",
			TypeUrls: []string{fmt.Sprintf("envoy.extensions.filters.http.extension_%d.v3.Config", i)}})
	}
	return encode(node)
}()

// first is the request with the node, as an Envoy sends it.
func (c *client) first() []byte {
	req := &discovery.DeltaDiscoveryRequest{TypeUrl: ecdsType, ResourceNamesSubscribe: []string{inboundName(c.service), revokedName(c.service)},
		InitialResourceVersions: c.versions,
		Node:                    &core.Node{Id: fmt.Sprintf("node-%d", c.id), Cluster: serviceName(c.service)}}
	// A message that comes twice is merged: this adds to the node.
	return protowire.AppendBytes(protowire.AppendTag(encode(req), 1, protowire.BytesType), extensionList)
}

func encode(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // cannot fail: all strings are ASCII
	}
	return b
}

// field returns the value of the first length-delimited field of that number.
func field(b []byte, number protowire.Number) []byte {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil
		}
		b = b[n:]
		if num == number && typ == protowire.BytesType {
			v, _ := protowire.ConsumeBytes(b)
			return v
		}
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return nil
		}
		b = b[n:]
	}
	return nil
}
