package access

import (
	"testing"

	"github.com/watchword-mesh/watchword/controlplane/policy"
)

// secretive is a mesh where some keys are shared secrets: with them whoever
// verifies can sign.
func secretive(t *testing.T, more ...string) policy.State {
	const secret = `keySet: {secret: {keys: [{secret: a0123456789012345678901234567890123456789}]}}`
	return with(t, state(t, mesh), append([]string{
		resource("Issuer", "name: partner", `{issuer: p, `+secret+`}`),
		resource("Issuer", "name: inline", `{issuer: i, keySet: {jwks: '{"keys":[{"kty":"oct","alg":"HS256","k":"YTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODk"}]}'}}`),
		resource("Consumer", "name: tagged", `{username: a, tags: [gold, eu], credentials: [{key: a, `+secret+`}]}`),
		resource("Consumer", "name: plain", `{username: b, credentials: [{key: b, `+secret+`}]}`),
		resource("Consumer", "name: public", `{username: c, tags: [public], credentials: [{key: c, keySet: {jwks: '`+ecKeys+`'}}]}`),
	}, more...)...)
}

const ecKeys = `{"keys":[{"kty":"EC","crv":"P-256","x":"axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY","y":"T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"}]}`

// verifies is an AuthenticationPolicy.
func verifies(name, target, rules string) string {
	return resource("AuthenticationPolicy", "name: "+name, `{target: {`+target+`}, jwtRules: [`+rules+`]}`)
}

// An owner does not get a shared secret by a policy: its data planes would be sent
// it, and who owns a service can enrol one. What they have already stays theirs, and
// public keys are no secrets.
func TestOwnerGetsNoSecretByPolicy(t *testing.T) {
	const denied = `AuthenticationPolicy/p: spec.jwtRules: gives Service "orders" a shared secret of an Issuer or a Consumer that it did not verify with before: needs the role OPERATOR`
	const orders = "services: [orders]"
	bare := secretive(t)
	had := func(rules string) policy.State { return secretive(t, verifies("p", orders, rules)) }
	meshwide := secretive(t, resource("AuthenticationPolicy", "name: all", `{jwtRules: [{issuer: partner, audiences: [a]}]}`))
	for name, tt := range map[string]struct {
		before policy.State
		change string
		want   string
	}{
		"issuer with a secret":          {bare, verifies("p", orders, `{issuer: partner, audiences: [a]}`), denied},
		"issuer with a symmetric JWK":   {bare, verifies("p", orders, `{issuer: inline, audiences: [a]}`), denied},
		"issuer with public keys":       {bare, verifies("p", orders, `{issuer: corp, audiences: [a]}`), ""},
		"all consumers":                 {bare, verifies("p", orders, `{consumers: {all: true}, audiences: [a]}`), denied},
		"a consumer":                    {bare, verifies("p", orders, `{consumers: {names: [plain]}, audiences: [a]}`), denied},
		"consumers by tag":              {bare, verifies("p", orders, `{consumers: {matchTags: [eu]}, audiences: [a]}`), denied},
		"consumers by tags none has":    {bare, verifies("p", orders, `{consumers: {matchTags: [eu, public]}, audiences: [a]}`), ""},
		"a consumer with public keys":   {bare, verifies("p", orders, `{consumers: {names: [public]}, audiences: [a]}`), ""},
		"consumers of public keys":      {bare, verifies("p", orders, `{consumers: {matchTags: [public]}, audiences: [a]}`), ""},
		"the last of several rules":     {bare, verifies("p", orders, `{issuer: watchword}, {issuer: corp, audiences: [a]}, {issuer: partner, audiences: [a]}`), denied},
		"on one route":                  {bare, verifies("p", orders+", routes: [admin]", `{issuer: partner, audiences: [a]}`), denied},
		"observed only":                 {bare, resource("AuthenticationPolicy", "name: p", `{enforcement: OBSERVE, target: {services: [orders]}, jwtRules: [{issuer: partner, audiences: [a]}]}`), denied},
		"for two services of its own":   {had(`{issuer: partner, audiences: [a]}`), verifies("p", "services: [orders, deployer]", `{issuer: partner, audiences: [a]}`), `AuthenticationPolicy/p: spec.jwtRules: gives Service "deployer" a shared secret of an Issuer or a Consumer that it did not verify with before: needs the role OPERATOR`},
		"what it has":                   {had(`{issuer: partner, audiences: [a]}`), verifies("p", orders, `{issuer: partner, audiences: [a]}, {issuer: corp, audiences: [a]}`), ""},
		"a part of what it has":         {had(`{consumers: {all: true}, audiences: [a]}`), verifies("p", orders, `{consumers: {names: [plain]}, audiences: [a]}`), ""},
		"more than it has":              {had(`{consumers: {names: [plain]}, audiences: [a]}`), verifies("p", orders, `{consumers: {all: true}, audiences: [a]}`), denied},
		"another than it has":           {had(`{consumers: {names: [plain]}, audiences: [a]}`), verifies("p", orders, `{consumers: {names: [tagged]}, audiences: [a]}`), denied},
		"what the mesh gave it":         {meshwide, verifies("p", orders, `{issuer: partner, audiences: [a]}`), ""},
		"less than the mesh gave it":    {meshwide, verifies("p", orders, `{issuer: corp, audiences: [a]}`), ""},
		"the mesh's again":              {with(t, meshwide, verifies("p", orders, `{issuer: corp, audiences: [a]}`)), "-AuthenticationPolicy/p", denied},
		"another policy of its own":     {had(`{issuer: partner, audiences: [a]}`), verifies("q", orders+", routes: [admin]", `{issuer: partner, audiences: [a]}`), ""},
		"nothing any more":              {had(`{issuer: partner, audiences: [a]}`), "-AuthenticationPolicy/p", ""},
		"no rule, where the mesh has":   {meshwide, resource("AuthenticationPolicy", "name: p", `{mode: "OFF", target: {services: [orders]}}`), ""},
		"a service that is not its own": {bare, verifies("p", "services: [stock]", `{issuer: partner, audiences: [a]}`), "AuthenticationPolicy/p: needs the role OPERATOR"},
	} {
		after := with(t, tt.before, tt.change)
		if faults := policy.CheckSince(after, tt.before); len(faults) > 0 {
			t.Fatalf("%s: %+v", name, faults)
		}
		for who, roles := range map[string][]Role{"owner": {{Role: ServiceOwner, Services: []string{"orders", "deployer"}}},
			"owner who reads": {{Role: ServiceOwner, Services: []string{"orders", "deployer"}}, {Role: Viewer}}} {
			if got := denials(Actor{Name: "a", Roles: roles}, tt.before, after); got != tt.want {
				t.Errorf("%s, by an %s:\n%s\nwant\n%s", name, who, got, tt.want)
			}
		}
		if got := denials(Actor{Name: "a", Roles: []Role{{Role: Operator}}}, tt.before, after); got != "" {
			t.Errorf("%s, by an operator: %s", name, got)
		}
	}
}
