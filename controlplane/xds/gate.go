package xds

import (
	"context"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/pkg/server/stream/v3"
	"google.golang.org/protobuf/proto"
)

// What one instance may ask of us over all its streams, in units of requestUnit
// bytes: 4 MiB at once, and then 1 MiB a second. The first request of an Envoy has
// some 40 KiB, an ACK has some 300 bytes.
const (
	requestUnit       = 256
	requestsPerSecond = 4096
	requestsAtOnce    = 16384
)

// Log lines about what an instance asks for: it could have any number by asking
// for what is not there, or by refusing what it asked for.
const (
	linesPerSecond = 1
	linesAtOnce    = 100
)

// gate is what a stream comes in and goes out by.
type gate struct {
	streamv3.DeltaStream
	*stream
}

// Send lets nothing out over a stream that has been ended, though the engine, which
// has several things to do, may not have come to see that.
func (g gate) Send(resp *discovery.DeltaDiscoveryResponse) error {
	if g.ended.Err() != nil {
		return context.Cause(g.ended)
	}
	return g.DeltaStream.Send(resp)
}

// Recv gives the next request when the instance may make it. Until then it is the
// client that waits, once the buffers are full, while what it is sent goes out.
func (g gate) Recv() (*discovery.DeltaDiscoveryRequest, error) {
	req, err := g.DeltaStream.Recv()
	if err != nil {
		return nil, err
	}
	units := 1 + proto.Size(req)/requestUnit
	wait := g.server.requests.Owe(g.identity.String(), units, time.Now()) // of the machine, since it is slept by
	if wait == 0 {
		return req, nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return req, nil
	case <-g.ended.Done():
		return nil, context.Cause(g.ended)
	case <-g.Context().Done():
		return nil, g.Context().Err()
	}
}

// String is for keys, and for people.
func (i Identity) String() string { return i.Service + "/" + i.Instance }

// mayLog says whether there may be one more line about what the stream does.
func (st *stream) mayLog() bool {
	return st.server.lines.Take(st.identity.String(), 1, time.Now()) == 0
}
