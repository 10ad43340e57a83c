package api

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/kong"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// kongOf is Kong's admin API over a Server, for one actor.
func kongOf(s *Server, roles ...policyv1.RoleBindingSpec_Role) func(method, target, form string) (int, string) {
	actor := access.Actor{Name: "token:corp/alice"}
	for _, r := range roles {
		actor.Roles = append(actor.Roles, access.Role{Role: r})
	}
	h := kong.New(kong.Config{
		Resources: struct {
			Configuration
			*Server
		}{s.Configuration, s},
		MayRead:        func(ctx context.Context) bool { return access.From(ctx).SeesAll() },
		MayReadSecrets: func(ctx context.Context) bool { return access.From(ctx).MayReadSecrets() },
		Refused:        s.NoteRefused,
		NewUID:         s.NewUID, NewSecret: s.NewSecret, Now: time.Now,
	})
	return func(method, target, form string) (int, string) {
		r := httptest.NewRequest(method, target, strings.NewReader(form))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(access.With(r.Context(), actor)))
		return w.Code, w.Body.String()
	}
}

// A call of Kong's API needs the roles that Apply needs, and is stored, checked
// and refused as by Apply.
func TestKong(t *testing.T) {
	s, m := open(t)
	viewer, operator, officer, owner := kongOf(s, access.Viewer), kongOf(s, access.Operator), kongOf(s, access.SecurityOfficer), kongOf(s, access.ServiceOwner)
	for _, tt := range []struct {
		as           func(method, target, form string) (int, string)
		call, form   string
		code         int
		want, wanted string
	}{
		{viewer, "POST /consumers", "username=bob", 403, "OPERATOR", ""},
		{operator, "POST /consumers", "username=bob", 201, `"username":"bob"`, ""},
		{operator, "POST /consumers/bob/jwt", "key=k", 201, `"secret":"`, ""},
		{viewer, "GET /jwts/k", "", 200, `"key":"k"`, "no secret"},
		{officer, "GET /jwts/k", "", 200, `"secret":"`, ""},
		{owner, "GET /jwts/k", "", 403, "VIEWER", "no secret"},
		{operator, "POST /consumers/bob/jwt", "secret=short", 400, `"secret":"secret k of 5 bytes is too short`, ""},
		{operator, "PUT /consumers/bob/jwt/k", "tags=t", 200, `"tags":["t"]`, "no secret"},
		{viewer, "DELETE /consumers/bob", "", 403, "OPERATOR", ""},
		{operator, "DELETE /consumers/bob", "", 204, "", ""},
		{operator, "DELETE /consumers/bob", "", 204, "", ""},
	} {
		method, target, _ := strings.Cut(tt.call, " ")
		code, body := tt.as(method, target, tt.form)
		if code != tt.code || !strings.Contains(body, tt.want) || (tt.wanted != "" && strings.Contains(body, `"secret":`)) {
			t.Errorf("%s %s: %d %s; want %d with %s", tt.call, tt.form, code, body, tt.code, tt.want)
		}
	}
	if m.state.Consumer("bob") != nil {
		t.Error("bob is still there")
	}
}

// What another writer makes at the same time is not overwritten.
func TestKongCreatesOnly(t *testing.T) {
	s, m := open(t)
	others := resources(t, "{apiVersion: watchword.dev/v1, kind: Consumer, metadata: {name: bob}, spec: {username: robert}}\n")
	m.meanwhile = func() []*policyv1.Resource { o := others; others = nil; return o }
	code, body := kongOf(s, access.Operator)(http.MethodPost, "/consumers", "username=bob")
	if got := m.state.Consumer("bob").GetUsername(); got != "robert" || code != 201 {
		t.Errorf("%d %s, and bob is %s; want 201, and robert", code, body, got)
	}
	if names := fmt.Sprint(m.state.Keys()); !strings.Contains(names, "Consumer/bob-") {
		t.Errorf("stored are %s, want another name for bob", names)
	}
}

// Who may not see consumers is refused in the audit too, once for each attempt, with
// nothing of the path.
func TestKongRefusalsAreNoted(t *testing.T) {
	s, _ := open(t)
	refused := recorded(s)
	owner, viewer := kongOf(s, access.ServiceOwner), kongOf(s, access.Viewer)
	want := []string{}
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"} {
		if code, _ := owner(method, "/jwts/a-secret-key", "username=bob"); code != http.StatusForbidden {
			t.Errorf("%s by an owner: %d, want 403", method, code)
		}
		want = append(want, strings.TrimSuffix("kong "+method, " BREW"))
	}
	if code, _ := viewer("POST", "/consumers", "username=bob"); code != http.StatusForbidden {
		t.Errorf("POST by a viewer: %d, want 403", code)
	}
	var got []string
	for _, e := range refused() {
		got = append(got, e.Method)
		if e.Actor != "token:corp/alice" || e.Outcome != audit.Refused || e.Reason == "" || strings.Contains(fmt.Sprint(e), "secret") {
			t.Errorf("handed on %+v", e)
		}
	}
	if diff := cmp.Diff(append(want, "kong POST /consumers"), got); diff != "" {
		t.Errorf("handed on -want +got:\n%s", diff)
	}
}
