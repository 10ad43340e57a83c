package compile

import (
	"fmt"
	"maps"
	"slices"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/internal/jose"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// consumerSet returns the name of the set of the credentials that a rule
// selects, which is one for all routes; "" if it would be empty.
func (c *compiler) consumerSet(policyName string, rule int, by *policyv1.ConsumerSelector) string {
	return c.set(fmt.Sprintf("consumers/%s/%d", policyName, rule), func() []*dataplanev1.Credential {
		var out []*dataplanev1.Credential
		for _, name := range c.in.Policies.Selected(by) {
			found := c.consumerKeys(name)
			for i, credential := range c.in.State.Consumer(name).GetCredentials() {
				if i < len(found) {
					out = append(out, &dataplanev1.Credential{Key: credential.GetKey(), Keys: keys(found[i]), Consumer: name})
				}
			}
		}
		return out
	})
}

func (c *compiler) consumerKeys(name string) [][]jose.Key {
	if found, known := c.in.ConsumerKeys[name]; known {
		return found
	}
	found, _ := policy.ConsumerKeys(c.in.State.Consumer(name)) // Check has found the faults
	return found
}

// serviceSet returns the name of the set of the services that sign for
// themselves and may call this one; "" if there is none.
func (c *compiler) serviceSet() string {
	return c.set("services", func() []*dataplanev1.Credential {
		var out []*dataplanev1.Credential
		for _, name := range c.in.Policies.SelfIssuing(c.service) {
			self, subject := c.in.State.Service(name).GetSelfIssued(), c.in.Subject(name)
			found, _ := policy.SelfIssuedKeys(self)
			iss := self.GetIssuer()
			if iss == "" {
				iss = subject
			}
			out = append(out, &dataplanev1.Credential{Key: iss, Keys: keys(found), Service: name, Subject: subject})
		}
		return out
	})
}

// set adds a set under a name, if it isn't there yet. What has no key claim's
// value or no usable key is left out.
func (c *compiler) set(name string, credentials func() []*dataplanev1.Credential) string {
	if _, known := c.sets[name]; !known {
		list := slices.DeleteFunc(credentials(), func(d *dataplanev1.Credential) bool { return d.GetKey() == "" || len(d.GetKeys()) == 0 })
		slices.SortStableFunc(list, func(a, b *dataplanev1.Credential) int { return compareStrings(a.GetKey(), b.GetKey()) })
		list = slices.CompactFunc(list, func(a, b *dataplanev1.Credential) bool { return a.GetKey() == b.GetKey() })
		c.sets[name] = &dataplanev1.CredentialSet{Name: name, Credentials: list}
		for _, d := range list {
			if d.GetConsumer() != "" {
				c.consumers[d.GetConsumer()] = true
			}
		}
	}
	if len(c.sets[name].GetCredentials()) == 0 {
		return ""
	}
	return name
}

// usedSets returns the sets that some rule names, by name.
func (c *compiler) usedSets() []*dataplanev1.CredentialSet {
	var out []*dataplanev1.CredentialSet
	for _, name := range slices.Sorted(maps.Keys(c.sets)) {
		if s := c.sets[name]; len(s.GetCredentials()) > 0 {
			out = append(out, s)
		}
	}
	return out
}

// matches says which consumer a token of an issuer is: the first by name.
func (c *compiler) matches(issuer string) []*dataplanev1.ConsumerMatch {
	var out []*dataplanev1.ConsumerMatch
	for _, name := range c.in.Policies.Matching(issuer) {
		c.consumers[name] = true
		when := conditions(c.in.State.Consumer(name).GetMatch().GetClaims())
		out = append(out, &dataplanev1.ConsumerMatch{Consumer: name, When: when})
	}
	return out
}
