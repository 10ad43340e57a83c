package api

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// fenced makes join tokens and client secrets as the store does: only if nobody has
// written resources since the revision by which it was judged.
type fenced struct {
	backend
	secrets
	kept *memory
	made []int64
}

func (f *fenced) at(judged int64) error {
	f.kept.mu.Lock()
	defer f.kept.mu.Unlock()
	if others := f.kept.meanwhile(); len(others) > 0 {
		f.kept.store(others, nil)
	}
	if judged != f.kept.revision {
		return fmt.Errorf("the fence: %w", ErrConflict)
	}
	f.made = append(f.made, judged)
	return nil
}

func (f *fenced) CreateJoinToken(ctx context.Context, t NewJoinToken, e audit.Entry) (string, *adminv1.JoinToken, error) {
	if err := f.at(t.Judged); err != nil {
		return "", nil, err
	}
	return f.backend.CreateJoinToken(ctx, t, e)
}

func (f *fenced) CreateClientSecret(ctx context.Context, service string, judged int64, e audit.Entry) (string, string, error) {
	if err := f.at(judged); err != nil {
		return "", "", err
	}
	return f.secrets.CreateClientSecret(ctx, service, judged, e)
}

// A role that the service gets while a join token or a client secret of it is made
// counts: who has not that role gets neither. What else is written in between costs
// another try, and those who keep writing end it.
func TestActingAsIsFenced(t *testing.T) {
	const bound = manifest + "RoleBinding\nmetadata: {name: r}\nspec: {role: SECURITY_OFFICER, subjects: [{service: a}]}\n"
	for name, tt := range map[string]struct {
		written string
		times   int
		code    codes.Code
		want    string
		made    int
	}{
		"nothing":               {"", 0, codes.OK, "", 1},
		"a role of the service": {bound, 1, codes.PermissionDenied, "who acts as this service has the role SECURITY_OFFICER: needs that role", 0},
		"something else":        {serviceYAML("c", "x"), 1, codes.OK, "", 1},
		"all the time":          {serviceYAML("c", "x"), 100, codes.Aborted, "others keep changing the configuration", 0},
	} {
		for _, call := range []func(*Server) error{
			func(s *Server) error {
				_, err := s.CreateJoinToken(by("owner"), &adminv1.CreateJoinTokenRequest{Service: "a"})
				return err
			},
			func(s *Server) error {
				_, err := s.CreateClientSecret(by("owner"), &adminv1.CreateClientSecretRequest{Service: "a"})
				return err
			},
		} {
			s, m := open(t, serviceYAML("a", "x"))
			left := tt.times
			m.meanwhile = func() []*policyv1.Resource {
				if left--; left < 0 {
					return nil
				}
				return resources(t, tt.written)
			}
			f := &fenced{kept: m}
			s.Enrolments, s.Issuer = f, f
			err := call(s)
			if tt.code != codes.OK || err != nil {
				wantError(t, err, tt.code, tt.want)
			}
			if len(f.made) != tt.made {
				t.Errorf("%s is written in between: made at %v, want %d", name, f.made, tt.made)
			}
		}
	}
}
