package e2e

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// revoke returns when the data planes of the services that the answer names have it.
func (m *mesh) revoke(t *testing.T, req *adminv1.RevokeRequest) *adminv1.RevokeResponse {
	t.Helper()
	resp, err := m.Admin.Revoke(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	m.waitFor(t, resp.GetRevision(), resp.GetServices())
	return resp
}

func (m *mesh) waitFor(t *testing.T, revision int64, services []string) {
	t.Helper()
	stream, err := m.Admin.WaitInSync(t.Context(), &adminv1.WaitInSyncRequest{Revision: revision, Services: services, Timeout: durationpb.New(meshtest.Patience)})
	for err == nil {
		var resp *adminv1.WaitInSyncResponse
		if resp, err = stream.Recv(); resp.GetDone() {
			return
		}
	}
	t.Fatalf("waiting for revision %d: %v", revision, err)
}

// claim is one of a token.
func claim(t *testing.T, token, name string) string {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	var claims map[string]any
	if err == nil {
		err = json.Unmarshal(payload, &claims)
	}
	value, _ := claims[name].(string)
	if err != nil || value == "" {
		t.Fatalf("the token has no %s: %v, %v", name, claims, err)
	}
	return value
}

func ofToken(what *adminv1.TokenToRevoke) *adminv1.RevokeRequest {
	return &adminv1.RevokeRequest{What: &adminv1.RevokeRequest_Token{Token: what}}
}

func ofSubject(subject, issuer string) *adminv1.RevokeRequest {
	return &adminv1.RevokeRequest{What: &adminv1.RevokeRequest_Subject{Subject: &adminv1.SubjectToRevoke{Subject: subject, Issuer: issuer}}}
}

// A revocation is in force at the next request on every connection of an Envoy that was
// open all the time, whatever its protocol and worker; it refuses what it is about and
// nothing else; and what is taken back is accepted again.
func TestRevocationOnOpenConnections(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	idp := newIssuer(t, "https://idp.example", "ES256")
	m.Apply(t, m.service(t, "orders")+resource("Service", "shop", "calls: [{service: orders}]")+resource("Service", "reports", "{dataPlanes: [GO], calls: [{service: orders}]}")+
		resource("Service", "stranger", "calls: [{service: orders}]")+idp.resource("idp")+
		authentication("orders", "orders", "", "STRICT", "{issuer: watchword}", "{issuer: idp, audiences: [orders]}"))
	e := m.startEnvoy(t, "orders")
	shop, again, stranger := m.Token(t, "shop", "orders"), m.Token(t, "shop", "orders"), m.Token(t, "stranger", "orders")
	reports := m.OpenDataPlane(t, "reports")
	got, err := reports.Token(t.Context(), "orders")
	if err != nil {
		t.Fatal(err)
	}
	byInstance := got.Value
	ann, bert := idp.token(t, meshtest.NewClaims(idp.iss, "ann", "orders")), idp.token(t, meshtest.NewClaims(idp.iss, "bert", "orders"))
	tokens := map[string]string{"shop": shop, "shop again": again, "stranger": stranger, "an instance of reports": byInstance, "ann": ann, "bert": bert}
	conns := openConns(t, m, e, meshtest.Call{Path: "/x", Token: shop})
	listeners := listenerChanges(t, e)
	gone := map[string]bool{}
	check := func(what string) {
		t.Helper()
		for j, c := range conns {
			for who, token := range tokens {
				call, want := meshtest.Call{Path: "/x", Token: token}, 200
				if gone[who] {
					want = 401
				}
				got := c.Do(t, call)
				wantStatus(t, what+", "+who+", connection "+string(c.Protocol)+" "+string(rune('a'+j%26)), call, got, want)
				if gone[who] && !strings.Contains(got.Body, `"revoked"`) {
					t.Errorf("%s, %s: the body is %q, want the reason", what, who, got.Body)
				}
			}
		}
	}
	check("before")
	var ids []string
	for _, step := range []struct {
		what string
		req  *adminv1.RevokeRequest
		gone []string
	}{
		{"a jti", ofToken(&adminv1.TokenToRevoke{Jti: claim(t, shop, "jti")}), []string{"shop"}},
		{"a whole token", ofToken(&adminv1.TokenToRevoke{Token: again}), []string{"shop again"}},
		{"an instance", &adminv1.RevokeRequest{What: &adminv1.RevokeRequest_Instance{Instance: &adminv1.InstanceToRevoke{Service: "reports", Instance: claim(t, byInstance, "instance")}}}, []string{"an instance of reports"}},
		{"a service", ofSubject("stranger", ""), []string{"stranger"}},
		{"a subject of another issuer", ofSubject("ann", "idp"), []string{"ann"}},
		{"a subject that is no longer wanted by another service", &adminv1.RevokeRequest{What: ofSubject("bert", "idp").What, Audiences: []string{"shop"}}, nil},
		{"what the other issuer has issued", &adminv1.RevokeRequest{What: &adminv1.RevokeRequest_IssuedBefore{IssuedBefore: &adminv1.IssuedBefore{Issuer: "idp"}}}, []string{"bert"}},
	} {
		resp := m.revoke(t, step.req)
		ids = append(ids, resp.GetId())
		for _, who := range step.gone {
			gone[who] = true
		}
		check("after " + step.what)
		twice, err := m.Admin.Revoke(t.Context(), step.req)
		if err != nil || twice.GetId() != resp.GetId() {
			t.Errorf("%s, revoked twice: %v, %v; want the same %s", step.what, twice, err, resp.GetId())
		}
	}
	for _, id := range ids {
		resp, err := m.Admin.DeleteRevocation(t.Context(), &adminv1.DeleteRevocationRequest{Id: id})
		if err != nil {
			t.Fatal(err)
		}
		m.waitFor(t, resp.GetRevision(), resp.GetServices())
	}
	gone = map[string]bool{}
	check("taken back")
	if after := listenerChanges(t, e); len(after) != len(listeners) {
		t.Errorf("listeners changed: %v, then %v", listeners, after)
	}
	junk := ofToken(&adminv1.TokenToRevoke{Token: flip(shop)})
	if _, err := m.Admin.Revoke(t.Context(), junk); status.Code(err) != codes.InvalidArgument || strings.Contains(err.Error(), shop[:20]) {
		t.Errorf("a token that nobody has signed: %v, want InvalidArgument without the token", err)
	}
}

// A client gives up its own token, and nobody else's (RFC 7009).
func TestClientRevokes(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, shopAndOrders(t, m)+resource("Service", "stranger", "calls: [{service: orders}]"))
	m.startEnvoy(t, "orders")
	shop, foreign := m.Token(t, "shop", "orders"), m.Token(t, "stranger", "orders")
	id, secret := m.ClientSecret(t, "shop")
	post := func(token string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "POST", m.IssuerURL()+"/revoke", strings.NewReader(url.Values{"token": {token}, "token_type_hint": {"access_token"}}.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth(id, secret)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, err := m.HTTP(t).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode
	}
	for name, tt := range map[string]struct {
		token string
		want  int
	}{
		"no token of ours": {"abc", 200}, "a changed one": {flip(shop), 200}, "that of another": {foreign, 400}, "none": {"", 400},
	} {
		if got := post(tt.token); got != tt.want {
			t.Errorf("%s: %d, want %d", name, got, tt.want)
		}
	}
	for _, token := range []string{shop, foreign} {
		call := meshtest.Call{Path: "/x", Token: token}
		wantStatus(t, "before", call, m.send(t, "orders", call), 200)
	}
	if got := post(shop); got != 200 {
		t.Fatalf("its own token: %d, want 200", got)
	}
	call := meshtest.Call{Path: "/x", Token: shop}
	meshtest.Eventually(t, func() error { return statusIs(m.send(t, "orders", call), 401) })
	call.Token = foreign
	wantStatus(t, "that of another", call, m.send(t, "orders", call), 200)
	list, err := m.Admin.ListRevocations(t.Context(), &adminv1.ListRevocationsRequest{Service: "orders"})
	if err != nil || len(list.GetRevocations()) != 1 || list.GetRevocations()[0].GetActor() != "service:shop" {
		t.Errorf("the list is %v, %v; want one, by service:shop", list, err)
	}
}

// A WebSocket and a stream of gRPC that are open behind a sidecar end with the
// revocation of their token, though no policy says endStreams; those of others go on.
func TestRevokedTokenEndsStreams(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	inbound, program := meshtest.FreeAddress(t), newProgram(t)
	m.Apply(t, resource("Service", "orders", "dataPlanes: [GO]", "inbound: {port: "+portOf(inbound)+", localAddress: \""+program.address+"\"}")+
		resource("Service", "shop", "calls: [{service: orders}]")+resource("Service", "stranger", "calls: [{service: orders}]"))
	m.startSidecar(t, "orders")
	shop, stranger := m.Token(t, "shop", "orders"), m.Token(t, "stranger", "orders")
	socket := func(token string) (net.Conn, *bufio.Reader) {
		t.Helper()
		conn, err := net.Dial("tcp", inbound)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(meshtest.Patience))
		_, _ = io.WriteString(conn, "GET /ws HTTP/1.1\r\nHost: orders\r\nAuthorization: Bearer "+token+"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		br := bufio.NewReader(conn)
		res, err := http.ReadResponse(br, nil)
		if err != nil || res.StatusCode != 101 {
			t.Fatalf("the upgrade: %v, %v, want 101", res, err)
		}
		return conn, br
	}
	echoes := func(conn net.Conn, br *bufio.Reader) error {
		_, _ = io.WriteString(conn, "hello")
		got := make([]byte, 5)
		_, err := io.ReadFull(br, got)
		return err
	}
	conn, err := grpc.NewClient("passthrough:///"+inbound, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("orders"), grpc.WithNoProxy())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	stream := func(token string) testpb.TestService_FullDuplexCallClient {
		t.Helper()
		s, err := testpb.NewTestServiceClient(conn).FullDuplexCall(metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	talks := func(s testpb.TestService_FullDuplexCallClient) error {
		_ = s.Send(&testpb.StreamingOutputCallRequest{})
		_, err := s.Recv()
		return err
	}
	ws, wsRead := socket(shop)
	others, othersRead := socket(stranger)
	calls, othersCalls := stream(shop), stream(stranger)
	for i, err := range []error{echoes(ws, wsRead), echoes(others, othersRead), talks(calls), talks(othersCalls)} {
		if err != nil {
			t.Fatalf("stream %d before the revocation: %v", i, err)
		}
	}
	m.revoke(t, ofToken(&adminv1.TokenToRevoke{Jti: claim(t, shop, "jti")}))
	if n, err := wsRead.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Errorf("the WebSocket of a token that is revoked: %d bytes, %v; want its end", n, err)
	}
	if _, err := calls.Recv(); err == nil {
		t.Error("the stream of a token that is revoked goes on")
	}
	if err := echoes(others, othersRead); err != nil {
		t.Errorf("the WebSocket of another: %v", err)
	}
	if err := talks(othersCalls); err != nil {
		t.Errorf("the stream of another: %v", err)
	}
}
