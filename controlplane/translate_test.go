package controlplane

import (
	"strings"
	"testing"

	"github.com/watchword-mesh/watchword/controlplane/compile"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/internal/jose"
)

// A service whose data planes are all Go may ask for what Envoy can't do: there
// is nothing for an Envoy then, which refuses everything, but the two messages that
// Go data planes get. One with an Envoy may
// not: the policy is refused where it is written, and if it were not, here.
func TestWithoutEnvoy(t *testing.T) {
	const mesh = `
apiVersion: watchword.dev/v1
kind: Service
metadata: {name: orders}
spec: {dataPlanes: [KIND]}
---
apiVersion: watchword.dev/v1
kind: Issuer
metadata: {name: idp}
spec: {issuer: "https://idp.example", keySet: {secret: {keys: [{secret: "0123456789abcdef0123456789abcdef"}]}}}
---
apiVersion: watchword.dev/v1
kind: AuthenticationPolicy
metadata: {name: form}
spec: {target: {services: [orders]}, jwtRules: [{issuer: idp, audiences: [orders], fromForm: [token]}]}
`
	for kind, want := range map[string]struct {
		faults    int
		resources int
		refused   bool
	}{
		"GO":        {0, 3, false},
		"ENVOY":     {1, 0, true},
		"ENVOY, GO": {1, 0, true},
	} {
		objects, faults := policy.Parse([]policy.Document{{Source: "mesh.yaml", Content: strings.Replace(mesh, "KIND", kind, 1)}})
		if len(faults) > 0 {
			t.Fatal(faults)
		}
		state := policy.State{}
		for _, o := range objects {
			state[o.Key] = o.Resource
		}
		if got := policy.Check(state); len(got) != want.faults {
			t.Errorf("%s: faults %v, want %d", kind, got, want.faults)
		}
		keys, keyFaults := policy.IssuerKeys(state.Issuer("idp"))
		if len(keyFaults) > 0 {
			t.Fatal(keyFaults)
		}
		in := compile.Input{State: state, Subject: func(s string) string { return "spiffe://mesh.test/" + s }}
		in.Keys = map[string][]jose.Key{"idp": keys}
		got := new(translator).each(in, nil, []string{"orders"}, nil)[0]
		if (got.err != nil) != want.refused || len(got.resources) != want.resources || !want.refused && got.resources == nil {
			t.Errorf("%s: resources %v, error %v; want %d resources, refused %t", kind, got.resources, got.err, want.resources, want.refused)
		}
	}
}
