package e2e

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// What is explained is what Envoy does, for the same reason and with the same
// answer; and neither the answer nor the log has the token.
func TestExplainIsWhatEnvoyDoes(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	m.Apply(t, m.service(t, "orders", `routes: [{name: items, paths: ["/items/*"]}]`)+
		resource("Service", "shop", "calls: [{service: orders}, {service: other}]")+
		resource("Service", "other", "{}")+
		resource("AuthorizationPolicy", "no-delete", "target: {services: [orders], routes: [items]}", "action: DENY", "rules: [{to: {methods: [DELETE]}}]"))
	m.startEnvoy(t, "orders")
	good, other := m.Token(t, "shop", "orders"), m.Token(t, "shop", "other")
	for _, call := range []meshtest.Call{
		{Path: "/items/7", Token: good},
		{Method: "DELETE", Path: "/items/7", Token: good},
		{Path: "/items/7", Token: other},
		{Path: "/items/7", Token: good[:len(good)-9] + "AAAAAAAAA"},
		{Path: "/items/7", Token: "no-token-at-all"},
		{Path: "/"},
		{Path: "/items/%252e%252e/x", Token: good}, // which stays as it is on the way to the filters
	} {
		said, err := m.Admin.Explain(t.Context(), &adminv1.ExplainRequest{Service: "orders", Method: call.Method, Path: call.Path, Token: call.Token})
		if err != nil {
			t.Fatalf("Explain(%s): %v", call, err)
		}
		did := m.send(t, "orders", call)
		want, got := fmt.Sprint(did.Status, " ", did.Header.Get("x-watchword-reason"), " ", did.Header.Get("www-authenticate")), "200  "
		if f := said.GetRefusal(); f != nil {
			headers := map[string]string{}
			for _, h := range f.GetHeaders() {
				headers[h.GetName()] = h.GetValue()
			}
			got = fmt.Sprint(f.GetStatus(), " ", said.GetReason(), " ", headers["www-authenticate"])
		}
		text := protojson.Format(said)
		if got != want {
			t.Errorf("%s: explained as %q, Envoy says %q\n%s", call, got, want, text)
		}
		if p := said.GetDataPlanes(); len(p) != 1 || !p[0].GetInSync() || p[0].GetRevision() != said.GetRevision() {
			t.Errorf("%s: data planes %v, want one in sync at revision %d", call, p, said.GetRevision())
		}
		if call.Token != "" && strings.Contains(text, call.Token) {
			t.Errorf("%s: the token is shown:\n%s", call, text)
		}
	}
}
