package api

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/watchword-mesh/watchword/controlplane/access"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// mixed are data planes and refusals of the services a and b, and of none.
type mixed struct{ planes }

func (mixed) List(string) ([]*adminv1.DataPlane, int64) {
	return []*adminv1.DataPlane{{Node: "na", Service: "a"}, {Node: "nb", Service: "b"}}, 7
}

func (mixed) Progress(_ int64, _ []string, only bool) (*adminv1.WaitInSyncResponse, <-chan struct{}) {
	list, _ := mixed{}.List("")
	if only {
		return &adminv1.WaitInSyncResponse{Total: 1, Waiting: list[:1], Done: true}, nil
	}
	return &adminv1.WaitInSyncResponse{Total: 2, Waiting: list, Done: true}, nil
}

type mixedRefusals struct{}

func (mixedRefusals) List(string) *adminv1.ListRefusalsResponse {
	return &adminv1.ListRefusalsResponse{
		Counts: []*adminv1.RefusalCount{{Service: "a"}, {Service: "b"}, {Service: "(other)"}},
		Sample: []*adminv1.Refusal{{Service: "b"}, {Service: "a"}, {Service: "(other)"}},
	}
}

// servicesOf is the services of a list.
func servicesOf[T interface{ GetService() string }](list []T) string {
	var out []string
	for _, e := range list {
		out = append(out, e.GetService())
	}
	return strings.Join(out, " ")
}

// An owner gets of each list what is about his services, others get all.
func TestListsAreFiltered(t *testing.T) {
	s, _ := open(t, serviceYAML("a", "x"), serviceYAML("b", "x"))
	withBackend(s)
	s.DataPlanes, s.Refusals = &mixed{}, mixedRefusals{}
	for who, want := range map[string]string{"owner": "a", "viewer": "a b", "other": "b"} {
		ctx := by(who)
		refusals, err := s.ListRefusals(ctx, &adminv1.ListRefusalsRequest{Sample: true})
		if err != nil {
			t.Fatal(err)
		}
		lists := map[string]string{
			"counts": strings.TrimSuffix(servicesOf(refusals.GetCounts()), " (other)"),
			"sample": strings.TrimSuffix(servicesOf(refusals.GetSample()), " (other)"),
		}
		if lists["sample"] == "b a" {
			lists["sample"] = "a b"
		}
		planes, err1 := s.ListDataPlanes(ctx, &adminv1.ListDataPlanesRequest{})
		tokens, err2 := s.ListJoinTokens(ctx, &adminv1.ListJoinTokensRequest{})
		instances, err3 := s.ListInstances(ctx, &adminv1.ListInstancesRequest{})
		secrets, err4 := s.ListClientSecrets(ctx, &adminv1.ListClientSecretsRequest{})
		for _, err := range []error{err1, err2, err3, err4} {
			if err != nil {
				t.Fatal(err)
			}
		}
		lists["data planes"], lists["join tokens"] = servicesOf(planes.GetDataPlanes()), servicesOf(tokens.GetJoinTokens())
		lists["instances"], lists["client secrets"] = servicesOf(instances.GetInstances()), servicesOf(secrets.GetClientSecrets())
		for name, got := range lists {
			if got != want {
				t.Errorf("%s as %s sees them are of %q, want %q", name, who, got, want)
			}
		}
		resources, err := s.List(ctx, &adminv1.ListRequest{Kind: "service"})
		if err != nil || len(resources.GetItems()) != len(strings.Fields(want)) {
			t.Errorf("%s sees %d services, %v; want %s", who, len(resources.GetItems()), err, want)
		}
	}
	if refusals, err := s.ListRefusals(by("owner"), &adminv1.ListRefusalsRequest{}); err != nil || strings.Contains(servicesOf(refusals.GetCounts()), "other") {
		t.Errorf("an owner sees what was counted together: %v, %v", refusals, err)
	}
}

// What an owner may not see looks as if it was not there.
func TestHiddenLooksAbsent(t *testing.T) {
	s, _ := open(t, serviceYAML("a", "x"), serviceYAML("b", "x"))
	withBackend(s)
	_, err := s.List(by("owner"), &adminv1.ListRequest{Kind: "service", Name: "b"})
	wantError(t, err, codes.NotFound, `there is no Service "b"`)
	_, err = s.List(by("owner"), &adminv1.ListRequest{Kind: "issuer", Name: "watchword"})
	wantError(t, err, codes.NotFound, `there is no Issuer "watchword"`)
	for _, node := range []string{"n1", "odd", "nobody"} {
		_, err = s.GetDataPlaneConfig(by("other"), &adminv1.GetDataPlaneConfigRequest{Node: node})
		wantError(t, err, codes.NotFound, `no data plane "`+node+`" is connected`)
	}
}

// An owner waits for his own services, which he names, and is told of no other.
func TestOwnerWaits(t *testing.T) {
	s, _ := open(t, serviceYAML("a", "x"), serviceYAML("b", "x"))
	s.DataPlanes = &mixed{}
	for _, tt := range []struct {
		who      string
		services []string
		want     string
	}{
		{"owner", nil, "services is missing"},
		{"owner", []string{"a", "b"}, `SERVICE_OWNER of Service "b"`},
		{"norole", []string{"a"}, "needs the role"},
	} {
		err := s.WaitInSync(&adminv1.WaitInSyncRequest{Services: tt.services}, &sent{ctx: by(tt.who)})
		wantError(t, err, codes.PermissionDenied, tt.want)
	}
	for who, want := range map[string]string{"owner": "1: a", "viewer": "2: a b"} {
		stream := &reports{sent: sent{ctx: by(who)}}
		err := s.WaitInSync(&adminv1.WaitInSyncRequest{Services: []string{"a"}}, stream)
		if got := fmt.Sprintf("%d: %s", stream.last.GetTotal(), servicesOf(stream.last.GetWaiting())); err != nil || got != want {
			t.Errorf("%s waits and is told of %q, %v; want %q", who, got, err, want)
		}
	}
}

// reports keeps the last report.
type reports struct {
	sent
	last *adminv1.WaitInSyncResponse
}

func (r *reports) Send(resp *adminv1.WaitInSyncResponse) error {
	r.last = resp
	return nil
}

// Without a name nobody sees anything, whatever the roles say.
func TestNobodySeesNothing(t *testing.T) {
	s, _ := open(t, serviceYAML("a", "x"))
	ctx := access.With(t.Context(), access.Actor{Roles: access.AllRoles()})
	_, err := s.List(ctx, &adminv1.ListRequest{})
	wantError(t, err, codes.Unauthenticated, "")
	_, err = s.Apply(ctx, &adminv1.ApplyRequest{Documents: documents(ownPolicy)})
	wantError(t, err, codes.Unauthenticated, "")
}
