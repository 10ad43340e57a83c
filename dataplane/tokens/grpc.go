package tokens

import (
	"context"
	"errors"
	"net"
	"net/url"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/dataplane/reason"
)

// GRPC attaches tokens of one audience to calls over gRPC. Give a connection the
// interceptors, or PerRPCCredentials, which can't try again; not both. A call whose
// metadata have an `authorization`, or that has credentials of its own as an option,
// goes out as it is.
type GRPC struct {
	Tokens   Tokens
	Audience string
	// LoopbackPlaintext lets tokens go over connections without TLS to this host:
	// both the address that the connection has and the authority of the call must be
	// loopback, so that no proxy in between gets one. False: TLS is needed always.
	LoopbackPlaintext bool
}

// PerRPCCredentials attaches a token to each call.
func (g GRPC) PerRPCCredentials() credentials.PerRPCCredentials { return &attempt{grpc: g} }

// UnaryInterceptor attaches a token to each call. One that the callee refuses, as
// its token isn't accepted, is made once more with a new token.
func (g GRPC) UnaryInterceptor() grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if hasCredentials(opts) {
			return invoke(ctx, method, req, reply, cc, opts...)
		}
		var header, trailer metadata.MD
		first := &attempt{grpc: g}
		err := invoke(ctx, method, req, reply, cc, append(slices.Clone(opts), grpc.PerRPCCredentials(first), grpc.Header(&header), grpc.Trailer(&trailer))...)
		if !first.again(err, header, trailer) {
			return err
		}
		return invoke(ctx, method, req, reply, cc, append(slices.Clone(opts), grpc.PerRPCCredentials(g.PerRPCCredentials()))...)
	}
}

func hasCredentials(opts []grpc.CallOption) bool {
	return slices.ContainsFunc(opts, func(o grpc.CallOption) bool {
		_, ok := o.(grpc.PerRPCCredsCallOption)
		return ok
	})
}

// attempt is the credentials of one call, or of many if nobody asks again.
type attempt struct {
	grpc GRPC

	mu   sync.Mutex
	sent Token
}

// RequireTransportSecurity lets gRPC look after TLS, unless it may be missing.
func (a *attempt) RequireTransportSecurity() bool { return !a.grpc.LoopbackPlaintext }

// GetRequestMetadata gives the `authorization` of one call.
func (a *attempt) GetRequestMetadata(ctx context.Context, uri ...string) (map[string]string, error) {
	if md, ok := metadata.FromOutgoingContext(ctx); ok && len(md.Get("authorization")) > 0 {
		return nil, nil
	}
	if !private(ctx) && !(a.grpc.LoopbackPlaintext && local(ctx, uri)) {
		return nil, status.Error(codes.Unauthenticated, "no token goes over plain text: use TLS, or call through a sidecar on a loopback address")
	}
	token, err := a.grpc.Tokens.Token(ctx, a.grpc.Audience)
	if err != nil {
		return nil, callError(err)
	}
	a.mu.Lock()
	a.sent = token
	a.mu.Unlock()
	return map[string]string{"authorization": token.authorization()}, nil
}

// private tells whether the connection keeps what is sent from others.
func private(ctx context.Context) bool {
	ri, ok := credentials.RequestInfoFromContext(ctx)
	return ok && credentials.CheckSecurityLevel(ri.AuthInfo, credentials.PrivacyAndIntegrity) == nil
}

// local tells whether both ends of a call are on this host: who has accepted the
// connection, and whom the call names.
func local(ctx context.Context, uri []string) bool {
	p, ok := peer.FromContext(ctx)
	if !ok || len(uri) == 0 {
		return false
	}
	for _, text := range uri {
		if u, err := url.Parse(text); err != nil || !loopback(u.Hostname()) {
			return false
		}
	}
	switch addr := p.Addr.(type) {
	case *net.TCPAddr:
		return addr.IP.IsLoopback()
	case *net.UnixAddr:
		return true
	}
	return false
}

// callError gives the status that gRPC wants: a refusal is final for the caller.
func callError(err error) error {
	var e *Error
	switch {
	case errors.As(err, &e) && e.final():
		return status.Error(codes.Unauthenticated, err.Error())
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.Unavailable, err.Error())
}

// again tells whether to make a call that has ended so once more.
func (a *attempt) again(err error, header, trailer metadata.MD) bool {
	a.mu.Lock()
	sent := a.sent
	a.mu.Unlock()
	if sent.Value == "" || status.Code(err) != codes.Unauthenticated || !refusedCall(header, trailer) {
		return false
	}
	return a.grpc.Tokens.Refused(a.grpc.Audience, sent)
}

// refusedCall looks for the reason where a data plane puts it: a response without a
// message has its header in what gRPC takes for the trailer.
func refusedCall(mds ...metadata.MD) bool {
	for _, md := range mds {
		if words := md.Get(reason.Header); len(words) > 0 {
			return renewable(reason.Word(words[0]))
		}
	}
	return false
}
