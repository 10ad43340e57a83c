package bench

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/watchword-mesh/watchword/controlplane/xds"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

// floor is the least that a gRPC server can do: it sends one message, encoded
// once, to all streams, and counts what comes back. It reads nothing of it. Its
// TLS is that of our ADS: a certificate of each client, verified.
type floor struct {
	door     *door // nil without TLS
	services int

	mu      sync.Mutex
	streams map[chan struct{}]struct{}
	frame   atomic.Pointer[[]byte]
	version int
	size    int

	counting sync.Mutex

	acks    int
	waiters []waiter
}

type waiter struct {
	acks int
	done chan struct{}
}

func newFloor() server { return &floor{streams: make(map[chan struct{}]struct{})} }

func (f *floor) Start(address, dir string, services int) (string, error) {
	f.services = services
	var err error
	if f.size, err = strconv.Atoi(os.Getenv(envSize)); err != nil {
		return "", fmt.Errorf("reading %s: %w", envSize, err)
	}
	f.encode()
	// The same options as ours, so that only what a server does differs.
	options := append(xds.ServerOptions(), grpc.ForceServerCodecV2(mixedCodec{}))
	if os.Getenv(envPlain) == "" {
		if f.door, err = newDoor(dir); err != nil {
			return "", err
		}
		options = append(options, grpc.Creds(credentials.NewTLS(f.door.config)))
	}
	g := grpc.NewServer(options...)
	if f.door != nil {
		enrolmentv1.RegisterEnrolmentServiceServer(g, f.door)
	}
	g.RegisterService(&grpc.ServiceDesc{
		ServiceName: "envoy.service.discovery.v3.AggregatedDiscoveryService",
		HandlerType: (*any)(nil),
		Streams:     []grpc.StreamDesc{{StreamName: "DeltaAggregatedResources", ServerStreams: true, ClientStreams: true, Handler: f.stream}},
	}, f)
	lis, err := net.Listen("tcp", address)
	if err != nil {
		return "", err
	}
	go func() { _ = g.Serve(lis) }()
	return lis.Addr().String(), nil
}

func (f *floor) JoinTokens(int) ([]string, error) {
	if f.door == nil {
		return nil, nil
	}
	return f.door.joinTokens(f.services), nil
}

// Admin implements server; this floor has none.
func (*floor) Admin() string { return "" }

// encode makes a new frame: one response with one resource and a nonce, in all
// of the size that was asked for, but for a few bytes of headers.
func (f *floor) encode() {
	f.version++
	var any, resource, frame []byte
	any = protowire.AppendString(protowire.AppendTag(any, 1, protowire.BytesType), ecdsType)
	any = protowire.AppendBytes(protowire.AppendTag(any, 2, protowire.BytesType), body(f.size-len(ecdsType)*2-60, f.version))
	resource = protowire.AppendString(protowire.AppendTag(resource, 1, protowire.BytesType), "0123456789abcdef")
	resource = protowire.AppendBytes(protowire.AppendTag(resource, 2, protowire.BytesType), any)
	resource = protowire.AppendString(protowire.AppendTag(resource, 3, protowire.BytesType), inboundName(0))
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

func (f *floor) Served(n int) error {
	<-f.confirmed(n)
	return nil
}

// confirmed is closed after n ACKs in all.
func (f *floor) confirmed(n int) <-chan struct{} {
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
	done := f.confirmed(upTo)
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

// mixedCodec passes bytes through, and does with messages what gRPC does.
type mixedCodec struct{ rawCodec }

func (c mixedCodec) Marshal(v any) (mem.BufferSlice, error) {
	if b, ok := v.([]byte); ok {
		return c.rawCodec.Marshal(b)
	}
	return encoding.GetCodecV2("proto").Marshal(v)
}

func (c mixedCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if b, ok := v.(*[]byte); ok {
		return c.rawCodec.Unmarshal(data, b)
	}
	return encoding.GetCodecV2("proto").Unmarshal(data, v)
}
