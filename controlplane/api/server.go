package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// maxRequestBytes bounds a request: documents are text, and an apply of a
// whole mesh is one request.
const maxRequestBytes = 16 << 20

// Handler serves gRPC and JSON on one address, and returns what ends it. The
// JSON side calls the gRPC side through a pipe, so that both pass the same
// authentication.
func (s *Server) Handler() (http.Handler, func(), error) {
	g := grpc.NewServer(
		grpc.UnaryInterceptor(s.authenticateUnary),
		grpc.StreamInterceptor(s.authenticateStream),
		grpc.MaxRecvMsgSize(maxRequestBytes),
	)
	adminv1.RegisterAdminServiceServer(g, s)
	pipe := bufconn.Listen(64 << 10)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(pipe) }()
	conn, err := grpc.NewClient("passthrough:///admin",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxRequestBytes)))
	if err != nil {
		g.Stop()
		return nil, nil, fmt.Errorf("connecting the JSON side of the admin API: %w", err)
	}
	mux := runtime.NewServeMux(
		// Unknown fields are refused: a misspelt dryRun would be an apply.
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.HTTPBodyMarshaler{
			Marshaler: &runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{EmitUnpopulated: true}},
		}))
	if err := adminv1.RegisterAdminServiceHandler(context.Background(), mux, conn); err != nil {
		g.Stop()
		return nil, nil, fmt.Errorf("setting up the JSON side of the admin API: %w", err)
	}
	stop := func() { _ = conn.Close(); g.Stop(); <-done }
	return s.split(g, mux), stop, nil
}

// split tells gRPC from JSON, and refuses who has no credential before
// anything of the body is read.
func (s *Server) split(g *grpc.Server, rest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		isGRPC := r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
		if !s.authorized(r.Header.Values("Authorization")) {
			s.Logger.Warn("admin call refused", "path", r.URL.Path, "credential", r.Header.Get("Authorization") != "")
			refuse(w, isGRPC)
			return
		}
		if isGRPC {
			g.ServeHTTP(w, r)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxRequestBytes)
		rest.ServeHTTP(w, r)
	})
}

const unauthenticated = "this call needs the admin token: authorization: Bearer TOKEN, with the content of admin.token in the control plane's data folder"

func refuse(w http.ResponseWriter, isGRPC bool) {
	if isGRPC { // an answer of headers alone ("Trailers-Only")
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", strconv.Itoa(int(codes.Unauthenticated)))
		w.Header().Set("Grpc-Message", unauthenticated)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("WWW-Authenticate", "Bearer")
	w.WriteHeader(http.StatusUnauthorized)
	_, _ = fmt.Fprintf(w, `{"code":%d,"message":%q,"details":[]}`, codes.Unauthenticated, unauthenticated)
}

func (s *Server) authenticateUnary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := s.authenticate(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

func (s *Server) authenticateStream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := s.authenticate(ss.Context(), info.FullMethod); err != nil {
		return err
	}
	return next(srv, ss)
}

// authenticate is the second lock, behind split.
func (s *Server) authenticate(ctx context.Context, method string) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if s.authorized(md.Get("authorization")) {
		return nil
	}
	s.Logger.Warn("admin call refused", "method", method)
	return status.Error(codes.Unauthenticated, unauthenticated)
}

// authorized compares digests, so that neither length nor prefix of the token
// shows in the time that it takes.
func (s *Server) authorized(given []string) bool {
	if len(given) != 1 || s.Token == "" {
		return false
	}
	scheme, token, _ := strings.Cut(given[0], " ")
	a, b := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(s.Token))
	return strings.EqualFold(scheme, "bearer") && subtle.ConstantTimeCompare(a[:], b[:]) == 1
}
