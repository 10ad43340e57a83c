package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
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

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/internal/failures"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// maxRequestBytes bounds a request: documents are text, and an apply of a
// whole mesh is one request.
const maxRequestBytes = 16 << 20

// Handler serves gRPC and JSON on one address, and returns what ends it. The JSON
// side calls a second gRPC side through a pipe that nobody else can reach, so that
// both pass the same checks.
func (s *Server) Handler() (http.Handler, func(), error) {
	outer, inner := s.grpcServer(access.From), s.grpcServer(s.inside.of)
	adminv1.RegisterAdminServiceServer(outer, s)
	adminv1.RegisterAdminServiceServer(inner, s)
	pipe := bufconn.Listen(64 << 10)
	done := make(chan struct{})
	go func() { defer close(done); _ = inner.Serve(pipe) }()
	stop := func() { outer.Stop(); inner.Stop(); <-done }
	conn, err := grpc.NewClient("passthrough:///admin",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxRequestBytes)))
	if err != nil {
		stop()
		return nil, nil, fmt.Errorf("connecting the JSON side of the admin API: %w", err)
	}
	mux := gateway()
	if err := adminv1.RegisterAdminServiceHandler(context.Background(), mux, conn); err != nil {
		stop()
		return nil, nil, fmt.Errorf("setting up the JSON side of the admin API: %w", err)
	}
	return s.split(outer, mux), func() { _ = conn.Close(); stop() }, nil
}

type handleContextKey struct{}

// gateway is the JSON side. Nothing that a caller writes into headers gets into
// the pipe.
func gateway() *runtime.ServeMux {
	return runtime.NewServeMux(
		// Unknown fields are refused: a misspelt dryRun would be an apply.
		runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.HTTPBodyMarshaler{
			Marshaler: &runtime.JSONPb{MarshalOptions: protojson.MarshalOptions{EmitUnpopulated: true}},
		}),
		// Both would read the body, or change the method, before the call is known.
		runtime.WithDisablePathLengthFallback(),
		runtime.WithDisableHTTPMethodOverride(),
		runtime.WithIncomingHeaderMatcher(func(string) (string, bool) { return "", false }),
		runtime.WithMetadata(func(ctx context.Context, r *http.Request) metadata.MD {
			method, _ := runtime.RPCMethod(ctx)
			if access.From(ctx).Meets(access.NeedOf(method)) != nil {
				// The other side refuses it whatever it says: don't read it.
				r.Body = http.NoBody
			}
			handle, _ := ctx.Value(handleContextKey{}).(string)
			return metadata.Pairs(handleKey, handle)
		}))
}

// split tells gRPC from JSON, and refuses who has no credential, or no role for
// the call, before anything of the body is read.
func (s *Server) split(g *grpc.Server, rest http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		isGRPC := r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc")
		actor, err := s.identify(r)
		if err != nil {
			s.refused("", failures.SourceOf(r.RemoteAddr), attempted(r, isGRPC), err.Error())
			if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
				// The certificate may have ended meanwhile: another one is shown on
				// another connection.
				w.Header().Set("Connection", "close")
			}
			refuse(w, isGRPC, codes.Unauthenticated, hint(err))
			return
		}
		leave, ok := s.load.enter(actor)
		if !ok {
			refuse(w, isGRPC, codes.ResourceExhausted, busy)
			return
		}
		defer leave()
		ctx := access.With(r.Context(), actor)
		if isGRPC {
			if err := actor.Meets(access.NeedOf(r.URL.Path)); err != nil && access.Known(r.URL.Path) {
				s.refused(actor.Name, actor.Source, shortName(r.URL.Path), err.Error())
				refuse(w, isGRPC, codes.PermissionDenied, err.Error())
				return
			}
			g.ServeHTTP(w, r.WithContext(ctx))
			return
		}
		s.serveJSON(w, r.WithContext(ctx), rest)
	})
}

func (s *Server) serveJSON(w http.ResponseWriter, r *http.Request, rest http.Handler) {
	actor := access.From(r.Context())
	// A browser sends a client certificate with what other sites make it ask for.
	if err := new(http.CrossOriginProtection).Check(r); err != nil {
		s.refused(actor.Name, actor.Source, attempted(r, false), "asked for by another site")
		refuse(w, false, codes.PermissionDenied, "a web page of another site made this call")
		return
	}
	for prefix, h := range s.mounted {
		if strings.HasPrefix(r.URL.Path, prefix) {
			if r.Method != http.MethodGet && s.load.mayWrite(actor) != nil {
				refuse(w, false, codes.ResourceExhausted, status.Convert(errWrites).Message())
				return
			}
			r.Body = http.MaxBytesReader(w, r.Body, maxRequestBytes)
			h.ServeHTTP(w, r)
			return
		}
	}
	handle, done := s.inside.give(actor)
	defer done()
	r = r.WithContext(context.WithValue(r.Context(), handleContextKey{}, handle))
	r.Header = r.Header.Clone()
	r.Header.Del("Authorization") // has done its work
	r.Body = http.MaxBytesReader(w, r.Body, maxRequestBytes)
	rest.ServeHTTP(w, r)
}

// identify refuses an actor without a name, too.
func (s *Server) identify(r *http.Request) (access.Actor, error) {
	actor, err := s.Identify(r)
	if err == nil && actor.Name == "" {
		err = access.NoCredential
	}
	return actor, err
}

// attempted names what a stranger asked for, in words of ours alone: the audit
// must not grow by what strangers make up.
func attempted(r *http.Request, isGRPC bool) string {
	switch {
	case isGRPC && access.Known(r.URL.Path):
		return shortName(r.URL.Path)
	case isGRPC:
		return "an unknown call"
	case slices.Contains([]string{http.MethodGet, http.MethodPost, http.MethodDelete}, r.Method):
		return "JSON " + r.Method
	}
	return "JSON"
}

const unauthenticated = "this call needs a credential: authorization: Bearer TOKEN, with the content of admin.token in the control plane's data folder, or with a token that a RoleBinding is about; or a client certificate; or the admin socket"

// hint says what is wrong if that may be told, and the way out.
func hint(err error) string {
	var why access.Unproven
	if errors.As(err, &why) && why != access.NoCredential {
		return why.Error() + "; " + unauthenticated
	}
	return unauthenticated
}

// refuse answers without having read the request. The text is ASCII without "%".
func refuse(w http.ResponseWriter, isGRPC bool, code codes.Code, text string) {
	if isGRPC { // an answer of headers alone ("Trailers-Only")
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Grpc-Status", strconv.Itoa(int(code)))
		w.Header().Set("Grpc-Message", text)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if code == codes.Unauthenticated {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.WriteHeader(runtime.HTTPStatusFromCode(code))
	_, _ = fmt.Fprintf(w, `{"code":%d,"message":%q,"details":[]}`, code, text)
}
