package dataplane

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
)

// UnaryInterceptor is Middleware for unary calls of a grpc.Server. A refusal has the
// code Unauthenticated, PermissionDenied or Unavailable, and its reason in the
// trailer.
func (d *DataPlane) UnaryInterceptor() grpc.UnaryServerInterceptor {
	return func(ctx context.Context, message any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		a, err := d.admit(ctx, info.FullMethod, false, func(md metadata.MD) { _ = grpc.SetTrailer(ctx, md) })
		if err != nil {
			return nil, err
		}
		defer a.done()
		return handler(a.ctx, message)
	}
}

// StreamInterceptor is UnaryInterceptor for streams. One that ends with its token ends
// with Unauthenticated; its handler finds its context done, and returns after that.
func (d *DataPlane) StreamInterceptor() grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		a, err := d.admit(stream.Context(), info.FullMethod, true, stream.SetTrailer)
		if err != nil {
			return err
		}
		stream = admittedStream{stream, a.ctx}
		if a.liveStream == nil {
			defer a.done()
			return handler(srv, stream)
		}
		// Only our return ends the stream under a handler that waits for a message.
		over := make(chan outcome, 1)
		go func() { over <- handled(handler, srv, stream); a.done() }()
		select {
		case o := <-over:
			return o.get()
		case <-a.ctx.Done():
			if context.Cause(a.ctx) != errEnded {
				return (<-over).get()
			}
			return status.Error(codes.Unauthenticated, errEnded.Error())
		}
	}
}

// outcome of a handler: what it returned, or what it panicked with.
type outcome struct {
	err      error
	panicked any
}

func handled(handler grpc.StreamHandler, srv any, stream grpc.ServerStream) (o outcome) {
	defer func() { o.panicked = recover() }()
	return outcome{err: handler(srv, stream)}
}

// get panics as the handler did, where interceptors outside can see it.
func (o outcome) get() error {
	if o.panicked != nil {
		panic(o.panicked)
	}
	return o.err
}

// admitted is a call that was let in.
type admitted struct {
	ctx         context.Context
	*liveStream // nil: it is not watched
}

func (d *DataPlane) admit(ctx context.Context, method string, long bool, trailer func(metadata.MD)) (admitted, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	buffer := fields.Get().(*[]ruleset.Field)
	defer func() { clear(*buffer); fields.Put(buffer) }()
	req := callOf(md, method, (*buffer)[:0])
	*buffer = req.Header
	v, word := d.guard.decide(req)
	if word != "" {
		refusal := ruleset.Refuse(req, word)
		d.guard.count(&refusal)
		return admitted{}, refused(&refusal, trailer)
	}
	decision := v.Decision()
	d.guard.count(decision)
	if !decision.Allowed {
		return admitted{}, refused(decision, trailer)
	}
	if decision.Observed != "" {
		trailer(metadata.Pairs(reason.ObservedHeader, string(decision.Observed)))
	}
	ctx = metadata.NewIncomingContext(withCaller(ctx, v), metadataOf(v.Forward(), req.Authority))
	ctx, stream := d.guard.watch(ctx, req, v, long)
	return admitted{ctx, stream}, nil
}

// callOf is a call as the request that it is (gRPC over HTTP/2). What grpc-go has
// taken out of the header section is put back.
func callOf(md metadata.MD, method string, into []ruleset.Field) ruleset.Request {
	req := ruleset.Request{Method: "POST", Path: method}
	into = append(into, ruleset.Field{Name: "content-type", Value: "application/grpc"})
	for name, values := range md {
		for _, v := range values {
			switch {
			case name == ":authority":
				req.Authority = v
			case name != "content-type" && !strings.HasPrefix(name, ":"):
				into = append(into, ruleset.Field{Name: name, Value: v})
			}
		}
	}
	req.Header = into
	return req
}

func metadataOf(req ruleset.Request, authority string) metadata.MD {
	md := make(metadata.MD, len(req.Header)+1)
	md[":authority"] = []string{authority}
	for _, f := range req.Header {
		name := strings.ToLower(f.Name)
		md[name] = append(md[name], f.Value)
	}
	return md
}

func refused(d *ruleset.Decision, trailer func(metadata.MD)) error {
	md := metadata.MD{}
	for _, f := range d.RefusalHeader() {
		if f.Name != "content-type" && !strings.HasPrefix(f.Name, "grpc-") {
			md.Set(f.Name, f.Value)
		}
	}
	trailer(md)
	return status.Error(codes.Code(d.GRPCStatus), d.GRPCMessage)
}

// admittedStream has the context with the caller.
type admittedStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s admittedStream) Context() context.Context { return s.ctx }
