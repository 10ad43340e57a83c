package api

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/watchword-mesh/watchword/controlplane/access"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// Inside the pipe an actor is known by a handle that is his alone, given once, and
// good until his request ends.
func TestHandles(t *testing.T) {
	h := &handles{}
	a, doneA := h.give(access.Actor{Name: "a"})
	b, doneB := h.give(access.Actor{Name: "b"})
	defer doneB()
	who := func(values ...string) string {
		md := metadata.MD{}
		md.Append(handleKey, values...)
		return h.of(metadata.NewIncomingContext(context.Background(), md)).Name
	}
	if a == b || len(a) < 20 {
		t.Errorf("handles %q and %q can be guessed", a, b)
	}
	for _, tt := range []struct {
		values []string
		want   string
	}{{[]string{a}, "a"}, {[]string{b}, "b"}, {nil, ""}, {[]string{""}, ""}, {[]string{"x"}, ""}, {[]string{a, b}, ""}, {[]string{a, a}, ""}} {
		if got := who(tt.values...); got != tt.want {
			t.Errorf("the handles %q are of %q, want %q", tt.values, got, tt.want)
		}
	}
	doneA()
	if got := who(a); got != "" || len(h.actors) != 1 {
		t.Errorf("after its request a handle is of %q, and %d are kept; want nobody, and 1", got, len(h.actors))
	}
	if got := h.of(context.Background()).Name; got != "" {
		t.Errorf("without metadata the actor is %q", got)
	}
}

// What a caller writes into headers does not make him somebody else, on either
// side, and does not get in anybody's way.
func TestHandleFromOutside(t *testing.T) {
	s, _ := open(t, serviceYAML("a", "x"))
	withBackend(s)
	s.Identify = play
	url, conn := serve(t, s)
	handle, done := s.inside.give(access.Actor{Name: "unix:root", Roles: access.AllRoles()})
	defer done()
	client := adminv1.NewAdminServiceClient(conn)
	ctx := metadata.NewOutgoingContext(context.Background(), metadata.Pairs("authorization", "Bearer viewer", handleKey, handle))
	self, err := client.GetSelf(ctx, &adminv1.GetSelfRequest{})
	if err != nil || self.GetActor() != "unix:viewer" {
		t.Errorf("gRPC with the handle of another: %v, %v; want unix:viewer", self, err)
	}
	_, err = client.GetSelf(metadata.NewOutgoingContext(context.Background(), metadata.Pairs(handleKey, handle)), &adminv1.GetSelfRequest{})
	wantError(t, err, codes.Unauthenticated, "this call needs a credential")
	for _, name := range []string{handleKey, "Grpc-Metadata-" + handleKey} {
		req := httptest.NewRequest(http.MethodGet, url+"/v1/self", nil)
		req.RequestURI = ""
		req.Header.Set(name, handle)
		req.Header.Set("Authorization", "Bearer viewer")
		if code, body := send(t, req); code != 200 || !strings.Contains(body, `"unix:viewer"`) {
			t.Errorf("JSON with the header %s: %d %s; want unix:viewer", name, code, body)
		}
	}
}

func send(t *testing.T, req *http.Request) (int, string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// untouched is a body that must not be read.
type untouched struct{ read bool }

func (u *untouched) Read([]byte) (int, error) { u.read = true; return 0, io.EOF }
func (u *untouched) Close() error             { return nil }

// Where the call alone decides, nothing of the body is read of who may not make
// it: not of strangers, and not of who has another role.
func TestRefusedBodyIsNotRead(t *testing.T) {
	s, _ := open(t, serviceYAML("a", "x"))
	withBackend(s)
	s.Identify = play
	handler, stop, err := s.Handler()
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	for _, tt := range []struct {
		token, path, contentType string
		grpc                     bool
		want                     string
	}{
		{"", "/v1/apply", "application/json", false, "401"},
		{"guess", "/v1/apply", "application/json", false, "401"},
		{"viewer", "/v1/apply", "application/json", false, "403"},
		{"viewer", "/v1/services/a/revoke-instances", "application/json", false, "403"},
		{"viewer", "/v1/apply", "application/x-www-form-urlencoded", false, "403"},
		{"", adminv1.AdminService_Apply_FullMethodName, "application/grpc", true, "16"},
		{"viewer", adminv1.AdminService_Apply_FullMethodName, "application/grpc", true, "7"},
		{"operator", adminv1.AdminService_RevokeInstances_FullMethodName, "application/grpc+proto", true, "7"},
	} {
		body := &untouched{}
		req := httptest.NewRequest(http.MethodPost, tt.path, body)
		req.Header.Set("Content-Type", tt.contentType)
		if tt.token != "" {
			req.Header.Set("Authorization", "Bearer "+tt.token)
		}
		if tt.grpc {
			req.ProtoMajor = 2
		}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, req)
		got := http.StatusText(w.Code) + w.Header().Get("Grpc-Status")
		if !strings.HasPrefix(got, map[string]string{"401": "Unauthorized", "403": "Forbidden", "16": "OK16", "7": "OK7"}[tt.want]) || body.read {
			t.Errorf("%s by %q: %s, body read: %v; want %s, unread", tt.path, tt.token, got, body.read, tt.want)
		}
	}
}

// A browser that has a credential of its own, such as a client certificate, can't be
// made to use it by a page of another site; nor does a form stand for another method.
func TestOtherSites(t *testing.T) {
	s, m := open(t, serviceYAML("a", "x"))
	b := withBackend(s)
	s.Identify = play
	refused := recorded(s)
	url, _ := serve(t, s)
	post := func(path string, headers ...string) int {
		req := httptest.NewRequest(http.MethodPost, url+path, strings.NewReader(""))
		req.RequestURI = ""
		req.Header.Set("Authorization", "Bearer officer")
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		code, _ := send(t, req)
		return code
	}
	for _, h := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.test"}} {
		if code := post("/v1/kek/rotate", h...); code != http.StatusForbidden {
			t.Errorf("with %v: %d, want 403", h, code)
		}
	}
	if len(b.entries) > 0 || len(refused()) != 3 {
		t.Errorf("%v were done, and %v handed on as refused; want none, and three", b.entries, refused())
	}
	for _, h := range [][]string{nil, {"Sec-Fetch-Site", "same-origin"}, {"Sec-Fetch-Site", "none"}} {
		if code := post("/v1/kek/rotate", h...); code != http.StatusOK {
			t.Errorf("with %v: %d, want 200", h, code)
		}
	}
	form := []string{"Content-Type", "application/x-www-form-urlencoded"}
	if code := post("/v1/admin-token", append(form, "X-HTTP-Method-Override", "DELETE")...); code != http.StatusOK || b.entries[len(b.entries)-1].Method != "CreateAdminToken" {
		t.Errorf("a POST that says it is a DELETE: %d, %+v; want it taken for what it is", code, b.entries)
	}
	if code := post("/v1/audit", form...); code != http.StatusNotImplemented || m.commits > 0 {
		t.Errorf("a form for what is only read: %d, want 501", code)
	}
}
