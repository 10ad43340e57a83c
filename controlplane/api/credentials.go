package api

import (
	"context"
	"errors"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// CreateClientSecret implements adminv1.AdminServiceServer.
func (s *Server) CreateClientSecret(ctx context.Context, req *adminv1.CreateClientSecretRequest) (*adminv1.CreateClientSecretResponse, error) {
	const method = adminv1.AdminService_CreateClientSecret_FullMethodName
	if err := s.allow(ctx, method, req.GetService()); err != nil {
		return nil, err
	}
	var id, secret string
	err := s.judged(ctx, method, req.GetService(), func(judged int64) (err error) {
		id, secret, err = s.Issuer.CreateClientSecret(ctx, req.GetService(), judged, entry(ctx, method))
		return err
	})
	if err != nil {
		return nil, err
	}
	s.Logger.Info("client secret created", "service", req.GetService())
	return &adminv1.CreateClientSecretResponse{ClientId: id, ClientSecret: secret}, nil
}

// ListClientSecrets implements adminv1.AdminServiceServer.
func (s *Server) ListClientSecrets(ctx context.Context, req *adminv1.ListClientSecretsRequest) (*adminv1.ListClientSecretsResponse, error) {
	if err := s.allow(ctx, adminv1.AdminService_ListClientSecrets_FullMethodName, req.GetService()); err != nil {
		return nil, err
	}
	if s.Secrets == nil {
		return nil, notThere
	}
	list, err := s.Secrets.ListClientSecrets(ctx, req.GetService())
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &adminv1.ListClientSecretsResponse{ClientSecrets: seen(ctx, list)}, s.mustBeThere(req.GetService(), len(list))
}

// DeleteClientSecret implements adminv1.AdminServiceServer.
func (s *Server) DeleteClientSecret(ctx context.Context, req *adminv1.DeleteClientSecretRequest) (*adminv1.DeleteClientSecretResponse, error) {
	const method = adminv1.AdminService_DeleteClientSecret_FullMethodName
	if err := s.allow(ctx, method, req.GetService()); err != nil {
		return nil, err
	}
	if s.Secrets == nil {
		return nil, notThere
	}
	err := s.Secrets.DeleteClientSecret(ctx, req.GetService(), req.GetId(), entry(ctx, method, "deleted client secret "+req.GetService()+"/"+clip(req.GetId())))
	if errors.Is(err, ErrUnknown) {
		return nil, status.Errorf(codes.NotFound, "Service %q has no client secret %q", req.GetService(), req.GetId())
	}
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	s.Logger.Info("client secret deleted", "service", req.GetService(), "id", req.GetId())
	return &adminv1.DeleteClientSecretResponse{}, nil
}

// IssueToken implements adminv1.AdminServiceServer.
func (s *Server) IssueToken(ctx context.Context, req *adminv1.IssueTokenRequest) (*adminv1.IssueTokenResponse, error) {
	const method = adminv1.AdminService_IssueToken_FullMethodName
	if err := s.allow(ctx, method, req.GetService()); err != nil {
		return nil, err
	}
	resp, err := s.Issuer.IssueToken(ctx, req, entry(ctx, method, "token of Service/"+req.GetService()+" for "+clip(req.GetAudience())))
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return nil, status.Error(codes.FailedPrecondition, refusal.Error())
	}
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	s.Logger.Info("token issued for an operator", "service", req.GetService(), "audience", req.GetAudience())
	return resp, nil
}

// clip bounds what a caller has written for the audit.
func clip(text string) string {
	const most = 256
	if len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}
