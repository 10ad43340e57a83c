package api

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// mostAudiences bounds the audiences of one revocation.
const mostAudiences = 1000

// Revoke implements adminv1.AdminServiceServer. Who owns services may revoke for those
// alone, and so has to name them.
func (s *Server) Revoke(ctx context.Context, req *adminv1.RevokeRequest) (*adminv1.RevokeResponse, error) {
	const method = adminv1.AdminService_Revoke_FullMethodName
	if len(req.GetAudiences()) > mostAudiences {
		return nil, status.Errorf(codes.InvalidArgument, "%d audiences; at most %d, or none for every service", len(req.GetAudiences()), mostAudiences)
	}
	if err := s.allowEach(ctx, method, req.GetAudiences()); err != nil {
		return nil, err
	}
	if s.Revocations == nil {
		return nil, notThere
	}
	for _, service := range req.GetAudiences() {
		if state, _ := s.Configuration.Current(); state.Service(service) == nil {
			return nil, noService(service)
		}
	}
	resp, err := s.Revocations.Revoke(ctx, req, entry(ctx, method))
	if err != nil {
		return nil, revocationStatus(err)
	}
	r := resp.GetRevocation()
	s.Logger.Info("revoked", "kind", r.GetKind(), "issuer", r.GetIssuer(), "value", r.GetValue(), "id", r.GetId(), "revision", resp.GetRevision())
	return resp, nil
}

// allowEach wants the call to be allowed for each of the services; of none it is about
// all.
func (s *Server) allowEach(ctx context.Context, method string, services []string) error {
	if len(services) == 0 {
		return s.allow(ctx, method, "")
	}
	for _, service := range services {
		if err := s.allow(ctx, method, service); err != nil {
			return err
		}
	}
	return nil
}

// ListRevocations implements adminv1.AdminServiceServer.
func (s *Server) ListRevocations(ctx context.Context, req *adminv1.ListRevocationsRequest) (*adminv1.ListRevocationsResponse, error) {
	if err := s.allow(ctx, adminv1.AdminService_ListRevocations_FullMethodName, req.GetService()); err != nil {
		return nil, err
	}
	if s.Revocations == nil {
		return nil, notThere
	}
	list := s.Revocations.ListRevocations(req.GetService())
	return &adminv1.ListRevocationsResponse{Revocations: list}, s.mustBeThere(req.GetService(), len(list))
}

// DeleteRevocation implements adminv1.AdminServiceServer. Who may is who could have
// made it; others are not told whether it is there.
func (s *Server) DeleteRevocation(ctx context.Context, req *adminv1.DeleteRevocationRequest) (*adminv1.DeleteRevocationResponse, error) {
	const method = adminv1.AdminService_DeleteRevocation_FullMethodName
	if err := s.meets(ctx, method); err != nil {
		return nil, err
	}
	if s.Revocations == nil {
		return nil, notThere
	}
	unknown := status.Errorf(codes.NotFound, "there is no revocation %q; `watchword revocations list` lists those that there are", clip(req.GetId()))
	r, err := s.Revocations.Revocation(req.GetId())
	if err != nil {
		if s.allow(ctx, method, "") != nil {
			return nil, s.allow(ctx, method, "")
		}
		return nil, unknown
	}
	if err := s.allowEach(ctx, method, r.GetAudiences()); err != nil {
		return nil, err
	}
	resp, err := s.Revocations.DeleteRevocation(ctx, req.GetId(), entry(ctx, method, "took back the revocation of "+r.GetKind()+" "+r.GetIssuer()+" "+r.GetValue()))
	if errors.Is(err, ErrUnknown) {
		return nil, unknown
	}
	if err != nil {
		return nil, revocationStatus(err)
	}
	s.Logger.Info("revocation taken back", "id", req.GetId(), "revision", resp.GetRevision())
	return resp, nil
}

func revocationStatus(err error) error {
	var invalid Invalid
	var too Precondition
	switch {
	case errors.As(err, &invalid):
		return status.Error(codes.InvalidArgument, invalid.Error())
	case errors.As(err, &too):
		return status.Error(codes.FailedPrecondition, too.Error())
	case errors.Is(err, ErrUnknown):
		return status.Error(codes.NotFound, err.Error())
	case errors.Is(err, ErrConflict):
		return status.Error(codes.Aborted, "others keep changing the configuration at the same time; try again")
	}
	return status.Error(codes.Unavailable, err.Error())
}
