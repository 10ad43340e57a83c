package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/internal/failures"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// cast are the actors of the tests, by their bearer tokens.
var cast = map[string][]access.Role{
	"viewer":   {{Role: access.Viewer}},
	"operator": {{Role: access.Operator}},
	"officer":  {{Role: access.SecurityOfficer}},
	"owner":    {{Role: access.ServiceOwner, Services: []string{"a"}}},
	"other":    {{Role: access.ServiceOwner, Services: []string{"b"}}},
	"norole":   nil,
}

// play is an Identify that knows the cast.
func play(r *http.Request) (access.Actor, error) {
	token, err := access.Bearer(r.Header.Values("Authorization"))
	roles, known := cast[token]
	switch {
	case err != nil:
		return access.Actor{}, err
	case token == "":
		return access.Actor{}, access.NoCredential
	case !known:
		return access.Actor{}, access.BadCredential
	}
	return access.Actor{Name: "unix:" + token, Source: failures.SourceOf(r.RemoteAddr), Roles: roles}, nil
}

// ownPolicy is a policy of the service a.
const ownPolicy = "apiVersion: watchword.dev/v1\nkind: AuthorizationPolicy\nmetadata: {name: p}\nspec: {action: ALLOW, target: {services: [a]}}\n"

// adminCall is one call about the service a, in both forms, and who may make it.
type adminCall struct {
	method     string
	grpc       func(context.Context, adminv1.AdminServiceClient) error
	verb, path string
	body       any
	who        string
}

func unary[Req, Resp any](f func(adminv1.AdminServiceClient, context.Context, Req, ...grpc.CallOption) (Resp, error), req Req) func(context.Context, adminv1.AdminServiceClient) error {
	return func(ctx context.Context, c adminv1.AdminServiceClient) error { _, err := f(c, ctx, req); return err }
}

// drain reads a stream to its end.
func drain[Resp any](stream grpc.ServerStreamingClient[Resp], err error) error {
	for err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// firstOf reads the first message of a stream that does not end by itself.
func firstOf[Resp any](open func(context.Context, adminv1.AdminServiceClient) (grpc.ServerStreamingClient[Resp], error)) func(context.Context, adminv1.AdminServiceClient) error {
	return func(ctx context.Context, c adminv1.AdminServiceClient) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := open(ctx, c)
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
}

type m = map[string]any

func adminCalls() []adminCall {
	type c = adminv1.AdminServiceClient
	const (
		all   = "viewer operator officer owner"
		lists = all + " other"
	)
	docs := m{"documents": []m{{"content": ownPolicy}}}
	return []adminCall{
		{method: "Apply", grpc: unary(c.Apply, &adminv1.ApplyRequest{Documents: documents(ownPolicy)}), verb: "POST", path: "/v1/apply", body: docs, who: "operator owner"},
		{method: "List", grpc: unary(c.List, &adminv1.ListRequest{}), verb: "GET", path: "/v1/resources", who: lists},
		{method: "Delete", grpc: unary(c.Delete, &adminv1.DeleteRequest{References: []*adminv1.Reference{{Kind: "AuthorizationPolicy", Name: "old"}}}), verb: "POST", path: "/v1/delete", body: m{"references": []m{{"kind": "AuthorizationPolicy", "name": "old"}}}, who: "operator owner"},
		{method: "ListDataPlanes", grpc: unary(c.ListDataPlanes, &adminv1.ListDataPlanesRequest{Service: "a"}), verb: "GET", path: "/v1/dataplanes?service=a", who: all},
		{method: "GetDataPlaneConfig", grpc: unary(c.GetDataPlaneConfig, &adminv1.GetDataPlaneConfigRequest{Node: "n1"}), verb: "GET", path: "/v1/dataplane-configs/n1", who: all + " other(404)"},
		{method: "WaitInSync", grpc: func(ctx context.Context, client c) error {
			return drain(client.WaitInSync(ctx, &adminv1.WaitInSyncRequest{Revision: 1, Services: []string{"a"}}))
		}, verb: "GET", path: "/v1/revisions/1/wait?services=a", who: all},
		{method: "CreateClientSecret", grpc: unary(c.CreateClientSecret, &adminv1.CreateClientSecretRequest{Service: "a"}), verb: "POST", path: "/v1/services/a/client-secrets", who: "officer owner"},
		{method: "IssueToken", grpc: unary(c.IssueToken, &adminv1.IssueTokenRequest{Service: "a"}), verb: "POST", path: "/v1/services/a/tokens", body: m{}, who: "officer owner"},
		{method: "ListRefusals", grpc: unary(c.ListRefusals, &adminv1.ListRefusalsRequest{Service: "a"}), verb: "GET", path: "/v1/refusals?service=a", who: all},
		{method: "Explain", grpc: unary(c.Explain, &adminv1.ExplainRequest{Service: "a"}), verb: "POST", path: "/v1/services/a/explain", body: m{}, who: all},
		{method: "CreateJoinToken", grpc: unary(c.CreateJoinToken, &adminv1.CreateJoinTokenRequest{Service: "a"}), verb: "POST", path: "/v1/services/a/join-tokens", body: m{}, who: "operator owner"},
		{method: "ListJoinTokens", grpc: unary(c.ListJoinTokens, &adminv1.ListJoinTokensRequest{}), verb: "GET", path: "/v1/join-tokens", who: lists},
		{method: "RevokeJoinToken", grpc: unary(c.RevokeJoinToken, &adminv1.RevokeJoinTokenRequest{Id: "ja"}), verb: "DELETE", path: "/v1/join-tokens/ja", who: "operator officer owner other(404)"},
		{method: "ListInstances", grpc: unary(c.ListInstances, &adminv1.ListInstancesRequest{Service: "a"}), verb: "GET", path: "/v1/instances?service=a", who: all},
		{method: "RevokeInstances", grpc: unary(c.RevokeInstances, &adminv1.RevokeInstancesRequest{Service: "a"}), verb: "POST", path: "/v1/services/a/revoke-instances", body: m{}, who: "officer owner"},
		{method: "Revoke", grpc: unary(c.Revoke, &adminv1.RevokeRequest{What: &adminv1.RevokeRequest_Consumer{Consumer: "c"}, Audiences: []string{"a"}}), verb: "POST", path: "/v1/revocations", body: m{"consumer": "c", "audiences": []string{"a"}}, who: "officer owner"},
		{method: "ListRevocations", grpc: unary(c.ListRevocations, &adminv1.ListRevocationsRequest{Service: "a"}), verb: "GET", path: "/v1/revocations?service=a", who: all},
		{method: "DeleteRevocation", grpc: unary(c.DeleteRevocation, &adminv1.DeleteRevocationRequest{Id: "ra"}), verb: "DELETE", path: "/v1/revocations/ra", who: "officer owner"},
		{method: "ListClientSecrets", grpc: unary(c.ListClientSecrets, &adminv1.ListClientSecretsRequest{Service: "a"}), verb: "GET", path: "/v1/client-secrets?service=a", who: all},
		{method: "DeleteClientSecret", grpc: unary(c.DeleteClientSecret, &adminv1.DeleteClientSecretRequest{Service: "a", Id: "sa"}), verb: "DELETE", path: "/v1/services/a/client-secrets/sa", who: "officer owner"},
		{method: "ListAudit", grpc: unary(c.ListAudit, &adminv1.ListAuditRequest{}), verb: "GET", path: "/v1/audit", who: "officer"},
		{method: "RotateKEK", grpc: func(ctx context.Context, client c) error {
			return drain(client.RotateKEK(ctx, &adminv1.RotateKEKRequest{}))
		}, verb: "POST", path: "/v1/kek/rotate", who: "officer"},
		{method: "ListSigningKeys", grpc: unary(c.ListSigningKeys, &adminv1.ListSigningKeysRequest{}), verb: "GET", path: "/v1/signing-keys", who: "viewer operator officer"},
		{method: "WatchSigningKeys", grpc: firstOf(func(ctx context.Context, client c) (grpc.ServerStreamingClient[adminv1.WatchSigningKeysResponse], error) {
			return client.WatchSigningKeys(ctx, &adminv1.WatchSigningKeysRequest{})
		}), verb: "GET", path: "/v1/signing-keys/watch", who: "viewer operator officer"},
		{method: "RotateSigningKey", grpc: unary(c.RotateSigningKey, &adminv1.RotateSigningKeyRequest{}), verb: "POST", path: "/v1/signing-keys/rotate", who: "officer"},
		{method: "RevokeSigningKey", grpc: unary(c.RevokeSigningKey, &adminv1.RevokeSigningKeyRequest{Kid: "k1"}), verb: "POST", path: "/v1/signing-keys/revoke", body: m{"kid": "k1"}, who: "officer"},
		{method: "RevokeAdminToken", grpc: unary(c.RevokeAdminToken, &adminv1.RevokeAdminTokenRequest{}), verb: "DELETE", path: "/v1/admin-token", who: "officer"},
		{method: "CreateAdminToken", grpc: unary(c.CreateAdminToken, &adminv1.CreateAdminTokenRequest{}), verb: "POST", path: "/v1/admin-token", who: "officer"},
		{method: "GetSelf", grpc: unary(c.GetSelf, &adminv1.GetSelfRequest{}), verb: "GET", path: "/v1/self", who: lists + " norole"},
		{method: "Diagnose", grpc: unary(c.Diagnose, &adminv1.DiagnoseRequest{}), verb: "GET", path: "/v1/diagnosis", who: "viewer operator officer"},
	}
}

// cell is what comes of a call by one of the cast.
func (c adminCall) cell(actor string) (codes.Code, int) {
	allowed := strings.Fields(c.who)
	switch {
	case actor == "nobody" || actor == "stranger":
		return codes.Unauthenticated, http.StatusUnauthorized
	case slices.Contains(allowed, actor+"(404)"):
		return codes.NotFound, http.StatusNotFound
	case slices.Contains(allowed, actor):
		return codes.OK, http.StatusOK
	}
	return codes.PermissionDenied, http.StatusForbidden
}

// Every call by each of the cast, over gRPC and as JSON: who may make it gets an
// answer, others are refused, in the one way as in the other, and each refusal is
// handed on with who tried what.
func TestEveryCallByEveryRole(t *testing.T) {
	service := adminv1.File_watchword_admin_v1_admin_proto.Services().ByName("AdminService")
	calls := adminCalls()
	for i := range service.Methods().Len() {
		name := string(service.Methods().Get(i).Name())
		if !slices.ContainsFunc(calls, func(c adminCall) bool { return c.method == name }) {
			t.Errorf("%s has no row in this test", name)
		}
	}
	for _, c := range calls {
		for _, actor := range []string{"nobody", "stranger", "norole", "viewer", "operator", "officer", "owner", "other"} {
			t.Run(c.method+"/"+actor, func(t *testing.T) { playOne(t, c, actor) })
		}
	}
}

func playOne(t *testing.T, c adminCall, actor string) {
	code, httpStatus := c.cell(actor)
	var authorization []string
	if actor != "nobody" {
		authorization = []string{"Bearer " + actor}
	}
	for _, form := range []string{"gRPC", "JSON"} {
		s, kept := open(t, serviceYAML("a", "x"), serviceYAML("b", "x"), strings.Replace(ownPolicy, "name: p", "name: old", 1))
		b := withBackend(s)
		s.Identify = play
		refused := recorded(s)
		url, conn := serve(t, s)
		if form == "gRPC" {
			err := c.grpc(as(authorization...), adminv1.NewAdminServiceClient(conn))
			if got := status.Code(err); got != code {
				t.Errorf("gRPC: %v, want %s", err, code)
			}
		} else if got, body := do(t, c.verb, url+c.path, jsonBody(t, c.body), authorization...); got != httpStatus {
			t.Errorf("JSON: %d %s, want %d", got, body, httpStatus)
		}
		if code != codes.OK && (len(b.entries) > 0 || kept.commits > 0) {
			t.Errorf("%s: refused, and yet %d commits and %v were made", form, kept.commits, b.entries)
		}
		wantRefused(t, form, c, actor, code, refused())
	}
}

// recorded gathers what a Server hands on as refused.
func recorded(s *Server) func() []audit.Entry {
	var mu sync.Mutex
	var out []audit.Entry
	s.Refused = func(e audit.Entry) { mu.Lock(); defer mu.Unlock(); out = append(out, e) }
	return func() []audit.Entry { mu.Lock(); defer mu.Unlock(); return out }
}

// wantRefused: one entry for a refusal, also for one that the caller is told nothing
// of, and it says who tried what from where.
func wantRefused(t *testing.T, form string, c adminCall, actor string, code codes.Code, got []audit.Entry) {
	t.Helper()
	if code == codes.OK {
		if len(got) > 0 {
			t.Errorf("%s: %+v are handed on as refused; nothing was", form, got)
		}
		return
	}
	name, method := "unix:"+actor, c.method
	if code == codes.Unauthenticated {
		name = ""
		if form == "JSON" {
			method = "JSON " + c.verb
		}
	}
	if len(got) != 1 || got[0].Actor != name || got[0].Method != method || got[0].Source != "127.0.0.1" || got[0].Outcome != audit.Refused || got[0].Reason == "" || got[0].Time.IsZero() {
		t.Errorf("%s: handed on %+v; want one of %q for %s", form, got, name, method)
	}
}

func jsonBody(t *testing.T, body any) io.Reader {
	t.Helper()
	if body == nil {
		return nil
	}
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReader(string(b))
}

// What is refused names the roles that would do.
func TestRefusalNamesRoles(t *testing.T) {
	s, _ := open(t, serviceYAML("a", "x"))
	withBackend(s)
	s.Identify = play
	url, conn := serve(t, s)
	client := adminv1.NewAdminServiceClient(conn)
	_, err := client.ListAudit(as("Bearer viewer"), &adminv1.ListAuditRequest{})
	wantError(t, err, codes.PermissionDenied, "needs the role SECURITY_OFFICER")
	_, err = client.CreateJoinToken(as("Bearer other"), &adminv1.CreateJoinTokenRequest{Service: "a"})
	wantError(t, err, codes.PermissionDenied, `needs the role OPERATOR, or SERVICE_OWNER of Service "a"`)
	_, err = client.Apply(as("Bearer owner"), &adminv1.ApplyRequest{Documents: documents(join(ownPolicy, serviceYAML("b", "x")))})
	wantError(t, err, codes.PermissionDenied, `nothing was changed: Service/b: needs the role OPERATOR`)
	if code, body := get(t, url+"/v1/audit", "Bearer viewer"); code != 403 || !strings.Contains(body, `"message":"needs the role SECURITY_OFFICER"`) || !strings.Contains(body, `"code":7`) {
		t.Errorf("JSON: %d %s", code, body)
	}
	many := ownPolicy
	for i := range 12 {
		many = join(many, serviceYAML(fmt.Sprint("s", i), "x"))
	}
	_, err = client.Apply(as("Bearer owner"), &adminv1.ApplyRequest{Documents: documents(many)})
	wantError(t, err, codes.PermissionDenied, "Service/s7: needs the role OPERATOR; and 2 more")
}
