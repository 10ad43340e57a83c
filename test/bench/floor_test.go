package bench

import (
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/watchword-mesh/watchword/controlplane/xds"
)

// floor is the least that a gRPC server can do: it sends one message, encoded
// once, to all streams, and counts what comes back. It reads nothing of it.
type floor struct {
	mu      sync.Mutex
	streams map[chan struct{}]struct{}
	frame   atomic.Pointer[[]byte]
	version int

	counting sync.Mutex

	acks    int
	waiters []waiter
}

type waiter struct {
	acks int
	done chan struct{}
}

func newFloor() (server, []grpc.ServerOption) {
	f := &floor{streams: make(map[chan struct{}]struct{})}
	// The same options as ours, so that only what a server does differs.
	return f, append(xds.ServerOptions(), grpc.ForceServerCodecV2(rawCodec{}))
}

func (f *floor) Start(g *grpc.Server, _ int) error {
	f.encode()
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "envoy.service.discovery.v3.AggregatedDiscoveryService",
		HandlerType: (*any)(nil),
		Streams:     []grpc.StreamDesc{{StreamName: "DeltaAggregatedResources", ServerStreams: true, ClientStreams: true, Handler: f.stream}},
	}, f)
	return nil
}

// encode makes a new frame: one response with one resource and a nonce.
func (f *floor) encode() {
	f.version++
	name := resourceName(0)
	var any, resource, frame []byte
	any = protowire.AppendString(protowire.AppendTag(any, 1, protowire.BytesType), ecdsType)
	any = protowire.AppendBytes(protowire.AppendTag(any, 2, protowire.BytesType), body(0, f.version))
	resource = protowire.AppendString(protowire.AppendTag(resource, 1, protowire.BytesType), "0123456789abcdef")
	resource = protowire.AppendBytes(protowire.AppendTag(resource, 2, protowire.BytesType), any)
	resource = protowire.AppendString(protowire.AppendTag(resource, 3, protowire.BytesType), name)
	frame = protowire.AppendBytes(protowire.AppendTag(frame, 2, protowire.BytesType), resource)
	frame = protowire.AppendString(protowire.AppendTag(frame, 4, protowire.BytesType), ecdsType)
	frame = protowire.AppendString(protowire.AppendTag(frame, 5, protowire.BytesType), "1")
	f.frame.Store(&frame)
}

func (f *floor) stream(_ any, s grpc.ServerStream) error {
	wake := make(chan struct{}, 1)
	wake <- struct{}{}
	f.mu.Lock()
	f.streams[wake] = struct{}{}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.streams, wake)
		f.mu.Unlock()
	}()
	go f.count(s)
	for {
		select {
		case <-s.Context().Done():
			return nil
		case <-wake:
			if err := s.SendMsg(*f.frame.Load()); err != nil {
				return err
			}
		}
	}
}

// count reads a subscription, then ACKs.
func (f *floor) count(s grpc.ServerStream) {
	var in []byte
	for first := true; s.RecvMsg(&in) == nil; first = false {
		f.counting.Lock()
		if !first {
			f.acks++
		}
		rest := f.waiters[:0]
		for _, w := range f.waiters {
			if f.acks >= w.acks {
				close(w.done)
			} else {
				rest = append(rest, w)
			}
		}
		f.waiters = rest
		f.counting.Unlock()
	}
}

func (f *floor) Served(n int) <-chan struct{} {
	f.counting.Lock()
	defer f.counting.Unlock()
	done := make(chan struct{})
	if f.acks >= n {
		close(done)
	} else {
		f.waiters = append(f.waiters, waiter{acks: n, done: done})
	}
	return done
}

func (f *floor) Change(n int) error {
	f.counting.Lock()
	upTo := f.acks + n
	f.counting.Unlock()
	done := f.Served(upTo)
	f.encode()
	f.mu.Lock()
	for wake := range f.streams {
		wake <- struct{}{} // one slot, empty: all have confirmed the last
	}
	f.mu.Unlock()
	<-done
	return nil
}

// rawCodec passes bytes through.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}
