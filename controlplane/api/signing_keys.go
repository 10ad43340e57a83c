package api

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/access"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// ListSigningKeys implements adminv1.AdminServiceServer.
func (s *Server) ListSigningKeys(ctx context.Context, _ *adminv1.ListSigningKeysRequest) (*adminv1.ListSigningKeysResponse, error) {
	if err := s.allow(ctx, adminv1.AdminService_ListSigningKeys_FullMethodName, ""); err != nil {
		return nil, err
	}
	if s.SigningKeys == nil {
		return nil, notThere
	}
	keys, _, err := s.SigningKeys.ListSigningKeys(ctx)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &adminv1.ListSigningKeysResponse{SigningKeys: keys}, nil
}

// WatchSigningKeys implements adminv1.AdminServiceServer. It ends with the caller, or
// after the longest wait.
func (s *Server) WatchSigningKeys(_ *adminv1.WatchSigningKeysRequest, stream grpc.ServerStreamingServer[adminv1.WatchSigningKeysResponse]) error {
	ctx, cancel := context.WithTimeout(stream.Context(), mostWait)
	defer cancel()
	if err := s.allow(ctx, adminv1.AdminService_WatchSigningKeys_FullMethodName, ""); err != nil {
		return err
	}
	if s.SigningKeys == nil {
		return notThere
	}
	var last *adminv1.SigningKeys
	for {
		keys, changed, err := s.SigningKeys.ListSigningKeys(ctx)
		if err != nil {
			return status.Error(codes.Unavailable, err.Error())
		}
		if last == nil || !proto.Equal(last, keys) {
			if err := stream.Send(&adminv1.WatchSigningKeysResponse{SigningKeys: keys}); err != nil {
				return err
			}
			last = keys
		}
		// However often something changes, it is looked at now and then.
		pause := time.NewTimer(reportPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		}
	}
}

// RotateSigningKey implements adminv1.AdminServiceServer.
func (s *Server) RotateSigningKey(ctx context.Context, _ *adminv1.RotateSigningKeyRequest) (*adminv1.RotateSigningKeyResponse, error) {
	const method = adminv1.AdminService_RotateSigningKey_FullMethodName
	if err := s.allow(ctx, method, ""); err != nil {
		return nil, err
	}
	if s.SigningKeys == nil {
		return nil, notThere
	}
	resp, err := s.SigningKeys.RotateSigningKey(ctx, entry(ctx, method, "asked for another signing key"))
	var first Precondition
	switch {
	case errors.As(err, &first):
		return nil, status.Error(codes.FailedPrecondition, first.Error())
	case err != nil:
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	s.Logger.Info("signing key: rotation is asked for", "actor", access.From(ctx).Name, "active", resp.GetActive(), "next", resp.GetNext())
	return resp, nil
}

// RevokeSigningKey implements adminv1.AdminServiceServer.
func (s *Server) RevokeSigningKey(ctx context.Context, req *adminv1.RevokeSigningKeyRequest) (*adminv1.RevokeSigningKeyResponse, error) {
	const method = adminv1.AdminService_RevokeSigningKey_FullMethodName
	began := time.Now()
	if err := s.allow(ctx, method, ""); err != nil {
		return nil, err
	}
	subject := "revoked signing key " + clip(req.GetKid())
	switch {
	case s.SigningKeys == nil:
		return nil, notThere
	case req.GetAll() == (req.GetKid() != ""):
		return nil, status.Error(codes.InvalidArgument, "kid: name the key to revoke, or say all; one of both")
	case req.GetAll():
		subject = "revoked all signing keys"
	}
	resp, err := s.SigningKeys.RevokeSigningKey(ctx, req.GetKid(), entry(ctx, method, subject))
	switch {
	case errors.Is(err, ErrUnknown):
		return nil, status.Errorf(codes.NotFound, "there is no signing key %q; `watchword key status` lists those that there are", clip(req.GetKid()))
	case err != nil:
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	if len(resp.GetRevoked()) > 0 {
		s.written.add(resp.GetRevision(), began)
	}
	s.Logger.Warn("signing keys revoked", "actor", access.From(ctx).Name, "revoked", resp.GetRevoked(), "active", resp.GetActive(), "revision", resp.GetRevision())
	return resp, nil
}
