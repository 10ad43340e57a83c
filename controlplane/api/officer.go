package api

import (
	"cmp"
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/audit"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// Bounds of ListAudit.
const (
	defaultEntries = 100
	mostEntries    = 1000
	mostFilter     = 1024
)

// ListAudit implements adminv1.AdminServiceServer.
func (s *Server) ListAudit(ctx context.Context, req *adminv1.ListAuditRequest) (*adminv1.ListAuditResponse, error) {
	if err := s.allow(ctx, adminv1.AdminService_ListAudit_FullMethodName, ""); err != nil {
		return nil, err
	}
	q := AuditQuery{Limit: int(cmp.Or(req.GetLimit(), defaultEntries)), Before: req.GetBefore(), Actor: req.GetActor(), Refused: req.GetRefused()}
	switch {
	case s.AuditLog == nil:
		return nil, notThere
	case q.Limit < 1 || q.Limit > mostEntries:
		return nil, status.Errorf(codes.InvalidArgument, "limit: %d entries; wants 1 to %d, and before for the next page", q.Limit, mostEntries)
	case len(q.Before) > mostFilter || len(q.Actor) > mostFilter:
		return nil, status.Error(codes.InvalidArgument, "before is the ID of an entry, and actor the name of an actor; these are too long")
	}
	entries, next, err := s.AuditLog.ListAudit(ctx, q)
	if errors.Is(err, audit.ErrNoID) {
		return nil, status.Errorf(codes.InvalidArgument, "before: %s", err)
	}
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	resp := &adminv1.ListAuditResponse{Next: next}
	for _, e := range entries {
		resp.Entries = append(resp.Entries, auditProto(e))
	}
	return resp, nil
}

func auditProto(e audit.Entry) *adminv1.AuditEntry {
	outcome := adminv1.AuditEntry_OUTCOME_UNSPECIFIED
	switch e.Outcome {
	case audit.Done:
		outcome = adminv1.AuditEntry_DONE
	case audit.Refused:
		outcome = adminv1.AuditEntry_REFUSED
	}
	return &adminv1.AuditEntry{
		Id: e.ID, Time: timestamppb.New(e.Time), Actor: e.Actor, Source: e.Source, Method: e.Method, Outcome: outcome,
		Subjects: e.Subjects, Reason: e.Reason, Count: e.Count, Revision: e.Revision,
	}
}

// RotateKEK implements adminv1.AdminServiceServer.
func (s *Server) RotateKEK(_ *adminv1.RotateKEKRequest, stream grpc.ServerStreamingServer[adminv1.RotateKEKResponse]) error {
	const method = adminv1.AdminService_RotateKEK_FullMethodName
	ctx := stream.Context()
	if err := s.allow(ctx, method, ""); err != nil {
		return err
	}
	if s.KEK == nil {
		return notThere
	}
	a := access.From(ctx)
	s.Logger.Info("key-encryption key: rotation is asked for", "actor", a.Name)
	err := s.KEK.RotateKEK(ctx, entry(ctx, method), stream.Send)
	var first Precondition
	switch {
	case errors.As(err, &first):
		s.refused(a.Name, a.Source, shortName(method), first.Error())
		return status.Error(codes.FailedPrecondition, first.Error())
	case err != nil:
		return status.Error(codes.Unavailable, err.Error())
	}
	return nil
}

// RevokeAdminToken implements adminv1.AdminServiceServer.
func (s *Server) RevokeAdminToken(ctx context.Context, _ *adminv1.RevokeAdminTokenRequest) (*adminv1.RevokeAdminTokenResponse, error) {
	const method = adminv1.AdminService_RevokeAdminToken_FullMethodName
	if err := s.allow(ctx, method, ""); err != nil {
		return nil, err
	}
	if s.AdminTokens == nil {
		return nil, notThere
	}
	if err := s.AdminTokens.RevokeAdminToken(ctx, entry(ctx, method, "revoked the admin token")); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	s.Logger.Info("admin token revoked", "actor", access.From(ctx).Name)
	return &adminv1.RevokeAdminTokenResponse{}, nil
}

// CreateAdminToken implements adminv1.AdminServiceServer.
func (s *Server) CreateAdminToken(ctx context.Context, _ *adminv1.CreateAdminTokenRequest) (*adminv1.CreateAdminTokenResponse, error) {
	const method = adminv1.AdminService_CreateAdminToken_FullMethodName
	if err := s.allow(ctx, method, ""); err != nil {
		return nil, err
	}
	if s.AdminTokens == nil {
		return nil, notThere
	}
	path, err := s.AdminTokens.CreateAdminToken(ctx, entry(ctx, method, "created an admin token"))
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	s.Logger.Info("admin token created", "actor", access.From(ctx).Name, "path", path)
	return &adminv1.CreateAdminTokenResponse{Path: path}, nil
}

// GetSelf implements adminv1.AdminServiceServer.
func (s *Server) GetSelf(ctx context.Context, _ *adminv1.GetSelfRequest) (*adminv1.GetSelfResponse, error) {
	if err := s.allow(ctx, adminv1.AdminService_GetSelf_FullMethodName, ""); err != nil {
		return nil, err
	}
	state, _ := s.Configuration.Current()
	a := access.From(ctx).At(state)
	resp := &adminv1.GetSelfResponse{Actor: a.Name}
	for _, r := range a.Roles {
		resp.Roles = append(resp.Roles, &adminv1.HeldRole{Role: r.Role.String(), Services: r.Services})
	}
	return resp, nil
}

// Diagnose implements adminv1.AdminServiceServer.
func (s *Server) Diagnose(ctx context.Context, _ *adminv1.DiagnoseRequest) (*adminv1.DiagnoseResponse, error) {
	if err := s.allow(ctx, adminv1.AdminService_Diagnose_FullMethodName, ""); err != nil {
		return nil, err
	}
	if s.Diagnosis == nil {
		return nil, notThere
	}
	findings, err := s.Diagnosis.Diagnose(ctx)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &adminv1.DiagnoseResponse{Findings: findings}, nil
}
