package access

import (
	"fmt"

	"github.com/watchword-mesh/watchword/controlplane/policy"
)

// secretsOf is what the data planes of services verify with, in both states.
type secretsOf struct {
	policies [2]*policy.Policies
	// gained says of a service that was looked at whether it has more than before.
	gained map[string]bool
}

// givesSecrets refuses the owner of a service a policy by which its data planes get
// a shared secret that they had not: whoever enrols one reads the secret there, and
// who verifies with it can sign with it. That a secret was had counts by what held
// before, not by what might have. The answer doesn't say whose the secret is: the
// owner may not see that either.
func (c *change) givesSecrets(k policy.Key) *Denial {
	for _, state := range []policy.State{c.before, c.after} {
		for _, service := range state[k].GetAuthenticationPolicy().GetTarget().GetServices() {
			if c.gains(service) {
				return &Denial{Field: "spec.jwtRules", Message: fmt.Sprintf(
					"gives Service %q a shared secret of an Issuer or a Consumer that it did not verify with before: needs the role OPERATOR", service)}
			}
		}
	}
	return nil
}

func (c *change) gains(service string) bool {
	if c.secrets == nil {
		c.secrets = &secretsOf{policies: [2]*policy.Policies{c.before.Policies(), c.after.Policies()}, gained: map[string]bool{}}
	}
	gained, known := c.secrets.gained[service]
	if known {
		return gained
	}
	had := c.secrets.policies[0].SharedSecrets(c.before, service)
	for k := range c.secrets.policies[1].SharedSecrets(c.after, service) {
		gained = gained || !had[k]
	}
	c.secrets.gained[service] = gained
	return gained
}
