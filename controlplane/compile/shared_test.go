package compile

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Whoever's shared secret is in the ruleset of a service is among those that the
// policies are said to give it: the dumb twin compiles the ruleset and looks.
func TestSharedSecretsAreKnown(t *testing.T) {
	secret := &policyv1.KeySet{AllowWeakKeys: true, Source: &policyv1.KeySet_Secret{Secret: &policyv1.SecretKeys{Keys: []*policyv1.SecretKey{{Secret: "1"}}}}}
	inline := &policyv1.KeySet{AllowWeakKeys: true, Source: &policyv1.KeySet_Jwks{Jwks: `{"keys":[{"kty":"oct","k":"MQ"}]}`}}
	pool := keysOf(t, policy.State{})[policy.BuiltinIssuer]
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		w := randomWorld(t, "", pool)
		for name, set := range map[string]*policyv1.KeySet{"i": secret, "j": inline} {
			if spec := w.state.Issuer(name); spec != nil {
				spec.KeySet = set
				w.keys[name], _ = policy.IssuerKeys(spec)
			}
		}
		policies := w.state.Policies()
		for service, rs := range w.rulesets() {
			known := policies.SharedSecrets(w.state, service)
			want := func(k policy.Key) {
				if found++; !known[k] {
					t.Fatalf("the ruleset of %s holds a secret of %s, but SharedSecrets = %v\n%v", service, k, known, rs)
				}
			}
			for _, issuer := range rs.GetIssuers() {
				for _, key := range issuer.GetKeys() {
					if key.GetSymmetric() {
						want(policy.Key{Kind: policy.KindIssuer, Name: issuer.GetName()})
					}
				}
			}
			for _, set := range rs.GetCredentialSets() {
				for _, credential := range set.GetCredentials() {
					for _, key := range credential.GetKeys() {
						if key.GetSymmetric() {
							want(policy.Key{Kind: policy.KindConsumer, Name: credential.GetConsumer()})
						}
					}
				}
			}
		}
	})
	if found == 0 {
		t.Error("no ruleset holds a secret: the test proves nothing")
	}
}
