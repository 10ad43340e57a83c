package api

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// CreateClientSecret implements adminv1.AdminServiceServer.
func (s *Server) CreateClientSecret(ctx context.Context, req *adminv1.CreateClientSecretRequest) (*adminv1.CreateClientSecretResponse, error) {
	id, secret, err := s.Issuer.CreateClientSecret(ctx, req.GetService())
	if errors.Is(err, ErrUnknown) {
		return nil, status.Errorf(codes.NotFound, "there is no Service %q", req.GetService())
	}
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	s.Logger.Info("client secret created", "service", req.GetService())
	return &adminv1.CreateClientSecretResponse{ClientId: id, ClientSecret: secret}, nil
}

// IssueToken implements adminv1.AdminServiceServer.
func (s *Server) IssueToken(ctx context.Context, req *adminv1.IssueTokenRequest) (*adminv1.IssueTokenResponse, error) {
	resp, err := s.Issuer.IssueToken(ctx, req)
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
