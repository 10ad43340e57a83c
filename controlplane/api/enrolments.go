package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/internal/identity"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// Bounds of join tokens, and of instances in one request.
const (
	defaultTTL    = time.Hour
	leastTTL      = time.Minute
	mostTTL       = 7 * 24 * time.Hour
	mostUses      = 1000
	mostInstances = 1000
)

// notThere is the answer where a Config has left something out.
var notThere = status.Error(codes.Unimplemented, "this control plane does not have that")

func noService(name string) error {
	return status.Errorf(codes.NotFound, "there is no Service %q", name)
}

// mustBeThere: a name that is misspelt must not look as if there was nothing.
func (s *Server) mustBeThere(service string, found int) error {
	if state, _ := s.Configuration.Current(); service != "" && found == 0 && state.Service(service) == nil {
		return noService(service)
	}
	return nil
}

// seen leaves what the caller may see of a list.
func seen[T interface{ GetService() string }](ctx context.Context, list []T) []T {
	a := access.From(ctx)
	return slices.DeleteFunc(slices.Clone(list), func(e T) bool { return !a.Sees(e.GetService()) })
}

// sees leaves the services that the caller may see.
func sees(ctx context.Context, services []string) []string {
	a := access.From(ctx)
	return slices.DeleteFunc(slices.Clone(services), func(name string) bool { return !a.Sees(name) })
}

// CreateJoinToken implements adminv1.AdminServiceServer.
func (s *Server) CreateJoinToken(ctx context.Context, req *adminv1.CreateJoinTokenRequest) (*adminv1.CreateJoinTokenResponse, error) {
	const method = adminv1.AdminService_CreateJoinToken_FullMethodName
	if err := s.allow(ctx, method, req.GetService()); err != nil {
		return nil, err
	}
	uses, ttl := cmp.Or(req.GetUses(), 1), cmp.Or(req.GetTtl().AsDuration(), defaultTTL)
	switch {
	case s.Enrolments == nil:
		return nil, notThere
	case uses < 1 || uses > mostUses:
		return nil, status.Errorf(codes.InvalidArgument, "uses: %d instances; wants 1 to %d", uses, mostUses)
	case ttl < leastTTL || ttl > mostTTL:
		return nil, status.Errorf(codes.InvalidArgument, "ttl: %s; wants 1 minute to 7 days", ttl)
	}
	if err := s.mustBeThere(req.GetService(), 0); err != nil || req.GetService() == "" {
		return nil, noService(req.GetService())
	}
	e := entry(ctx, method)
	var token string
	var kept *adminv1.JoinToken
	err := s.judged(ctx, method, req.GetService(), func(judged int64) (err error) {
		token, kept, err = s.Enrolments.CreateJoinToken(ctx, NewJoinToken{Service: req.GetService(), Uses: uses, TTL: ttl, CreatedBy: e.Actor, Judged: judged}, e)
		return err
	})
	if err != nil {
		return nil, err
	}
	s.Logger.Info("join token created", "service", req.GetService(), "id", kept.GetId(), "actor", e.Actor)
	return &adminv1.CreateJoinTokenResponse{Token: token, JoinToken: kept}, nil
}

// ListJoinTokens implements adminv1.AdminServiceServer.
func (s *Server) ListJoinTokens(ctx context.Context, req *adminv1.ListJoinTokensRequest) (*adminv1.ListJoinTokensResponse, error) {
	if err := s.allow(ctx, adminv1.AdminService_ListJoinTokens_FullMethodName, req.GetService()); err != nil {
		return nil, err
	}
	if s.Enrolments == nil {
		return nil, notThere
	}
	list, err := s.Enrolments.ListJoinTokens(ctx, req.GetService())
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &adminv1.ListJoinTokensResponse{JoinTokens: seen(ctx, list)}, s.mustBeThere(req.GetService(), len(list))
}

// RevokeJoinToken implements adminv1.AdminServiceServer. Whose token it is decides
// who may, and who may not see it is not told that it is there; the audit is.
func (s *Server) RevokeJoinToken(ctx context.Context, req *adminv1.RevokeJoinTokenRequest) (*adminv1.RevokeJoinTokenResponse, error) {
	const method = adminv1.AdminService_RevokeJoinToken_FullMethodName
	if err := s.meets(ctx, method); err != nil {
		return nil, err
	}
	if s.Enrolments == nil {
		return nil, notThere
	}
	unknown := status.Errorf(codes.NotFound, "there is no join token %q", clip(req.GetId()))
	service, err := s.Enrolments.JoinTokenService(ctx, req.GetId())
	if err == nil {
		if err := s.allow(ctx, method, service); err != nil && !access.From(ctx).Sees(service) {
			s.noteDenied(ctx, shortName(method), err)
			return nil, unknown
		} else if err != nil {
			return nil, err
		}
		err = s.Enrolments.RevokeJoinToken(ctx, req.GetId(), entry(ctx, method, "revoked join token "+service+"/"+req.GetId()))
	}
	if errors.Is(err, ErrUnknown) {
		return nil, unknown
	}
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	s.Logger.Info("join token revoked", "service", service, "id", req.GetId())
	return &adminv1.RevokeJoinTokenResponse{}, nil
}

// ListInstances implements adminv1.AdminServiceServer.
func (s *Server) ListInstances(ctx context.Context, req *adminv1.ListInstancesRequest) (*adminv1.ListInstancesResponse, error) {
	if err := s.allow(ctx, adminv1.AdminService_ListInstances_FullMethodName, req.GetService()); err != nil {
		return nil, err
	}
	if s.Enrolments == nil {
		return nil, notThere
	}
	list, err := s.Enrolments.ListInstances(ctx, req.GetService())
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &adminv1.ListInstancesResponse{Instances: seen(ctx, list)}, s.mustBeThere(req.GetService(), len(list))
}

// RevokeInstances implements adminv1.AdminServiceServer.
func (s *Server) RevokeInstances(ctx context.Context, req *adminv1.RevokeInstancesRequest) (*adminv1.RevokeInstancesResponse, error) {
	const method = adminv1.AdminService_RevokeInstances_FullMethodName
	if err := s.allow(ctx, method, req.GetService()); err != nil {
		return nil, err
	}
	if s.Enrolments == nil {
		return nil, notThere
	}
	subjects, err := revoked(req.GetService(), req.GetInstances())
	if err != nil {
		return nil, err
	}
	if state, _ := s.Configuration.Current(); state.Service(req.GetService()) == nil {
		return nil, noService(req.GetService())
	}
	resp, err := s.Enrolments.RevokeInstances(ctx, req.GetService(), req.GetInstances(), entry(ctx, method, subjects...))
	if n := len(resp.GetInstances()); errors.Is(err, ErrUnknown) && n > 0 {
		return nil, status.Errorf(codes.Aborted, "%d of %d instances are revoked; of the others one went away meanwhile: see `watchword instance list`, and revoke those that are left", n, len(req.GetInstances()))
	}
	if errors.Is(err, ErrUnknown) {
		return nil, status.Errorf(codes.NotFound, "Service %q has no such instance, and none was revoked; `watchword instance list` lists those that there are", req.GetService())
	}
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	s.Logger.Info("instances revoked", "service", req.GetService(), "instances", resp.GetInstances(), "join_tokens", resp.GetJoinTokens())
	return resp, nil
}

// revoked checks the names of instances, and says it for the audit.
func revoked(service string, names []string) (subjects []string, err error) {
	if len(names) > mostInstances {
		return nil, status.Errorf(codes.InvalidArgument, "%d instances in one call; at most %d, or none for all", len(names), mostInstances)
	}
	if len(names) == 0 {
		return []string{"revoked all instances of Service/" + service}, nil
	}
	for i, name := range names {
		if !identity.IsName(name) || slices.Contains(names[:i], name) {
			return nil, status.Errorf(codes.InvalidArgument, "instances[%d]: %q is not the name of an instance, or is given twice", i, clip(name))
		}
		subjects = append(subjects, fmt.Sprintf("revoked instance %s/%s", service, name))
	}
	return subjects, nil
}
