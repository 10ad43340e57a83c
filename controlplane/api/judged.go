package api

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/access"
)

// judged makes what lets its owner act as a service, if the actor may have it by the
// resources of a revision, and these still hold when it is stored: a RoleBinding that
// was written in between would give more than was judged. It is tried again then.
func (s *Server) judged(ctx context.Context, method, service string, make func(judged int64) error) error {
	for try := 1; ; try++ {
		state, revision := s.Configuration.Current()
		if err := denied(access.From(ctx).At(state).Allows(state, access.Call{Method: method, Service: service})); err != nil {
			return err
		}
		err := make(revision)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, ErrUnknown):
			return noService(service)
		case errors.Is(err, ErrConflict) && try == attempts:
			return status.Error(codes.Aborted, "others keep changing the configuration at the same time; try again")
		case !errors.Is(err, ErrConflict):
			return status.Error(codes.Unavailable, err.Error())
		}
		if err := s.reached(ctx, revision+1); err != nil {
			return err
		}
	}
}
