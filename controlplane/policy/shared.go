package policy

import (
	"slices"

	"github.com/watchword-mesh/watchword/internal/jose"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// SharedSecrets returns the Issuers and Consumers whose shared secrets the data
// planes of a service hold, since rules verify with them: of the policies that are
// enforced on a route of it, or observed. Public keys are no secrets. The state is
// the one that the policies are of.
func (p *Policies) SharedSecrets(s State, service string) map[Key]bool {
	out := map[Key]bool{}
	looked := map[string]bool{}
	for _, route := range routeNames(s.Service(service)) {
		enforced, observed := p.AuthenticationFor(service, route)
		if enforced.Name != "" && observed.Spec.GetMode() == policyv1.AuthenticationPolicySpec_OFF {
			observed = AuthenticationPolicy{} // has no effect, so that data planes don't get it
		}
		for _, held := range []AuthenticationPolicy{enforced, observed} {
			if !looked[held.Name] {
				looked[held.Name] = true
				p.addShared(out, s, held.Spec.GetJwtRules())
			}
		}
	}
	return out
}

func (p *Policies) addShared(out map[Key]bool, s State, rules []*policyv1.JwtRule) {
	for _, r := range rules {
		if name := r.GetIssuer(); name != "" && sharesSecrets(s.Issuer(name).GetKeySet()) {
			out[Key{KindIssuer, name}] = true
		}
		for _, name := range p.Selected(r.GetConsumers()) {
			shares := func(c *policyv1.Credential) bool { return sharesSecrets(c.GetKeySet()) }
			if slices.ContainsFunc(s.Consumer(name).GetCredentials(), shares) {
				out[Key{KindConsumer, name}] = true
			}
		}
	}
}

// sharesSecrets says whether a key set has a key with which who verifies can sign.
// Key sets that are fetched have none: such keys are left out there.
func sharesSecrets(set *policyv1.KeySet) bool {
	switch set.GetSource().(type) {
	case *policyv1.KeySet_Secret:
		return true
	case *policyv1.KeySet_Jwks:
		// Faults, such as of weak keys, are of no interest here.
		keys, _ := jose.ParseSet([]byte(set.GetJwks()), jose.SetOptions{AllowWeak: true})
		return slices.ContainsFunc(keys, jose.Key.Symmetric)
	}
	return false
}
