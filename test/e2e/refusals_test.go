package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// Whom a policy refuses, where, why and by which rule, is known to the control
// plane a moment later, and so is whom a policy that is only observed would
// refuse. What is let through is not, and a token never.
func TestRefusalsAreReported(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	idp, stranger := newIssuer(t, "https://idp.example", "ES256"), newIssuer(t, "https://idp.example", "ES256")
	m.Apply(t, m.service(t, "orders", "routes:", `- {name: items, paths: ["/items/*"]}`, `- {name: files, paths: ["/files/*"]}`)+
		idp.resource("idp")+resource("Service", "shop", "calls: [{service: orders}]")+
		authentication("files", "orders", "files", "STRICT", "{issuer: idp, audiences: [orders], fromParams: [jwt]}")+
		resource("AuthorizationPolicy", "no-delete", "target: {services: [orders]}", "action: DENY", "rules: [{to: {methods: [DELETE]}}]")+
		resource("AuthorizationPolicy", "no-put", "target: {services: [orders]}", "action: DENY", "enforcement: OBSERVE", "rules: [{to: {methods: [PUT]}}]"))
	m.startEnvoy(t, "orders")
	claims := meshtest.NewClaims(idp.iss, "ann", "orders")
	shop, good := m.Token(t, "shop", "orders"), idp.token(t, claims)
	expired, forged := idp.token(t, claims.With("exp", time.Now().Add(-time.Hour).Unix())), stranger.token(t, claims)
	for _, c := range []struct {
		call meshtest.Call
		want int
	}{
		{meshtest.Call{Path: "/items/7", Token: shop}, 200},
		{meshtest.Call{Path: "/files/a?jwt=" + good}, 200},
		{meshtest.Call{Method: "PUT", Path: "/items/7", Token: shop}, 200},
		{meshtest.Call{Method: "DELETE", Path: "/items/7?reason=private", Token: shop}, 403},
		{meshtest.Call{Method: "DELETE", Path: "/files/a?jwt=" + good}, 403},
		{meshtest.Call{Path: "/items/8"}, 401},
		{meshtest.Call{Path: "/files/b?jwt=" + expired}, 401},
		{meshtest.Call{Path: "/files/c?jwt=" + forged}, 401},
	} {
		wantStatus(t, "a call", c.call, m.send(t, "orders", c.call), c.want)
	}
	want := []string{
		"DELETE /files/a 403: files https://idp.example ann: consumer_denied no-delete/0 ENFORCED",
		"DELETE /items/7 403: items " + m.IssuerURL() + " spiffe://mesh.local/shop: consumer_denied no-delete/0 ENFORCED",
		"GET /files/b 401: files  : token_expired  ENFORCED",
		"GET /files/c 401: files  : key_unknown  ENFORCED",
		"GET /items/8 401: items  : token_missing  ENFORCED",
		"PUT /items/7 200: items " + m.IssuerURL() + " spiffe://mesh.local/shop: consumer_denied no-put/0 OBSERVED",
	}
	var got *adminv1.ListRefusalsResponse
	meshtest.Eventually(t, func() error {
		var err error
		got, err = m.Admin.ListRefusals(t.Context(), &adminv1.ListRefusalsRequest{Service: "orders", Sample: true})
		if err == nil && len(got.GetSample()) < len(want) {
			err = fmt.Errorf("the sample has %d refusals, want %d: %v", len(got.GetSample()), len(want), got)
		}
		return err
	})
	var sample []string
	for _, r := range got.GetSample() {
		sample = append(sample, fmt.Sprintf("%s %s %d: %s %s %s: %s %s %s", r.GetMethod(), r.GetPath(), r.GetStatus(), r.GetRoute(),
			r.GetCaller().GetIssuer(), r.GetCaller().GetSubject(), r.GetReason(), r.GetRule(), r.GetEnforcement()))
	}
	slices.Sort(sample)
	if diff := cmp.Diff(want, sample); diff != "" {
		t.Errorf("sample (-want +got):\n%s", diff)
	}
	if n := len(got.GetCounts()); n != len(want) {
		t.Errorf("%d counts, want one for each of the %d refusals: %v", n, len(want), got.GetCounts())
	}
	for _, token := range []string{shop, good, expired, forged} {
		if strings.Contains(got.String(), token[:20]) {
			t.Errorf("a token is kept: %v", got)
		}
	}
}
