package transport

import (
	"google.golang.org/grpc"
)

// UnreadUnary registers services whose unary calls run as streams of one message,
// which are the same on the wire. The server reads, and keeps in memory, the whole
// message of a unary call before anything can refuse it; that of a stream is read
// when its handler asks for it, after the stream interceptor.
func UnreadUnary(r grpc.ServiceRegistrar) grpc.ServiceRegistrar { return unread{r} }

type unread struct{ grpc.ServiceRegistrar }

// RegisterService implements grpc.ServiceRegistrar.
func (u unread) RegisterService(desc *grpc.ServiceDesc, impl any) {
	d := *desc
	d.Methods, d.Streams = nil, append([]grpc.StreamDesc(nil), desc.Streams...)
	for _, m := range desc.Methods {
		d.Streams = append(d.Streams, grpc.StreamDesc{StreamName: m.MethodName, Handler: asStream(m)})
	}
	u.ServiceRegistrar.RegisterService(&d, impl)
}

func asStream(m grpc.MethodDesc) grpc.StreamHandler {
	return func(impl any, ss grpc.ServerStream) error {
		resp, err := m.Handler(impl, ss.Context(), ss.RecvMsg, nil)
		if err != nil {
			return err
		}
		return ss.SendMsg(resp)
	}
}

// IsUnary says whether a stream is a unary call of UnreadUnary.
func IsUnary(info *grpc.StreamServerInfo) bool {
	return !info.IsClientStream && !info.IsServerStream
}
