package api

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// Refusals is what data planes have reported about requests that they refused.
type Refusals interface {
	// List returns all counts and the sample of one service, or of all. The
	// answer is the caller's own.
	List(service string) *adminv1.ListRefusalsResponse
}

// ListRefusals implements adminv1.AdminServiceServer.
func (s *Server) ListRefusals(_ context.Context, req *adminv1.ListRefusalsRequest) (*adminv1.ListRefusalsResponse, error) {
	resp := s.Refusals.List(req.GetService())
	// A name that is misspelt must not look as if nothing was refused. What was
	// counted is shown even so: (other) is no Service.
	if state, _ := s.Configuration.Current(); req.GetService() != "" && len(resp.GetCounts()) == 0 && state.Service(req.GetService()) == nil {
		return nil, status.Errorf(codes.NotFound, "there is no Service %q", req.GetService())
	}
	other := func(e adminv1.Refusal_Enforcement) bool {
		return req.GetEnforcement() != adminv1.Refusal_ENFORCEMENT_UNSPECIFIED && e != req.GetEnforcement()
	}
	resp.Counts = slices.DeleteFunc(resp.GetCounts(), func(c *adminv1.RefusalCount) bool { return other(c.GetEnforcement()) })
	resp.Sample = slices.DeleteFunc(resp.GetSample(), func(r *adminv1.Refusal) bool { return !req.GetSample() || other(r.GetEnforcement()) })
	return resp, nil
}
