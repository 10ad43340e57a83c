package api

import (
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// backend is everything that a Config may leave out, with one of each thing of the
// services a and b. It notes the entries that it is given.
type backend struct {
	mu      sync.Mutex
	entries []audit.Entry
	asked   []NewJoinToken
	queries []AuditQuery
	listed  int // how often the signing keys were
	fail    error
}

// took notes an entry, and returns the fault that a test asked for.
func (b *backend) took(e audit.Entry) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail == nil {
		b.entries = append(b.entries, e)
	}
	return b.fail
}

func (b *backend) CreateJoinToken(_ context.Context, t NewJoinToken, e audit.Entry) (string, *adminv1.JoinToken, error) {
	e.Subjects = []string{"created join token " + t.Service + "/x"}
	err := b.took(e)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = append(b.asked, t)
	return "wwjt_x", &adminv1.JoinToken{Id: "x", Service: t.Service}, err
}

// of leaves those of a service.
func of[T interface{ GetService() string }](service string, list ...T) []T {
	return slices.DeleteFunc(list, func(e T) bool { return service != "" && e.GetService() != service })
}

func (b *backend) ListJoinTokens(_ context.Context, service string) ([]*adminv1.JoinToken, error) {
	return of(service, &adminv1.JoinToken{Id: "ja", Service: "a"}, &adminv1.JoinToken{Id: "jb", Service: "b"}), b.fail
}

func (b *backend) JoinTokenService(_ context.Context, id string) (string, error) {
	switch id {
	case "ja":
		return "a", nil
	case "jb":
		return "b", nil
	}
	return "", ErrUnknown
}

func (b *backend) RevokeJoinToken(_ context.Context, _ string, e audit.Entry) error { return b.took(e) }

func (b *backend) ListInstances(_ context.Context, service string) ([]*adminv1.Instance, error) {
	return of(service, &adminv1.Instance{Id: "ia", Service: "a"}, &adminv1.Instance{Id: "ib", Service: "b"}), b.fail
}

func (b *backend) RevokeInstances(_ context.Context, _ string, instances []string, e audit.Entry) (*adminv1.RevokeInstancesResponse, error) {
	if slices.Contains(instances, "gone") {
		return &adminv1.RevokeInstancesResponse{Instances: instances[:slices.Index(instances, "gone")]}, ErrUnknown
	}
	return &adminv1.RevokeInstancesResponse{Instances: instances}, b.took(e)
}

func (b *backend) ListClientSecrets(_ context.Context, service string) ([]*adminv1.ClientSecret, error) {
	return of(service, &adminv1.ClientSecret{Id: "sa", Service: "a"}, &adminv1.ClientSecret{Id: "sb", Service: "b"}), b.fail
}

func (b *backend) DeleteClientSecret(_ context.Context, _, id string, e audit.Entry) error {
	if id == "gone" {
		return ErrUnknown
	}
	return b.took(e)
}

func (b *backend) ListAudit(_ context.Context, q AuditQuery) ([]audit.Entry, string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.queries = append(b.queries, q)
	if q.Before == "zzz" {
		return nil, "", audit.ErrNoID
	}
	return []audit.Entry{{ID: "2", Actor: "unix:root", Outcome: audit.Done, Revision: 7}, {ID: "1", Outcome: audit.Refused, Reason: "no", Count: 3}, {ID: "0"}}, "0", b.fail
}

func (b *backend) RotateKEK(_ context.Context, e audit.Entry, progress func(*adminv1.RotateKEKResponse) error) error {
	if err := b.took(e); err != nil {
		return err
	}
	return errors.Join(progress(&adminv1.RotateKEKResponse{Total: 2, Done: 1}), progress(&adminv1.RotateKEKResponse{Kek: "k", Total: 2, Done: 2, Finished: true}))
}

// ListSigningKeys never changes. A watch of it ends, since the replica does.
func (b *backend) ListSigningKeys(context.Context) (*adminv1.SigningKeys, <-chan struct{}, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listed++
	if b.listed > 1 {
		return nil, nil, errEnded
	}
	changed := make(chan struct{})
	close(changed)
	return &adminv1.SigningKeys{Active: "k1"}, changed, b.fail
}

var errEnded = errors.New("the replica ends")

func (b *backend) RotateSigningKey(_ context.Context, e audit.Entry) (*adminv1.RotateSigningKeyResponse, error) {
	return &adminv1.RotateSigningKeyResponse{Active: "k1", Next: "k2"}, b.took(e)
}

func (b *backend) RevokeSigningKey(_ context.Context, kid string, e audit.Entry) (*adminv1.RevokeSigningKeyResponse, error) {
	if kid == "gone" {
		return nil, ErrUnknown
	}
	return &adminv1.RevokeSigningKeyResponse{Revision: 12, Revoked: []string{"k1"}, Active: "k2", Services: []string{"a"}}, b.took(e)
}

func (b *backend) RevokeAdminToken(_ context.Context, e audit.Entry) error { return b.took(e) }

func (b *backend) CreateAdminToken(_ context.Context, e audit.Entry) (string, error) {
	return "/data/admin.token", b.took(e)
}

func (b *backend) Diagnose(context.Context) ([]*adminv1.Finding, error) {
	return []*adminv1.Finding{{Severity: adminv1.Finding_OK, Subject: "admin API"}}, b.fail
}

// withBackend gives a Server everything.
func withBackend(s *Server) *backend {
	b := &backend{}
	s.Enrolments, s.Secrets, s.AuditLog, s.KEK, s.SigningKeys, s.AdminTokens, s.Diagnosis, s.Revocations = b, b, b, b, b, b, b, b
	s.DataPlanes, s.Issuer, s.Refusals, s.Explainer = &planes{}, secrets{}, reported{}, &echo{}
	return b
}

func (b *backend) Revoke(_ context.Context, req *adminv1.RevokeRequest, e audit.Entry) (*adminv1.RevokeResponse, error) {
	switch req.GetConsumer() {
	case "gone":
		return nil, ErrUnknown
	case "odd":
		return nil, Invalid("consumer: odd")
	case "full":
		return nil, Precondition("too many")
	}
	e.Subjects = []string{"revoked consumer " + req.GetConsumer()}
	return &adminv1.RevokeResponse{Id: "ra", Services: req.GetAudiences()}, b.took(e)
}

func (b *backend) ListRevocations(string) []*adminv1.Revocation {
	return []*adminv1.Revocation{{Id: "ra", Kind: "consumer", Value: "c", Audiences: []string{"a"}}}
}

func (b *backend) Revocation(id string) (*adminv1.Revocation, error) {
	switch id {
	case "ra":
		return b.ListRevocations("")[0], nil
	case "all":
		return &adminv1.Revocation{Id: "all", Kind: "consumer", Value: "c"}, nil
	}
	return nil, ErrUnknown
}

func (b *backend) DeleteRevocation(_ context.Context, _ string, e audit.Entry) (*adminv1.DeleteRevocationResponse, error) {
	return &adminv1.DeleteRevocationResponse{Revision: 7}, b.took(e)
}
