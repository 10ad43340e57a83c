package api

import (
	"context"
	"crypto/rand"
	"path"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/audit"
)

// handles carry actors through the pipe between the JSON side and the gRPC side,
// which carries no context: a handle is given to one request, can't be guessed,
// ends with it, and means something at the inner end of the pipe alone.
type handles struct {
	mu     sync.Mutex
	actors map[string]access.Actor
}

// handleKey is in the metadata of the pipe.
const handleKey = "watchword-actor"

func (h *handles) give(a access.Actor) (handle string, done func()) {
	handle = rand.Text()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.actors == nil {
		h.actors = map[string]access.Actor{}
	}
	h.actors[handle] = a
	return handle, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.actors, handle)
	}
}

// of returns the actor of a call that came through the pipe, or nobody.
func (h *handles) of(ctx context.Context) access.Actor {
	md, _ := metadata.FromIncomingContext(ctx)
	given := md.Get(handleKey)
	if len(given) != 1 {
		return access.Actor{}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.actors[given[0]]
}

// grpcServer makes a server whose calls are of the actors that actorOf names.
func (s *Server) grpcServer(actorOf func(context.Context) access.Actor) *grpc.Server {
	return grpc.NewServer(
		grpc.MaxRecvMsgSize(maxRequestBytes),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			ctx = access.With(ctx, actorOf(ctx))
			resp, err := any(nil), s.meets(ctx, info.FullMethod)
			if err == nil && access.Writes(info.FullMethod) {
				err = s.load.mayWrite(access.From(ctx))
			}
			if err == nil {
				resp, err = next(ctx, req)
			}
			s.noteDenied(ctx, shortName(info.FullMethod), err)
			return resp, err
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			ctx := access.With(ss.Context(), actorOf(ss.Context()))
			err := s.meets(ctx, info.FullMethod)
			if err == nil {
				err = next(srv, actorStream{ss, ctx})
			}
			s.noteDenied(ctx, shortName(info.FullMethod), err)
			return err
		}),
	)
}

// actorStream is a stream whose context has the actor.
type actorStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s actorStream) Context() context.Context { return s.ctx }

// meets is the second lock, behind split: it is about the method alone.
func (s *Server) meets(ctx context.Context, method string) error {
	a := access.From(ctx)
	if a.Name == "" {
		return status.Error(codes.Unauthenticated, unauthenticated)
	}
	return denied(a.Meets(access.NeedOf(method)))
}

// allow says whether the caller may make a call about a service, or about all.
func (s *Server) allow(ctx context.Context, method, service string) error {
	state, _ := s.Configuration.Current()
	return denied(access.From(ctx).At(state).Allows(state, access.Call{Method: method, Service: service}))
}

func denied(err error) error {
	if err == nil {
		return nil
	}
	return status.Error(codes.PermissionDenied, err.Error())
}

// NoteRefused hands on and logs what another API that is mounted here refused the
// actor of ctx for want of a role. Method and reason are in words of that API alone.
func (s *Server) NoteRefused(ctx context.Context, method, reason string) {
	a := access.From(ctx)
	s.refused(a.Name, a.Source, method, reason)
}

// noteDenied hands on what was refused for want of a role.
func (s *Server) noteDenied(ctx context.Context, method string, err error) {
	if st := status.Convert(err); st.Code() == codes.PermissionDenied || st.Code() == codes.Unauthenticated {
		s.NoteRefused(ctx, method, st.Message())
	}
}

// refused hands an attempt on, and logs it.
func (s *Server) refused(actor, source, method, reason string) {
	if s.load.mayLog(actor, source) { // the audit counts them all
		s.Logger.Warn("admin call refused", "method", method, "actor", actor, "source", source, "reason", reason)
	}
	s.Refused(audit.Entry{Time: time.Now().UTC(), Actor: actor, Source: source, Method: method, Outcome: audit.Refused, Reason: reason})
}

// entry is what is written down of a call that changes something.
func entry(ctx context.Context, method string, subjects ...string) audit.Entry {
	a := access.From(ctx)
	return audit.Entry{Time: time.Now().UTC(), Actor: a.Name, Source: a.Source, Method: shortName(method), Outcome: audit.Done, Subjects: slices.Clone(subjects)}
}

// shortName is "Apply" of "/watchword.admin.v1.AdminService/Apply"; what is none
// of our methods is left as it is.
func shortName(method string) string {
	if access.Known(method) {
		return path.Base(method)
	}
	return method
}
