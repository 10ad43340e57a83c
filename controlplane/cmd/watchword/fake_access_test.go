package main

import (
	"context"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// GetSelf names the credential that came; certificates have a role for one
// service.
func (f *fakeAdmin) GetSelf(ctx context.Context, _ *adminv1.GetSelfRequest) (*adminv1.GetSelfResponse, error) {
	actor, err := fakeActor(ctx)
	if err != nil {
		return nil, err
	}
	response := &adminv1.GetSelfResponse{Actor: actor}
	switch actor {
	case "unix:root":
		response.Roles = []*adminv1.HeldRole{{Role: "OPERATOR"}, {Role: "SECURITY_OFFICER"}}
	case "certificate:dns:ci.example":
		response.Roles = []*adminv1.HeldRole{{Role: "SERVICE_OWNER", Services: []string{"orders", "payments"}}}
	}
	return response, nil
}
