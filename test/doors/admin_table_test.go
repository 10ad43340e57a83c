package doors

import (
	"context"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// door is one call about the service `target`, in both forms, and who may make it.
// "{x}" stands for what fresh has made.
type door struct {
	// method of the AdminService; "Kong" and more for calls that have no gRPC form.
	method     string
	verb, path string
	body       string
	grpc       func(ctx context.Context, c adminv1.AdminServiceClient, x string) error
	// who has the roles that may; "(404)" behind one: it is not told that it is there.
	who string
	// fresh makes what the call uses up, before each call; after puts back what it
	// has ended.
	fresh func(*testing.T, *mesh) string
	after func(*testing.T, *mesh)
}

// firstOf reads the first message of a stream that does not end by itself.
func firstOf[Resp any](open func() (grpc.ServerStreamingClient[Resp], error)) error {
	stream, err := open()
	if err == nil {
		_, err = stream.Recv()
	}
	return err
}

func policyOf(name string) string {
	return resource("AuthorizationPolicy", name, "action: ALLOW", "target: {services: [target]}")
}

func adminDoors() []door {
	type (
		C = adminv1.AdminServiceClient
		X = context.Context
	)
	named := func(prefix string) func(*testing.T, *mesh) string {
		return func(_ *testing.T, m *mesh) string { return m.name(prefix) }
	}
	return []door{
		{"Apply", "POST", "/v1/apply", `{"documents":[{"content":"{apiVersion: watchword.dev/v1, kind: AuthorizationPolicy, metadata: {name: {x}}, spec: {action: ALLOW, target: {services: [target]}}}"}]}`,
			func(ctx X, c C, x string) error {
				_, err := c.Apply(ctx, meshtest.Documents(policyOf(x)))
				return err
			},
			"operator owner", named("policy"), nil},
		{"List", "GET", "/v1/resources", "",
			func(ctx X, c C, _ string) error { _, err := c.List(ctx, &adminv1.ListRequest{}); return err },
			"viewer operator officer owner other", nil, nil},
		{"Delete", "POST", "/v1/delete", `{"references":[{"kind":"AuthorizationPolicy","name":"{x}"}]}`,
			func(ctx X, c C, x string) error {
				_, err := c.Delete(ctx, &adminv1.DeleteRequest{References: []*adminv1.Reference{{Kind: "AuthorizationPolicy", Name: x}}})
				return err
			},
			"operator owner", freshPolicy, nil},
		{"ListDataPlanes", "GET", "/v1/dataplanes?service=target", "",
			func(ctx X, c C, _ string) error {
				_, err := c.ListDataPlanes(ctx, &adminv1.ListDataPlanesRequest{Service: "target"})
				return err
			},
			"viewer operator officer owner", nil, nil},
		{"GetDataPlaneConfig", "GET", "/v1/dataplane-configs/target-node", "",
			func(ctx X, c C, _ string) error {
				_, err := c.GetDataPlaneConfig(ctx, &adminv1.GetDataPlaneConfigRequest{Node: "target-node"})
				return err
			},
			"viewer operator officer owner other(404)", nil, nil},
		{"WaitInSync", "GET", "/v1/revisions/1/wait?services=other", "",
			func(ctx X, c C, _ string) error {
				return drain(c.WaitInSync(ctx, &adminv1.WaitInSyncRequest{Revision: 1, Services: []string{"other"}}))
			},
			"viewer operator officer other", nil, nil},
		{"CreateClientSecret", "POST", "/v1/services/target/client-secrets", "",
			func(ctx X, c C, _ string) error {
				_, err := c.CreateClientSecret(ctx, &adminv1.CreateClientSecretRequest{Service: "target"})
				return err
			},
			"officer owner", nil, nil},
		{"IssueToken", "POST", "/v1/services/target/tokens", `{"audience":"other"}`,
			func(ctx X, c C, _ string) error {
				_, err := c.IssueToken(ctx, &adminv1.IssueTokenRequest{Service: "target", Audience: "other"})
				return err
			},
			"officer owner", nil, nil},
		{"ListRefusals", "GET", "/v1/refusals?service=target", "",
			func(ctx X, c C, _ string) error {
				_, err := c.ListRefusals(ctx, &adminv1.ListRefusalsRequest{Service: "target"})
				return err
			},
			"viewer operator officer owner", nil, nil},
		{"Explain", "POST", "/v1/services/target/explain", "{}",
			func(ctx X, c C, _ string) error {
				_, err := c.Explain(ctx, &adminv1.ExplainRequest{Service: "target"})
				return err
			},
			"viewer operator officer owner", nil, nil},
		{"CreateJoinToken", "POST", "/v1/services/target/join-tokens", "{}",
			func(ctx X, c C, _ string) error {
				_, err := c.CreateJoinToken(ctx, &adminv1.CreateJoinTokenRequest{Service: "target"})
				return err
			},
			"operator owner", nil, nil},
		{"ListJoinTokens", "GET", "/v1/join-tokens", "",
			func(ctx X, c C, _ string) error {
				_, err := c.ListJoinTokens(ctx, &adminv1.ListJoinTokensRequest{})
				return err
			},
			"viewer operator officer owner other", nil, nil},
		{"RevokeJoinToken", "DELETE", "/v1/join-tokens/{x}", "",
			func(ctx X, c C, x string) error {
				_, err := c.RevokeJoinToken(ctx, &adminv1.RevokeJoinTokenRequest{Id: x})
				return err
			},
			"operator officer owner other(404)", freshJoinToken, nil},
		{"ListInstances", "GET", "/v1/instances?service=target", "",
			func(ctx X, c C, _ string) error {
				_, err := c.ListInstances(ctx, &adminv1.ListInstancesRequest{Service: "target"})
				return err
			},
			"viewer operator officer owner", nil, nil},
		{"RevokeInstances", "POST", "/v1/services/target/revoke-instances", `{"instances":["{x}"]}`,
			func(ctx X, c C, x string) error {
				_, err := c.RevokeInstances(ctx, &adminv1.RevokeInstancesRequest{Service: "target", Instances: []string{x}})
				return err
			},
			"officer owner", func(t *testing.T, m *mesh) string { return m.enrol(t, "target").Instance() }, nil},
		{"Revoke", "POST", "/v1/revocations", `{"subject":{"subject":"other"},"audiences":["target"]}`,
			func(ctx X, c C, _ string) error {
				_, err := c.Revoke(ctx, &adminv1.RevokeRequest{What: &adminv1.RevokeRequest_Subject{Subject: &adminv1.SubjectToRevoke{Subject: "other"}}, Audiences: []string{"target"}})
				return err
			},
			"officer owner", nil, nil},
		{"ListRevocations", "GET", "/v1/revocations?service=target", "",
			func(ctx X, c C, _ string) error {
				_, err := c.ListRevocations(ctx, &adminv1.ListRevocationsRequest{Service: "target"})
				return err
			},
			"viewer operator officer owner", nil, nil},
		{"DeleteRevocation", "DELETE", "/v1/revocations/{x}", "",
			func(ctx X, c C, x string) error {
				_, err := c.DeleteRevocation(ctx, &adminv1.DeleteRevocationRequest{Id: x})
				return err
			},
			"officer owner", freshRevocation, nil},
		{"ListClientSecrets", "GET", "/v1/client-secrets?service=target", "",
			func(ctx X, c C, _ string) error {
				_, err := c.ListClientSecrets(ctx, &adminv1.ListClientSecretsRequest{Service: "target"})
				return err
			},
			"viewer operator officer owner", nil, nil},
		{"DeleteClientSecret", "DELETE", "/v1/services/target/client-secrets/{x}", "",
			func(ctx X, c C, x string) error {
				_, err := c.DeleteClientSecret(ctx, &adminv1.DeleteClientSecretRequest{Service: "target", Id: x})
				return err
			},
			"officer owner", freshClientSecret, nil},
		{"ListAudit", "GET", "/v1/audit", "",
			func(ctx X, c C, _ string) error { _, err := c.ListAudit(ctx, &adminv1.ListAuditRequest{}); return err },
			"officer", nil, nil},
		{"RotateKEK", "POST", "/v1/kek/rotate", "",
			func(ctx X, c C, _ string) error { return drain(c.RotateKEK(ctx, &adminv1.RotateKEKRequest{})) },
			"officer", nil, nil},
		{"ListSigningKeys", "GET", "/v1/signing-keys", "",
			func(ctx X, c C, _ string) error {
				_, err := c.ListSigningKeys(ctx, &adminv1.ListSigningKeysRequest{})
				return err
			},
			"viewer operator officer", nil, nil},
		{"WatchSigningKeys", "GET", "/v1/signing-keys/watch", "",
			func(ctx X, c C, _ string) error {
				ctx, cancel := context.WithCancel(ctx)
				defer cancel()
				return firstOf(func() (grpc.ServerStreamingClient[adminv1.WatchSigningKeysResponse], error) {
					return c.WatchSigningKeys(ctx, &adminv1.WatchSigningKeysRequest{})
				})
			},
			"viewer operator officer", nil, nil},
		{"RotateSigningKey", "POST", "/v1/signing-keys/rotate", "",
			func(ctx X, c C, _ string) error {
				_, err := c.RotateSigningKey(ctx, &adminv1.RotateSigningKeyRequest{})
				return err
			},
			"officer", nil, nil},
		{"RevokeSigningKey", "POST", "/v1/signing-keys/revoke", `{"kid":"{x}"}`,
			func(ctx X, c C, x string) error {
				_, err := c.RevokeSigningKey(ctx, &adminv1.RevokeSigningKeyRequest{Kid: x})
				return err
			},
			"officer", freshSigningKey, nil},
		{"RevokeAdminToken", "DELETE", "/v1/admin-token", "",
			func(ctx X, c C, _ string) error {
				_, err := c.RevokeAdminToken(ctx, &adminv1.RevokeAdminTokenRequest{})
				return err
			},
			"officer", nil, newAdminToken},
		{"CreateAdminToken", "POST", "/v1/admin-token", "",
			func(ctx X, c C, _ string) error {
				_, err := c.CreateAdminToken(ctx, &adminv1.CreateAdminTokenRequest{})
				return err
			},
			"officer", nil, nil},
		{"GetSelf", "GET", "/v1/self", "",
			func(ctx X, c C, _ string) error { _, err := c.GetSelf(ctx, &adminv1.GetSelfRequest{}); return err },
			"viewer operator officer owner other norole", nil, nil},
		{"Diagnose", "GET", "/v1/diagnosis", "",
			func(ctx X, c C, _ string) error { _, err := c.Diagnose(ctx, &adminv1.DiagnoseRequest{}); return err },
			"viewer operator officer", nil, nil},

		{"Kong consumers", "GET", "/kong/consumers", "", nil, "viewer operator officer", nil, nil},
		{"Kong consumer", "POST", "/kong/consumers", `{"username":"{x}"}`, nil, "operator", named("consumer"), nil},
		{"Kong gone", "DELETE", "/kong/consumers/{x}", "", nil, "operator", freshConsumer, nil},
		{"Kong credentials", "GET", "/kong/jwts", "", nil, "viewer operator officer", nil, nil},
		{"Kong credential", "POST", "/kong/consumers/{x}/jwt", "{}", nil, "operator", freshConsumer, nil},
	}
}

func freshPolicy(t *testing.T, m *mesh) string {
	name := m.name("policy")
	return m.rootApplies(t, name, policyOf(name))
}

func freshConsumer(t *testing.T, m *mesh) string {
	name := m.name("consumer")
	return m.rootApplies(t, name, resource("Consumer", name, "username: "+name))
}

func (m *mesh) rootApplies(t *testing.T, name, yaml string) string {
	t.Helper()
	if _, err := m.root.Apply(t.Context(), meshtest.Documents(yaml)); err != nil {
		t.Fatal(meshtest.Explain(err))
	}
	return name
}

func freshJoinToken(t *testing.T, m *mesh) string {
	t.Helper()
	resp, err := m.root.CreateJoinToken(t.Context(), &adminv1.CreateJoinTokenRequest{Service: "target"})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetJoinToken().GetId()
}

// freshSigningKey is a key that can be revoked.
func freshSigningKey(t *testing.T, m *mesh) string {
	t.Helper()
	list, err := m.root.ListSigningKeys(t.Context(), &adminv1.ListSigningKeysRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return list.GetSigningKeys().GetActive()
}

func freshRevocation(t *testing.T, m *mesh) string {
	t.Helper()
	resp, err := m.root.Revoke(t.Context(), &adminv1.RevokeRequest{What: &adminv1.RevokeRequest_Token{Token: &adminv1.TokenToRevoke{Jti: "fresh"}}, Audiences: []string{"target"}})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetId()
}

func freshClientSecret(t *testing.T, m *mesh) string {
	t.Helper()
	_, err := m.root.CreateClientSecret(t.Context(), &adminv1.CreateClientSecretRequest{Service: "target"})
	if err != nil {
		t.Fatal(err)
	}
	list, err := m.root.ListClientSecrets(t.Context(), &adminv1.ListClientSecretsRequest{Service: "target"})
	if err != nil {
		t.Fatal(err)
	}
	return list.GetClientSecrets()[0].GetId()
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
