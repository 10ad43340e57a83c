package api

import (
	"context"
	"slices"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// Refusals is what data planes have reported about requests that they refused.
type Refusals interface {
	// List returns all counts and the sample of one service, or of all. The
	// answer is the caller's own.
	List(service string) *adminv1.ListRefusalsResponse
}

// ListRefusals implements adminv1.AdminServiceServer.
func (s *Server) ListRefusals(ctx context.Context, req *adminv1.ListRefusalsRequest) (*adminv1.ListRefusalsResponse, error) {
	if err := s.allow(ctx, adminv1.AdminService_ListRefusals_FullMethodName, req.GetService()); err != nil {
		return nil, err
	}
	resp := s.Refusals.List(req.GetService())
	// A name that is misspelt must not look as if nothing was refused. What was
	// counted is shown even so: (other) is no Service.
	if err := s.mustBeThere(req.GetService(), len(resp.GetCounts())); err != nil {
		return nil, err
	}
	resp.Counts, resp.Sample = seen(ctx, resp.GetCounts()), seen(ctx, resp.GetSample())
	other := func(e adminv1.Refusal_Enforcement) bool {
		return req.GetEnforcement() != adminv1.Refusal_ENFORCEMENT_UNSPECIFIED && e != req.GetEnforcement()
	}
	resp.Counts = slices.DeleteFunc(resp.GetCounts(), func(c *adminv1.RefusalCount) bool { return other(c.GetEnforcement()) })
	resp.Sample = slices.DeleteFunc(resp.GetSample(), func(r *adminv1.Refusal) bool { return !req.GetSample() || other(r.GetEnforcement()) })
	return resp, nil
}
