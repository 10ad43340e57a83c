package api

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/audit"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// by is the context of a call by one of the cast.
func by(name string) context.Context {
	return access.With(context.Background(), access.Actor{Name: "unix:" + name, Source: "10.0.0.1", Roles: cast[name]})
}

// What a call writes down: who, from where, what, about what; and nothing secret.
func TestEntries(t *testing.T) {
	s, _ := open(t, serviceYAML("a", "x"))
	b := withBackend(s)
	done := func(name, method string, subjects ...string) audit.Entry {
		return audit.Entry{Actor: "unix:" + name, Source: "10.0.0.1", Method: method, Outcome: audit.Done, Subjects: subjects}
	}
	call := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Error(err)
		}
	}
	call(s.CreateJoinToken(by("owner"), &adminv1.CreateJoinTokenRequest{Service: "a"}))
	call(s.RevokeJoinToken(by("operator"), &adminv1.RevokeJoinTokenRequest{Id: "ja"}))
	call(s.RevokeInstances(by("officer"), &adminv1.RevokeInstancesRequest{Service: "a"}))
	call(s.RevokeInstances(by("owner"), &adminv1.RevokeInstancesRequest{Service: "a", Instances: []string{"i", "j"}}))
	call(s.DeleteClientSecret(by("owner"), &adminv1.DeleteClientSecretRequest{Service: "a", Id: "sa"}))
	call(s.RevokeAdminToken(by("officer"), &adminv1.RevokeAdminTokenRequest{}))
	call(s.CreateAdminToken(by("officer"), &adminv1.CreateAdminTokenRequest{}))
	call(s.RotateSigningKey(by("officer"), &adminv1.RotateSigningKeyRequest{}))
	call(s.RevokeSigningKey(by("officer"), &adminv1.RevokeSigningKeyRequest{Kid: "k1"}))
	call(s.RevokeSigningKey(by("officer"), &adminv1.RevokeSigningKeyRequest{All: true}))
	want := []audit.Entry{
		done("owner", "CreateJoinToken", "created join token a/x"),
		done("operator", "RevokeJoinToken", "revoked join token a/ja"),
		done("officer", "RevokeInstances", "revoked all instances of Service/a"),
		done("owner", "RevokeInstances", "revoked instance a/i", "revoked instance a/j"),
		done("owner", "DeleteClientSecret", "deleted client secret a/sa"),
		done("officer", "RevokeAdminToken", "revoked the admin token"),
		done("officer", "CreateAdminToken", "created an admin token"),
		done("officer", "RotateSigningKey", "asked for another signing key"),
		done("officer", "RevokeSigningKey", "revoked signing key k1"),
		done("officer", "RevokeSigningKey", "revoked all signing keys"),
	}
	if diff := cmp.Diff(want, b.entries, cmpopts.IgnoreFields(audit.Entry{}, "Time")); diff != "" {
		t.Errorf("entries -want +got:\n%s", diff)
	}
}

// The entry of a write is in the step that makes it, each with what it changes; a
// dry run, and what changes nothing, has none.
func TestStepsHaveEntries(t *testing.T) {
	s, m := open(t, serviceYAML("a", "x"), serviceYAML("gone", "x"))
	m.limit = 2
	docs := documents(join(serviceYAML("a", "y"), serviceYAML("b", "x"), serviceYAML("c", "x")))
	for _, req := range []*adminv1.ApplyRequest{{Documents: docs, Prune: true, DryRun: true}, {Documents: docs, Prune: true}, {Documents: docs, Prune: true}} {
		if _, err := s.Apply(by("operator"), req); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for _, e := range m.audits {
		got = append(got, fmt.Sprintf("%s %s %s %v %v", e.Actor, e.Source, e.Method, e.Outcome, e.Subjects))
	}
	want := []string{
		"unix:operator 10.0.0.1 Apply done [updated Service/a created Service/b]",
		"unix:operator 10.0.0.1 Apply done [created Service/c deleted Service/gone]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("entries -want +got:\n%s", diff)
	}
}

// Join tokens have bounds, and defaults.
func TestCreateJoinToken(t *testing.T) {
	s, _ := open(t, serviceYAML("a", "x"))
	b := withBackend(s)
	for _, tt := range []struct {
		req  *adminv1.CreateJoinTokenRequest
		code codes.Code
		want string
	}{
		{&adminv1.CreateJoinTokenRequest{Service: "a"}, codes.OK, "1 1h0m0s"},
		{&adminv1.CreateJoinTokenRequest{Service: "a", Uses: 1000, Ttl: durationpb.New(7 * 24 * time.Hour)}, codes.OK, "1000 168h0m0s"},
		{&adminv1.CreateJoinTokenRequest{Service: "a", Ttl: durationpb.New(time.Minute)}, codes.OK, "1 1m0s"},
		{&adminv1.CreateJoinTokenRequest{Service: "a", Uses: 1001}, codes.InvalidArgument, "uses: 1001 instances; wants 1 to 1000"},
		{&adminv1.CreateJoinTokenRequest{Service: "a", Uses: -1}, codes.InvalidArgument, "uses: -1"},
		{&adminv1.CreateJoinTokenRequest{Service: "a", Ttl: durationpb.New(59 * time.Second)}, codes.InvalidArgument, "ttl: 59s; wants 1 minute to 7 days"},
		{&adminv1.CreateJoinTokenRequest{Service: "a", Ttl: durationpb.New(-time.Hour)}, codes.InvalidArgument, "ttl: -1h0m0s"},
		{&adminv1.CreateJoinTokenRequest{Service: "a", Ttl: durationpb.New(8 * 24 * time.Hour)}, codes.InvalidArgument, "ttl: 192h0m0s"},
		{&adminv1.CreateJoinTokenRequest{Service: "nope"}, codes.NotFound, `there is no Service "nope"`},
		{&adminv1.CreateJoinTokenRequest{}, codes.NotFound, `there is no Service ""`},
	} {
		b.asked = nil
		resp, err := s.CreateJoinToken(by("operator"), tt.req)
		if tt.code != codes.OK {
			wantError(t, err, tt.code, tt.want)
			if len(b.asked) > 0 {
				t.Errorf("%v: a token was made", tt.req)
			}
			continue
		}
		if err != nil || resp.GetToken() != "wwjt_x" || fmt.Sprint(b.asked[0].Uses, " ", b.asked[0].TTL) != tt.want || b.asked[0].CreatedBy != "unix:operator" {
			t.Errorf("CreateJoinToken(%v) = %v, %v, asked for %+v; want %s", tt.req, resp, err, b.asked, tt.want)
		}
	}
}

// Other inputs that are refused, and things that are not there.
func TestAdminCallErrors(t *testing.T) {
	s, _ := open(t, serviceYAML("a", "x"))
	withBackend(s)
	names := func(n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprint("i", i))
		}
		return out
	}
	call := func(_ any, err error) error { return err }
	for name, tt := range map[string]struct {
		err  error
		code codes.Code
		want string
	}{
		"no such token":       {call(s.RevokeJoinToken(root(), &adminv1.RevokeJoinTokenRequest{Id: "x"})), codes.NotFound, `there is no join token "x"`},
		"token of another":    {call(s.RevokeJoinToken(by("owner"), &adminv1.RevokeJoinTokenRequest{Id: "jb"})), codes.NotFound, `there is no join token "jb"`},
		"no such instance":    {call(s.RevokeInstances(root(), &adminv1.RevokeInstancesRequest{Service: "a", Instances: []string{"gone"}})), codes.NotFound, "and none was revoked"},
		"instance, name":      {call(s.RevokeInstances(root(), &adminv1.RevokeInstancesRequest{Service: "a", Instances: []string{"../x"}})), codes.InvalidArgument, "instances[0]"},
		"instance, twice":     {call(s.RevokeInstances(root(), &adminv1.RevokeInstancesRequest{Service: "a", Instances: []string{"i", "i"}})), codes.InvalidArgument, "instances[1]"},
		"instances, many":     {call(s.RevokeInstances(root(), &adminv1.RevokeInstancesRequest{Service: "a", Instances: names(1001)})), codes.InvalidArgument, "1001 instances in one call"},
		"instances, nobody":   {call(s.RevokeInstances(root(), &adminv1.RevokeInstancesRequest{Service: "nope"})), codes.NotFound, `there is no Service "nope"`},
		"no such secret":      {call(s.DeleteClientSecret(root(), &adminv1.DeleteClientSecretRequest{Service: "a", Id: "gone"})), codes.NotFound, `Service "a" has no client secret "gone"`},
		"misspelt, tokens":    {call(s.ListJoinTokens(root(), &adminv1.ListJoinTokensRequest{Service: "nope"})), codes.NotFound, `there is no Service "nope"`},
		"misspelt, list":      {call(s.ListInstances(root(), &adminv1.ListInstancesRequest{Service: "nope"})), codes.NotFound, `there is no Service "nope"`},
		"misspelt, secrets":   {call(s.ListClientSecrets(root(), &adminv1.ListClientSecretsRequest{Service: "nope"})), codes.NotFound, `there is no Service "nope"`},
		"instance, went":      {call(s.RevokeInstances(root(), &adminv1.RevokeInstancesRequest{Service: "a", Instances: []string{"i", "j", "gone"}})), codes.Aborted, "2 of 3 instances are revoked"},
		"signing key, gone":   {call(s.RevokeSigningKey(root(), &adminv1.RevokeSigningKeyRequest{Kid: "gone"})), codes.NotFound, `there is no signing key "gone"`},
		"signing key, none":   {call(s.RevokeSigningKey(root(), &adminv1.RevokeSigningKeyRequest{})), codes.InvalidArgument, "kid: name the key to revoke, or say all"},
		"signing key, both":   {call(s.RevokeSigningKey(root(), &adminv1.RevokeSigningKeyRequest{Kid: "k", All: true})), codes.InvalidArgument, "one of both"},
		"audit, no ID":        {call(s.ListAudit(root(), &adminv1.ListAuditRequest{Before: "zzz"})), codes.InvalidArgument, "before: this is not the ID"},
		"audit, limit":        {call(s.ListAudit(root(), &adminv1.ListAuditRequest{Limit: 1001})), codes.InvalidArgument, "limit: 1001 entries; wants 1 to 1000"},
		"audit, negative":     {call(s.ListAudit(root(), &adminv1.ListAuditRequest{Limit: -1})), codes.InvalidArgument, "limit: -1"},
		"audit, long":         {call(s.ListAudit(root(), &adminv1.ListAuditRequest{Actor: strings.Repeat("x", 2000)})), codes.InvalidArgument, "too long"},
		"revoke, no consumer": {call(s.Revoke(root(), &adminv1.RevokeRequest{What: &adminv1.RevokeRequest_Consumer{Consumer: "gone"}})), codes.NotFound, "no such thing"},
		"revoke, odd":         {call(s.Revoke(root(), &adminv1.RevokeRequest{What: &adminv1.RevokeRequest_Consumer{Consumer: "odd"}})), codes.InvalidArgument, "consumer: odd"},
		"revoke, full":        {call(s.Revoke(root(), &adminv1.RevokeRequest{What: &adminv1.RevokeRequest_Consumer{Consumer: "full"}})), codes.FailedPrecondition, "too many"},
		"revoke, no audience": {call(s.Revoke(root(), &adminv1.RevokeRequest{What: &adminv1.RevokeRequest_Consumer{Consumer: "c"}, Audiences: []string{"nope"}})), codes.NotFound, `there is no Service "nope"`},
		"revoke, of others":   {call(s.Revoke(by("owner"), &adminv1.RevokeRequest{What: &adminv1.RevokeRequest_Consumer{Consumer: "c"}})), codes.PermissionDenied, "SECURITY_OFFICER"},
		"take back, of all":   {call(s.DeleteRevocation(by("owner"), &adminv1.DeleteRevocationRequest{Id: "all"})), codes.PermissionDenied, "SECURITY_OFFICER"},
		"take back, none":     {call(s.DeleteRevocation(root(), &adminv1.DeleteRevocationRequest{Id: "x"})), codes.NotFound, "no revocation"},
	} {
		if got := status.Convert(tt.err); got.Code() != tt.code || !strings.Contains(got.Message(), tt.want) {
			t.Errorf("%s: %v; want %s with %q", name, tt.err, tt.code, tt.want)
		}
	}
}

// A store that fails is UNAVAILABLE, and what a Config leaves out UNIMPLEMENTED.
func TestBackendFails(t *testing.T) {
	backed := strings.Fields("CreateJoinToken ListJoinTokens RevokeJoinToken ListInstances RevokeInstances Revoke DeleteRevocation ListClientSecrets DeleteClientSecret ListAudit RotateKEK ListSigningKeys WatchSigningKeys RotateSigningKey RevokeSigningKey RevokeAdminToken CreateAdminToken Diagnose")
	for _, c := range adminCalls() {
		if !slices.Contains(backed, c.method) {
			continue
		}
		for form, code := range map[string]codes.Code{"fails": codes.Unavailable, "is not there": codes.Unimplemented} {
			s, _ := open(t, serviceYAML("a", "x"))
			b := withBackend(s)
			s.Identify = play
			b.fail = errors.New("etcd did not answer")
			if form == "is not there" {
				s.Enrolments, s.Secrets, s.AuditLog, s.KEK, s.SigningKeys, s.AdminTokens, s.Diagnosis, s.Revocations = nil, nil, nil, nil, nil, nil, nil, nil
			}
			actor := strings.Fields(c.who)[0]
			if strings.HasPrefix(c.method, "Revoke") && c.method != "RevokeJoinToken" || c.method == "DeleteRevocation" {
				actor = "officer"
			}
			_, conn := serve(t, s)
			if err := c.grpc(as("Bearer "+actor), adminv1.NewAdminServiceClient(conn)); status.Code(err) != code {
				t.Errorf("%s, whose backend %s: %v; want %s", c.method, form, err, code)
			}
		}
	}
}

// The audit is shown as it was written, and selected as asked.
func TestListAudit(t *testing.T) {
	s, _ := open(t)
	b := withBackend(s)
	resp, err := s.ListAudit(root(), &adminv1.ListAuditRequest{Before: "3", Actor: "unix:root", Refused: true})
	if err != nil {
		t.Fatal(err)
	}
	want := []*adminv1.AuditEntry{
		{Id: "2", Actor: "unix:root", Outcome: adminv1.AuditEntry_DONE, Revision: 7},
		{Id: "1", Outcome: adminv1.AuditEntry_REFUSED, Reason: "no", Count: 3},
		{Id: "0"},
	}
	if resp.GetNext() != "0" {
		t.Errorf("next: %q, want 0", resp.GetNext())
	}
	if diff := cmp.Diff(want, resp.GetEntries(), protocmp.Transform(), protocmp.IgnoreFields(&adminv1.AuditEntry{}, "time")); diff != "" {
		t.Errorf("entries -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]AuditQuery{{Limit: 100, Before: "3", Actor: "unix:root", Refused: true}}, b.queries); diff != "" {
		t.Errorf("asked for -want +got:\n%s", diff)
	}
}

// GetSelf says who one is, and what one may.
func TestGetSelf(t *testing.T) {
	s, _ := open(t)
	got, err := s.GetSelf(by("owner"), &adminv1.GetSelfRequest{})
	want := &adminv1.GetSelfResponse{Actor: "unix:owner", Roles: []*adminv1.HeldRole{{Role: "SERVICE_OWNER", Services: []string{"a"}}}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("GetSelf: %v, -want +got:\n%s", err, diff)
	}
}

// A rotation that can't begin is the caller's to prepare, and is written down as
// refused.
func TestRotateKEKPrecondition(t *testing.T) {
	s, _ := open(t)
	b := withBackend(s)
	b.fail = Precondition("put the new key in front")
	var refused []audit.Entry
	s.Refused = func(e audit.Entry) { refused = append(refused, e) }
	s.Identify = play
	_, conn := serve(t, s)
	stream, err := adminv1.NewAdminServiceClient(conn).RotateKEK(as("Bearer officer"), &adminv1.RotateKEKRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	wantError(t, err, codes.FailedPrecondition, "put the new key in front")
	if len(refused) != 1 || refused[0].Method != "RotateKEK" || refused[0].Reason != "put the new key in front" {
		t.Errorf("refused: %+v, want the rotation with its reason", refused)
	}
}
