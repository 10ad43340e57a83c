package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/audit"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve returns the URL and a gRPC connection of a running admin API.
func serve(t *testing.T, s *Server) (string, *grpc.ClientConn) {
	t.Helper()
	handler, stop, err := s.Handler()
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewUnstartedServer(handler)
	h.Config.Protocols = new(http.Protocols)
	h.Config.Protocols.SetHTTP1(true)
	h.Config.Protocols.SetUnencryptedHTTP2(true)
	h.Start()
	conn, err := grpc.NewClient(h.Listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		http.DefaultClient.CloseIdleConnections()
		stop()
		h.Close()
	})
	return h.URL, conn
}

// as is a context with authorization headers.
func as(values ...string) context.Context {
	md := metadata.MD{}
	md.Append("authorization", values...)
	return metadata.NewOutgoingContext(context.Background(), md)
}

// Every call needs the token: unary, stream, and JSON; nothing else than the
// whole token once, as a bearer, will do. Who is refused learns the way out.
func TestAuthentication(t *testing.T) {
	for name, tt := range map[string]struct {
		values []string
		admit  bool
	}{
		"token":          {[]string{"Bearer " + adminToken}, true},
		"lower case":     {[]string{"bearer " + adminToken}, true},
		"none":           {nil, false},
		"empty":          {[]string{""}, false},
		"other token":    {[]string{"Bearer wwat_9999999999"}, false},
		"prefix":         {[]string{"Bearer " + adminToken[:5]}, false},
		"longer":         {[]string{"Bearer " + adminToken + "0"}, false},
		"basic":          {[]string{"Basic " + adminToken}, false},
		"bare":           {[]string{adminToken}, false},
		"twice":          {[]string{"Bearer " + adminToken, "Bearer " + adminToken}, false},
		"empty bearer":   {[]string{"Bearer "}, false},
		"two blanks":     {[]string{"Bearer  " + adminToken}, false},
		"other in front": {[]string{"Bearer x", "Bearer " + adminToken}, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, _ := open(t)
			s.DataPlanes = &planes{}
			url, conn := serve(t, s)
			client := adminv1.NewAdminServiceClient(conn)
			_, unary := client.List(as(tt.values...), &adminv1.ListRequest{})
			stream, err := client.WaitInSync(as(tt.values...), &adminv1.WaitInSyncRequest{Revision: 1})
			if err == nil {
				_, err = stream.Recv()
			}
			code, body := get(t, url+"/v1/resources", tt.values...)
			if tt.admit {
				if unary != nil || err != nil || code != http.StatusOK {
					t.Errorf("refused: unary %v, stream %v, JSON %d %s", unary, err, code, body)
				}
				return
			}
			wantError(t, unary, codes.Unauthenticated, "with the content of admin.token")
			wantError(t, err, codes.Unauthenticated, "with the content of admin.token")
			if code != http.StatusUnauthorized || !strings.Contains(body, "with the content of admin.token") || !strings.Contains(body, `"code":16`) {
				t.Errorf("JSON: %d %s, want 401 and the way out", code, body)
			}
		})
	}
}

// A Server that can't tell who calls refuses everybody, also who sends nothing; so
// does one that is told of nobody.
func TestNobodyIsRefused(t *testing.T) {
	s, _ := open(t)
	s = New(Config{Configuration: s.Configuration})
	_, conn := serve(t, s)
	for _, value := range []string{"Bearer ", "Bearer", ""} {
		_, err := adminv1.NewAdminServiceClient(conn).List(as(value), &adminv1.ListRequest{})
		wantError(t, err, codes.Unauthenticated, "")
	}
	s.Identify = func(*http.Request) (access.Actor, error) { return access.Actor{Roles: access.AllRoles()}, nil }
	_, err := adminv1.NewAdminServiceClient(conn).List(as(bearer), &adminv1.ListRequest{})
	wantError(t, err, codes.Unauthenticated, "")
}

// A refused call is logged, and handed on, without what was tried.
func TestRefusalIsLogged(t *testing.T) {
	s, _ := open(t)
	var log bytes.Buffer
	s.Logger = hclog.New(&hclog.LoggerOptions{Output: &log})
	var refused []audit.Entry
	s.Refused = func(e audit.Entry) { refused = append(refused, e) }
	url, conn := serve(t, s)
	_, err := adminv1.NewAdminServiceClient(conn).List(as("Bearer guess"), &adminv1.ListRequest{})
	wantError(t, err, codes.Unauthenticated, access.BadCredential.Error())
	get(t, url+"/v1/resources/guess", "Bearer guess")
	if got := log.String(); !strings.Contains(got, "method=List") || strings.Contains(got, "guess") {
		t.Errorf("logged %q", got)
	}
	want := []audit.Entry{
		{Source: "127.0.0.1", Method: "List", Outcome: audit.Refused, Reason: access.BadCredential.Error()},
		{Source: "127.0.0.1", Method: "JSON GET", Outcome: audit.Refused, Reason: access.BadCredential.Error()},
	}
	if diff := cmp.Diff(want, refused, cmpopts.IgnoreFields(audit.Entry{}, "Time")); diff != "" {
		t.Errorf("refused -want +got:\n%s", diff)
	}
}

func get(t *testing.T, url string, authorization ...string) (int, string) {
	t.Helper()
	return do(t, http.MethodGet, url, nil, authorization...)
}

func do(t *testing.T, method, url string, body io.Reader, authorization ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range authorization {
		req.Header.Add("Authorization", v)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("%s %s: Cache-Control %q, want no-store", method, url, got)
	}
	// protojson's white space differs from build to build.
	var v any
	if json.Unmarshal(text, &v) == nil {
		text, _ = json.Marshal(v)
	}
	return resp.StatusCode, string(text)
}

const bearer = "Bearer " + adminToken

// The JSON form of each kind of answer: paths, bodies of errors with all
// faults, and HTTP statuses.
func TestJSON(t *testing.T) {
	s, _ := open(t, serviceYAML("a", "x"))
	s.DataPlanes = &planes{}
	s.Issuer = &secrets{}
	url, _ := serve(t, s)
	applied := func(text string) string {
		b, err := json.Marshal(map[string]any{"documents": []map[string]string{{"source": "a.yaml", "content": text}}})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for _, tt := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"GET", "/v1/resources/service/a", "", 200, `{"items":[{"apiVersion":"watchword.dev/v1","kind":"Service","metadata":{"labels":{"team":"x"},"name":"a","revision":11,"uid":"uid-of-a"},"spec":{}}],"revision":"11"}`},
		{"GET", "/v1/resources/Pod", "", 400, `{"code":3,"details":[],"message":"unknown kind \"Pod\"; the kinds are Issuer, Consumer, Service, AuthenticationPolicy, AuthorizationPolicy and RoleBinding"}`},
		{"GET", "/v1/resources/Service/b", "", 404, `{"code":5,"details":[],"message":"there is no Service \"b\""}`},
		{"POST", "/v1/apply", applied(serviceYAML("b", "x")), 200, `"action":"CREATED"`},
		{"POST", "/v1/apply", applied("kind: X"), 400, `{"code":3,"details":[{"@type":"type.googleapis.com/watchword.admin.v1.Faults","faults":[{"field":"apiVersion","line":1,"message":"wants \"watchword.dev/v1\"","resource":"","source":"a.yaml"},{"field":"kind","line":1,`},
		{"POST", "/v1/apply", applied("apiVersion: watchword.dev/v1\nkind: Service\nmetadata: {name: a, revision: 3}\nspec: {}"), 400, `{"code":9,"details":[],"message":"Service/a: names revision 3, but it was changed at revision`},
		{"POST", "/v1/apply", "{", 400, `"code":3`},
		{"POST", "/v1/apply", `{"nonsense": 1}`, 400, `nonsense`},
		{"POST", "/v1/delete", `{"references":[{"kind":"Service","name":"b"}]}`, 200, `"action":"DELETED"`},
		{"GET", "/v1/dataplanes", "", 200, `"node":"n1"`},
		{"GET", "/v1/dataplane-configs/n1", "", 200, `"dataPlane":{`},
		{"GET", "/v1/dataplane-configs/a/b/c", "", 404, `no data plane \"a/b/c\" is connected`},
		{"GET", "/v1/revisions/7/wait", "", 200, `"done":true`},
		{"POST", "/v1/services/a/client-secrets", "", 200, `{"clientId":"a","clientSecret":"s3cret"}`},
		{"POST", "/v1/services/b/client-secrets", "", 404, `there is no Service \"b\"`},
		{"POST", "/v1/services/a/tokens", `{"audience":"b"}`, 200, `{"accessToken":"t","expiresIn":"300s","scope":""}`},
		{"POST", "/v1/services/a/tokens", `{"audience":"*"}`, 400, `invalid_target: no wildcards`},
		{"POST", "/v1/services/a/tokens", `{"audience":"down"}`, 503, `{"code":14`},
		{"GET", "/nowhere", "", 404, `"code":5`},
		{"PUT", "/v1/apply", "{}", 501, `"code":12`},
	} {
		code, body := do(t, tt.method, url+tt.path, strings.NewReader(tt.body), bearer)
		if code != tt.code || !strings.Contains(body, tt.want) {
			t.Errorf("%s %s %s: %d %s\nwant %d %s", tt.method, tt.path, tt.body, code, body, tt.code, tt.want)
		}
	}
}

// A request is bounded on both sides; nothing is stored of one that is too large.
func TestRequestLimit(t *testing.T) {
	s, m := open(t)
	url, conn := serve(t, s)
	large := strings.Repeat("#", maxRequestBytes)
	_, err := adminv1.NewAdminServiceClient(conn).Apply(as(bearer), &adminv1.ApplyRequest{Documents: documents(large)})
	wantError(t, err, codes.ResourceExhausted, "larger than max")
	code, body := do(t, http.MethodPost, url+"/v1/apply", strings.NewReader(`{"documents":[{"content":"`+large+`"}]}`), bearer)
	if code < 400 || code >= 500 {
		t.Errorf("JSON: %d %s, want a refusal that blames the request", code, body)
	}
	// One that just fits goes through.
	_, err = adminv1.NewAdminServiceClient(conn).Apply(as(bearer), &adminv1.ApplyRequest{Documents: documents(serviceYAML("a", "x") + large[:maxRequestBytes-1024])})
	if err != nil || m.commits != 1 {
		t.Errorf("a request below the limit: %v, %d commits", err, m.commits)
	}
}

// planes is a DataPlanes with one that is in sync.
type planes struct{}

func (p *planes) List(service string) ([]*adminv1.DataPlane, int64) {
	if service != "" && service != "a" {
		return nil, 7
	}
	return []*adminv1.DataPlane{{Node: "n1", Service: "a", InSync: true}}, 7
}

func (p *planes) Config(node string) (*adminv1.GetDataPlaneConfigResponse, error) {
	switch node {
	case "n1":
		return &adminv1.GetDataPlaneConfigResponse{DataPlane: &adminv1.DataPlane{Node: "n1", Service: "a"}}, nil
	case "odd":
		return nil, errors.New("showing a: unknown type")
	}
	return nil, ErrUnknown
}

func (p *planes) Progress(int64, []string, bool) (*adminv1.WaitInSyncResponse, <-chan struct{}) {
	return &adminv1.WaitInSyncResponse{Total: 1, InSync: 1, Done: true}, nil
}

func (p *planes) Receipt(int64, []string, bool) ([]*adminv1.Confirmed, []*adminv1.Wait) {
	return []*adminv1.Confirmed{{Node: "n1", Service: "a"}}, nil
}

// secrets is an Issuer that knows the service "a".
type secrets struct{}

func (secrets) CreateClientSecret(_ context.Context, service string, _ int64, _ audit.Entry) (string, string, error) {
	switch service {
	case "a":
		return "a", "s3cret", nil
	case "down":
		return "", "", errors.New("etcd did not answer")
	}
	return "", "", fmt.Errorf("looking: %w", ErrUnknown)
}

func (secrets) IssueToken(_ context.Context, req *adminv1.IssueTokenRequest, _ audit.Entry) (*adminv1.IssueTokenResponse, error) {
	switch req.GetAudience() {
	case "*":
		return nil, fmt.Errorf("issuing: %w", &Refusal{Code: "invalid_target", Description: "no wildcards"})
	case "down":
		return nil, errors.New("no signing key")
	}
	return &adminv1.IssueTokenResponse{AccessToken: "t", ExpiresIn: durationpb.New(5 * time.Minute)}, nil
}
