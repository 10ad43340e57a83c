package api

import (
	"context"
	"errors"
	"regexp"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// Explainer decides on requests as the data planes of a service do.
type Explainer interface {
	// Explain says what becomes of a request, and why. Neither the answer nor the
	// error holds a token or a secret. A service that nothing was published for is
	// ErrUnknown.
	Explain(req *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error)
}

// headerName is RFC 9110 section 5.1.
var headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// Explain implements adminv1.AdminServiceServer. The request may hold a token, so
// that nothing of it is logged, and no error has any of it but the service.
func (s *Server) Explain(ctx context.Context, req *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
	if err := s.allow(ctx, adminv1.AdminService_Explain_FullMethodName, req.GetService()); err != nil {
		return nil, err
	}
	if req.GetService() == "" {
		return nil, status.Error(codes.InvalidArgument, "service is missing")
	}
	for i, h := range req.GetHeaders() {
		switch {
		case !headerName.MatchString(h.GetName()), strings.ContainsAny(h.GetValue(), "\r\n\x00"):
			return nil, status.Errorf(codes.InvalidArgument, "headers[%d] can't be in a request: a name of letters, digits and dashes, a value without line breaks", i)
		case strings.EqualFold(h.GetName(), "host"):
			return nil, status.Error(codes.InvalidArgument, "headers: host is no field of its own: give host")
		}
	}
	resp, err := s.Explainer.Explain(req)
	if state, _ := s.Configuration.Current(); errors.Is(err, ErrUnknown) && state.Service(req.GetService()) == nil {
		return nil, status.Errorf(codes.NotFound, "there is no Service %q", req.GetService())
	}
	if errors.Is(err, ErrUnknown) {
		return nil, status.Errorf(codes.Internal, "nothing was published for Service %q yet; the log of the control plane says why", req.GetService())
	}
	if err != nil {
		return nil, status.Error(codes.Internal, err.Error())
	}
	return resp, nil
}
