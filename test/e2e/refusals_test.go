package e2e

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// Whom a policy refuses, where and by which rule, is known to the control plane
// a moment later; what is let through is not.
func TestRefusalsAreReported(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, m.service(t, "orders", `routes: [{name: items, paths: ["/items/*"]}]`)+
		resource("Service", "shop", "calls: [{service: orders}]")+
		resource("AuthorizationPolicy", "no-delete", "target: {services: [orders]}", "action: DENY", "rules: [{to: {methods: [DELETE]}}]"))
	m.startEnvoy(t, "orders")
	token := m.Token(t, "shop", "orders")
	for _, c := range []struct {
		call meshtest.Call
		want int
	}{
		{meshtest.Call{Path: "/items/7", Token: token}, 200},
		{meshtest.Call{Method: "DELETE", Path: "/items/7?reason=private", Token: token}, 403},
		{meshtest.Call{Method: "DELETE", Path: "/items/8", Token: token}, 403},
	} {
		wantStatus(t, "a call of shop", c.call, m.send(t, "orders", c.call), c.want)
	}
	var got *adminv1.ListRefusalsResponse
	meshtest.Eventually(t, func() error {
		var err error
		got, err = m.Admin.ListRefusals(t.Context(), &adminv1.ListRefusalsRequest{Service: "orders", Sample: true})
		if err == nil && len(got.GetSample()) < 2 {
			err = fmt.Errorf("the sample has %d refusals, want 2: %v", len(got.GetSample()), got)
		}
		return err
	})
	const caller = "spiffe://mesh.local/shop"
	var lines []string
	for _, c := range got.GetCounts() {
		lines = append(lines, fmt.Sprint(c.GetCaller().GetSubject(), " ", c.GetReason(), " ", c.GetEnforcement(), " ", c.GetCount()))
	}
	for _, r := range got.GetSample() { // the newest first
		lines = append(lines, fmt.Sprint(r.GetNode(), " ", r.GetRoute(), " ", r.GetMethod(), " ", r.GetPath(), " ", r.GetCaller().GetSubject(), " ", r.GetRule()))
	}
	want := []string{
		caller + " consumer_denied ENFORCED 2",
		"orders items DELETE /items/8 " + caller + " no-delete/0",
		"orders items DELETE /items/7 " + caller + " no-delete/0",
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("refusals (-want +got):\n%s", diff)
	}
}
