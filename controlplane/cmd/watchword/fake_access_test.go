package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

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

const fakeJoinToken = "wwjt_7QK2M4ZC5XWAB.s3cret.pin"

func (f *fakeAdmin) CreateJoinToken(_ context.Context, r *adminv1.CreateJoinTokenRequest) (*adminv1.CreateJoinTokenResponse, error) {
	if ttl := r.GetTtl().AsDuration(); ttl < time.Minute {
		return nil, status.Errorf(codes.InvalidArgument, "ttl: %s; wants 1 minute to 7 days", ttl)
	}
	at := time.Unix(1_800_000_000, 0)
	return &adminv1.CreateJoinTokenResponse{Token: fakeJoinToken, JoinToken: &adminv1.JoinToken{Id: "7QK2M4ZC5XWAB", Service: r.GetService(), Uses: r.GetUses(),
		Created: timestamppb.New(at), Expires: timestamppb.New(at.Add(r.GetTtl().AsDuration())), CreatedBy: "unix:root"}}, nil
}

func (f *fakeAdmin) ListJoinTokens(_ context.Context, r *adminv1.ListJoinTokensRequest) (*adminv1.ListJoinTokensResponse, error) {
	now, response := time.Now(), &adminv1.ListJoinTokensResponse{}
	for _, t := range []*adminv1.JoinToken{
		{Id: "7QK2M4ZC5XWAB", Service: "orders", Uses: 3, Instances: []string{"kq3v6c7d"}, Created: fakeTime(now, -10*time.Minute), Expires: fakeTime(now, 50*time.Minute), CreatedBy: "unix:root"},
		{Id: "B5N3TRYWQ6SDE", Service: "payments", Uses: 1, Created: fakeTime(now, -2*time.Hour), Expires: fakeTime(now, -time.Hour), CreatedBy: "token:corp/\x1b[31malice"},
	} {
		if r.GetService() == "" || r.GetService() == t.GetService() {
			response.JoinTokens = append(response.JoinTokens, t)
		}
	}
	return response, nil
}

// fakeTime is a second further away, so that its age does not change while a test
// runs.
func fakeTime(now time.Time, from time.Duration) *timestamppb.Timestamp {
	return timestamppb.New(now.Add(from + time.Second*time.Duration(cmp.Compare(from, 0))))
}

func (f *fakeAdmin) RevokeJoinToken(_ context.Context, r *adminv1.RevokeJoinTokenRequest) (*adminv1.RevokeJoinTokenResponse, error) {
	if r.GetId() == "NOPE" {
		return nil, status.Error(codes.NotFound, "there is no join token NOPE")
	}
	return &adminv1.RevokeJoinTokenResponse{}, nil
}

func (f *fakeAdmin) ListInstances(_ context.Context, r *adminv1.ListInstancesRequest) (*adminv1.ListInstancesResponse, error) {
	now, response := time.Now(), &adminv1.ListInstancesResponse{}
	for _, i := range []*adminv1.Instance{
		{Service: "payments", Id: "zzzz6c7dwyzaevb5mz2ggqzlxi", Enrolled: fakeTime(now, -time.Hour), Expires: fakeTime(now, time.Hour), AttestedBy: "key"},
		{Service: "payments", Id: "aaab6c7dwyzaevb5mz2ggqzlxi", Enrolled: fakeTime(now, -time.Hour), Expires: fakeTime(now, time.Hour), AttestedBy: "key"},
		{Service: "orders", Id: "kq3v6c7dwyzaevb5mz2ggqzlxi", Node: "orders-1", AttestedBy: "join-token/7QK2M4ZC5XWAB", Enrolled: fakeTime(now, -9*time.Minute), Renewed: fakeTime(now, -9*time.Minute), Expires: fakeTime(now, 719*time.Hour), Streams: 1},
		{Service: "payments", Id: "aaaa6c7dwyzaevb5mz2ggqzlxi", Node: "n\n1", AttestedBy: "kubernetes/cluster", Enrolled: fakeTime(now, -50*time.Hour), Expires: fakeTime(now, time.Hour)},
	} {
		if r.GetService() == "" || r.GetService() == i.GetService() {
			response.Instances = append(response.Instances, i)
		}
	}
	return response, nil
}

func (f *fakeAdmin) RevokeInstances(_ context.Context, r *adminv1.RevokeInstancesRequest) (*adminv1.RevokeInstancesResponse, error) {
	if len(r.GetInstances()) > 0 {
		return &adminv1.RevokeInstancesResponse{Revision: 58, Instances: r.GetInstances()}, nil
	}
	return &adminv1.RevokeInstancesResponse{Revision: 58, Instances: []string{"kq3v6c7d", "bbbb6c7d"}, JoinTokens: []string{"7QK2M4ZC5XWAB"}}, nil
}

func (f *fakeAdmin) ListClientSecrets(_ context.Context, r *adminv1.ListClientSecretsRequest) (*adminv1.ListClientSecretsResponse, error) {
	if r.GetService() == "quiet" {
		return &adminv1.ListClientSecretsResponse{}, nil
	}
	return &adminv1.ListClientSecretsResponse{ClientSecrets: []*adminv1.ClientSecret{
		{Id: "7f3a9c21", Service: "shop", Created: fakeTime(time.Now(), -72*time.Hour)},
		{Id: "9d41b0aa", Service: "shop", Created: fakeTime(time.Now(), -time.Minute)}}}, nil
}

func (f *fakeAdmin) DeleteClientSecret(_ context.Context, r *adminv1.DeleteClientSecretRequest) (*adminv1.DeleteClientSecretResponse, error) {
	if r.GetId() == "nope" {
		return nil, status.Errorf(codes.NotFound, "%s has no client secret nope", r.GetService())
	}
	return &adminv1.DeleteClientSecretResponse{}, nil
}

// ListAudit has 2500 entries, each ID the number of the entry, and looks at 700 for
// one page.
func (f *fakeAdmin) ListAudit(_ context.Context, r *adminv1.ListAuditRequest) (*adminv1.ListAuditResponse, error) {
	if r.GetLimit() > 1000 {
		return nil, status.Error(codes.InvalidArgument, "limit: at most 1000")
	}
	next := 2500
	if r.GetBefore() != "" {
		next, _ = strconv.Atoi(r.GetBefore())
		next--
	}
	response := &adminv1.ListAuditResponse{}
	if f.is() == "stuck" {
		return &adminv1.ListAuditResponse{Next: "7"}, nil
	}
	for looked := 0; next > 0 && looked < 700 && len(response.Entries) < int(r.GetLimit()); next, looked = next-1, looked+1 {
		e := fakeAuditEntry(next)
		if r.GetRefused() && e.GetOutcome() != adminv1.AuditEntry_REFUSED || r.GetActor() != "" && r.GetActor() != e.GetActor() {
			continue
		}
		response.Entries = append(response.Entries, e)
	}
	if next > 0 {
		response.Next = fmt.Sprintf("%04d", next+1)
	}
	return response, nil
}

// fakeAuditEntry is a refusal for each thousandth.
func fakeAuditEntry(n int) *adminv1.AuditEntry {
	e := &adminv1.AuditEntry{Id: fmt.Sprintf("%04d", n), Time: timestamppb.New(time.Unix(1_800_000_000+int64(n), 0)), Actor: "unix:root", Method: "Apply",
		Outcome: adminv1.AuditEntry_DONE, Subjects: []string{"created Service/a", "updated Issuer/corp"}, Revision: int64(n)}
	if n%1000 == 0 {
		return &adminv1.AuditEntry{Id: e.GetId(), Time: e.GetTime(), Actor: "token:corp/\x1b[31malice", Source: "192.0.2.9", Method: "CreateJoinToken",
			Outcome: adminv1.AuditEntry_REFUSED, Subjects: []string{"Service/orders"}, Reason: "this needs the role OPERATOR", Count: int64(n / 1000)}
	}
	return e
}

func (f *fakeAdmin) RotateKEK(_ *adminv1.RotateKEKRequest, stream grpc.ServerStreamingServer[adminv1.RotateKEKResponse]) error {
	_ = stream.Send(&adminv1.RotateKEKResponse{Kek: "k-2", Total: 5, Done: 3})
	switch f.is() {
	case "broken":
		return status.Error(codes.Unavailable, "reading etcd: no leader")
	case "early":
		return nil
	}
	return stream.Send(&adminv1.RotateKEKResponse{Kek: "k-2", Total: 5, Done: 5, Finished: true})
}

func (f *fakeAdmin) RevokeAdminToken(context.Context, *adminv1.RevokeAdminTokenRequest) (*adminv1.RevokeAdminTokenResponse, error) {
	return &adminv1.RevokeAdminTokenResponse{}, nil
}

func (f *fakeAdmin) CreateAdminToken(context.Context, *adminv1.CreateAdminTokenRequest) (*adminv1.CreateAdminTokenResponse, error) {
	return &adminv1.CreateAdminTokenResponse{Path: "/var/lib/watchword/admin.token"}, nil
}

func (f *fakeAdmin) Diagnose(context.Context, *adminv1.DiagnoseRequest) (*adminv1.DiagnoseResponse, error) {
	response := &adminv1.DiagnoseResponse{Findings: []*adminv1.Finding{
		{Severity: adminv1.Finding_OK, Subject: "admin API", Message: "TLS, with a certificate of the mesh's CA"},
		{Severity: adminv1.Finding_WARNING, Subject: "admin token", Message: "the token of the first start is still good", Hint: "`watchword admin-token revoke`"},
	}}
	switch f.is() {
	case "no-token":
		response.Findings[1] = &adminv1.Finding{Severity: adminv1.Finding_OK, Subject: "admin token", Message: "revoked"}
	case "sick":
		response.Findings = append(response.Findings, &adminv1.Finding{Severity: adminv1.Finding_PROBLEM, Subject: "key-encryption key", Message: "others can read its file\x1b[31m", Hint: "chmod 600 it"})
	case "unknown":
		response.Findings = append(response.Findings, &adminv1.Finding{Severity: 9, Subject: "new", Message: "what this program does not know"})
	}
	return response, nil
}

func (f *fakeAdmin) Revoke(_ context.Context, r *adminv1.RevokeRequest) (*adminv1.RevokeResponse, error) {
	return &adminv1.RevokeResponse{Id: "r1", Revision: 42, Services: []string{"orders"}, Revocation: fakeRevocation}, nil
}

var fakeRevocation = &adminv1.Revocation{Id: "r1", Kind: "subject", Issuer: "watchword", Value: "spiffe://mesh.local/shop", Actor: "unix:root"}

func (f *fakeAdmin) ListRevocations(context.Context, *adminv1.ListRevocationsRequest) (*adminv1.ListRevocationsResponse, error) {
	return &adminv1.ListRevocationsResponse{Revocations: []*adminv1.Revocation{fakeRevocation}}, nil
}

func (f *fakeAdmin) DeleteRevocation(_ context.Context, r *adminv1.DeleteRevocationRequest) (*adminv1.DeleteRevocationResponse, error) {
	if r.GetId() != "r1" {
		return nil, status.Error(codes.NotFound, "there is no revocation "+r.GetId())
	}
	return &adminv1.DeleteRevocationResponse{Revision: 43}, nil
}
