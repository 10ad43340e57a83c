package api

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// fresh are resources as another API makes them: without what a store gives.
func fresh(t *testing.T, text string, revision int64) []*policyv1.Resource {
	t.Helper()
	list := resources(t, text)
	for _, r := range list {
		r.Metadata.Uid, r.Metadata.Revision = "", revision
	}
	return list
}

// Change is Apply and Delete in one, for another API: checked, permitted, audited
// and tried again alike.
func TestChange(t *testing.T) {
	a, gone := policy.Key{Kind: policy.KindService, Name: "a"}, policy.Key{Kind: policy.KindService, Name: "gone"}
	for name, tt := range map[string]struct {
		who      string
		put      string
		revision int64
		remove   []policy.Key
		code     codes.Code
		want     string
	}{
		"both":             {"operator", serviceYAML("a", "y"), 11, []policy.Key{gone}, codes.OK, "UPDATED Service/a\nDELETED Service/gone"},
		"new":              {"operator", serviceYAML("b", "y"), 0, nil, codes.OK, "CREATED Service/b"},
		"is there":         {"operator", serviceYAML("a", "y"), 0, nil, codes.FailedPrecondition, "Service/a is there already: name its revision to change it"},
		"stored revision":  {"operator", serviceYAML("a", "y"), 11, nil, codes.OK, "UPDATED Service/a"},
		"other revision":   {"operator", serviceYAML("a", "y"), 7, nil, codes.FailedPrecondition, "Service/a: names revision 7, but it was changed at revision 11"},
		"fault":            {"operator", serviceYAML("a", "y", "nobody"), 11, nil, codes.InvalidArgument, `nothing was changed: Service/a: spec.calls[0].service: there is no Service "nobody"`},
		"not there":        {"operator", "", 0, []policy.Key{{Kind: policy.KindService, Name: "x"}}, codes.NotFound, `there is no Service "x"`},
		"given twice":      {"operator", join(serviceYAML("b", "y"), serviceYAML("b", "x")), 0, nil, codes.InvalidArgument, "Service/b is given twice"},
		"put and removed":  {"operator", serviceYAML("a", "y"), 0, []policy.Key{a}, codes.InvalidArgument, "Service/a is given twice"},
		"removed twice":    {"operator", "", 0, []policy.Key{a, a}, codes.InvalidArgument, "Service/a is given twice"},
		"by a viewer":      {"viewer", serviceYAML("a", "y"), 0, nil, codes.PermissionDenied, "needs the role OPERATOR or SECURITY_OFFICER"},
		"by an officer":    {"officer", serviceYAML("a", "y"), 11, nil, codes.PermissionDenied, "nothing was changed: Service/a: needs the role OPERATOR"},
		"owner, own":       {"owner", ownPolicy, 0, nil, codes.OK, "CREATED AuthorizationPolicy/p"},
		"owner, other":     {"other", ownPolicy, 0, nil, codes.PermissionDenied, "AuthorizationPolicy/p: needs the role OPERATOR"},
		"unchanged":        {"operator", serviceYAML("a", "x"), 11, nil, codes.OK, "UNCHANGED Service/a"},
		"unchanged by one": {"norole", serviceYAML("a", "x"), 0, nil, codes.PermissionDenied, "needs the role"},
	} {
		s, m := open(t, serviceYAML("a", "x"), serviceYAML("gone", "x"))
		refused := recorded(s)
		var put []*policyv1.Resource
		if tt.put != "" {
			objects, faults := policy.Parse([]policy.Document{{Content: tt.put}})
			for _, o := range objects {
				o.Resource.Metadata.Revision = tt.revision
				put = append(put, o.Resource)
			}
			if name != "given twice" && len(faults) > 0 {
				t.Fatal(faults)
			}
		}
		resp, err := s.Change(by(tt.who), "kong PUT /x", put, tt.remove)
		if tt.code == codes.OK {
			if err != nil || actions(resp.GetChanges()) != tt.want {
				t.Errorf("%s: %q, %v; want %q", name, actions(resp.GetChanges()), err, tt.want)
			}
			if name != "unchanged" && (len(m.audits) != 1 || m.audits[0].Method != "kong PUT /x" || m.audits[0].Actor != "unix:"+tt.who) {
				t.Errorf("%s: audited as %+v", name, m.audits)
			}
			continue
		}
		wantError(t, err, tt.code, tt.want)
		if m.commits != 0 {
			t.Errorf("%s: something was stored", name)
		}
		if got := refused(); (tt.code == codes.PermissionDenied) != (len(got) == 1) || len(got) == 1 && got[0].Method != "kong PUT /x" {
			t.Errorf("%s: handed on as refused: %+v", name, got)
		}
	}
}

// A conflict with another writer is tried again, as for Apply.
func TestChangeRetries(t *testing.T) {
	s, m := open(t)
	others := [][]*policyv1.Resource{resources(t, serviceYAML("other", "x")), nil}
	m.meanwhile = func() []*policyv1.Resource { o := others[0]; others = others[1:]; return o }
	resp, err := s.Change(root(), "kong", fresh(t, serviceYAML("a", "x"), 0), nil)
	if err != nil || resp.GetRevision() != 13 || m.commits != 2 {
		t.Errorf("Change = %v, %v after %d commits; want revision 13 after 2", resp, err, m.commits)
	}
}

// Who loses a role while a write goes on has lost it for the write.
func TestRoleTakenAwayMeanwhile(t *testing.T) {
	binding := func(who string) string {
		return fmt.Sprintf("apiVersion: watchword.dev/v1\nkind: RoleBinding\nmetadata: {name: b}\nspec: {role: OPERATOR, subjects: [{unixUser: %s}]}\n", who)
	}
	s, m := open(t, binding("alice"))
	state, _ := m.Current()
	alice, err := access.Resolve(state, access.Evidence{Unix: access.UnixPeer("alice", 1001, 1000)})
	if err != nil {
		t.Fatal(err)
	}
	ctx := access.With(context.Background(), alice)
	if _, err := applyBy(ctx, s, serviceYAML("a", "x")); err != nil {
		t.Fatal(err)
	}
	others := [][]*policyv1.Resource{resources(t, binding("bob")), nil}
	m.meanwhile = func() []*policyv1.Resource { o := others[0]; others = others[1:]; return o }
	_, err = applyBy(ctx, s, serviceYAML("b", "x"))
	wantError(t, err, codes.PermissionDenied, "Service/b: needs the role OPERATOR")
	if m.state.Service("b") != nil {
		t.Error("it was stored all the same")
	}
	_, err = s.CreateJoinToken(ctx, &adminv1.CreateJoinTokenRequest{Service: "a"})
	wantError(t, err, codes.PermissionDenied, "needs the role OPERATOR")
}

func applyBy(ctx context.Context, s *Server, text string) (*adminv1.ApplyResponse, error) {
	return s.Apply(ctx, &adminv1.ApplyRequest{Documents: documents(text)})
}
