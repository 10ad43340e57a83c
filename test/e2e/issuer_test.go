package e2e

import (
	"strings"
	"testing"

	"github.com/watchword-mesh/watchword/test/meshtest"
)

// foreign is an issuer that is not ours, with one key.
type foreign struct {
	iss string
	key *meshtest.Signer
}

func newIssuer(t *testing.T, iss, alg string) *foreign {
	t.Helper()
	return &foreign{iss, meshtest.NewSigner(t, alg)}
}

// resource is its Issuer with an inline JWKS.
func (f *foreign) resource(name string) string { return inlineIssuer(name, f.iss, f.key) }

func (f *foreign) token(t *testing.T, claims meshtest.Claims) string {
	t.Helper()
	return f.key.Token(t, claims)
}

func inlineIssuer(name, iss string, keys ...*meshtest.Signer) string {
	return resource("Issuer", name, "issuer: "+iss, "keySet:", "  jwks: '"+meshtest.JWKS(keys...)+"'")
}

func pemIssuer(t *testing.T, name, iss string, key *meshtest.Signer) string {
	t.Helper()
	indented := strings.ReplaceAll(strings.TrimSpace(key.PEM(t)), "\n", "\n          ")
	return resource("Issuer", name, "issuer: "+iss, "keySet:", "  pem:", "    keys:", "    - kid: "+key.KID, "      pem: |", "        "+indented)
}

// authentication is an AuthenticationPolicy for a service, or a route of it,
// with rules in YAML's flow style.
func authentication(name, service, route, mode string, rules ...string) string {
	target := "services: [" + service + "]"
	if route != "" {
		target += ", routes: [" + route + "]"
	}
	spec := []string{"target: {" + target + "}", "mode: " + mode}
	if len(rules) > 0 {
		spec = append(spec, "jwtRules:")
		for _, r := range rules {
			spec = append(spec, "- "+r)
		}
	}
	return resource("AuthenticationPolicy", name, spec...)
}
