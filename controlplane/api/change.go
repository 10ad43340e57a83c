package api

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Change puts and removes resources as Apply and Delete do, at once, for another
// API with the same rules: the actor of ctx needs the roles, all faults are found
// before anything is stored, and it is tried again if another writer was faster.
// A resource to put that has metadata.revision is only taken if that is still the
// stored one. The method is for the audit, such as "kong POST /consumers". Errors
// are gRPC statuses; a refusal for want of a role is handed to Config.Refused.
func (s *Server) Change(ctx context.Context, method string, put []*policyv1.Resource, remove []policy.Key) (*adminv1.ApplyResponse, error) {
	resp, err := s.change(ctx, method, put, remove)
	s.noteDenied(ctx, method, err)
	return resp, err
}

func (s *Server) change(ctx context.Context, method string, put []*policyv1.Resource, remove []policy.Key) (*adminv1.ApplyResponse, error) {
	if err := denied(access.From(ctx).Meets(access.NeedOf(adminv1.AdminService_Apply_FullMethodName))); err != nil {
		return nil, err
	}
	objects, err := objectsOf(put, remove)
	if err != nil {
		return nil, err
	}
	return s.write(ctx, method, false, func(state policy.State) (*plan, error) {
		if err := mayName(ctx, state, objects, remove); err != nil {
			return nil, err
		}
		p := newPlan(state)
		for _, o := range objects {
			if o.Resource.GetMetadata().GetRevision() == 0 && state[o.Key] != nil {
				return nil, status.Errorf(codes.FailedPrecondition, "%s is there already: name its revision to change it", o.Key)
			}
		}
		if err := s.put(p, objects); err != nil {
			return nil, err
		}
		for _, k := range remove {
			if err := p.remove(&adminv1.Reference{Kind: string(k.Kind), Name: k.Name}); err != nil {
				return nil, err
			}
		}
		for _, o := range objects {
			p.given = append(p.given, o.Key)
		}
		p.check(objects)
		p.warnings = policy.Warnings(objects, p.after)
		return p, nil
	})
}

// objectsOf refuses what could be meant in two ways.
func objectsOf(put []*policyv1.Resource, remove []policy.Key) ([]*policy.Object, error) {
	named := map[policy.Key]bool{}
	for _, k := range remove {
		if named[k] {
			return nil, status.Errorf(codes.InvalidArgument, "%s is given twice", k)
		}
		named[k] = true
	}
	var objects []*policy.Object
	for _, r := range put {
		k := policy.KeyOf(r)
		if k.Kind == "" || named[k] {
			return nil, status.Errorf(codes.InvalidArgument, "%s is given twice, or has no spec", k)
		}
		named[k] = true
		objects = append(objects, &policy.Object{Key: k, Resource: r})
	}
	return objects, nil
}
