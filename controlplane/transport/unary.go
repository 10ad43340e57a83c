package transport

import (
	"google.golang.org/grpc"
)

// UnreadUnary registers services whose unary calls run as streams of one message,
// which are the same on the wire. The server reads, and keeps in memory, the whole
// message of a unary call before anything can refuse it; that of a stream is read
// when its handler asks for it, after the stream interceptor.
// The server does not call its own for what has one message each way: this one is.
func UnreadUnary(r grpc.ServiceRegistrar, before grpc.StreamServerInterceptor) grpc.ServiceRegistrar {
	return unread{r, before}
}

type unread struct {
	grpc.ServiceRegistrar
	before grpc.StreamServerInterceptor
}

// RegisterService implements grpc.ServiceRegistrar.
func (u unread) RegisterService(desc *grpc.ServiceDesc, impl any) {
	d := *desc
	d.Methods, d.Streams = nil, append([]grpc.StreamDesc(nil), desc.Streams...)
	for _, m := range desc.Methods {
		d.Streams = append(d.Streams, grpc.StreamDesc{StreamName: m.MethodName, Handler: u.asStream(desc.ServiceName, m)})
	}
	u.ServiceRegistrar.RegisterService(&d, impl)
}

func (u unread) asStream(service string, m grpc.MethodDesc) grpc.StreamHandler {
	info := &grpc.StreamServerInfo{FullMethod: "/" + service + "/" + m.MethodName}
	call := func(impl any, ss grpc.ServerStream) error {
		resp, err := m.Handler(impl, ss.Context(), ss.RecvMsg, nil)
		if err != nil {
			return err
		}
		return ss.SendMsg(resp)
	}
	return func(impl any, ss grpc.ServerStream) error { return u.before(impl, ss, info, call) }
}

// IsUnary says whether a stream is a unary call of UnreadUnary.
func IsUnary(info *grpc.StreamServerInfo) bool {
	return !info.IsClientStream && !info.IsServerStream
}
