package policy

import (
	"slices"
	"strings"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

func (c *checker) consumer(s *policyv1.ConsumerSpec) {
	if s.GetUsername() == "" && s.GetCustomId() == "" && len(s.GetCredentials()) == 0 && s.GetMatch() == nil {
		c.fault("spec", "names nobody: give username, customId, credentials or match")
	}
	c.identity("spec.username", s.GetUsername(), "username")
	c.identity("spec.customId", s.GetCustomId(), "customId")
	c.identity("spec.id", s.GetId(), "id")
	c.tags("spec.tags", s.GetTags())
	c.created("spec.createdAt", s.GetCreatedAt())
	ids, keys := map[string]bool{}, map[string]bool{}
	for i, credential := range s.GetCredentials() {
		field := index("spec.credentials", i)
		c.credential(field, credential)
		c.credentialName(field+".id", credential.GetId(), ids)
		c.credentialName(field+".key", credential.GetKey(), keys)
		c.tags(field+".tags", credential.GetTags())
		c.created(field+".createdAt", credential.GetCreatedAt())
	}
	if s.GetMatch() != nil {
		c.match(s.GetMatch())
	}
}

func (c *checker) tags(field string, tags []string) {
	for i, tag := range tags {
		c.headerValue(index(field, i), tag)
		c.once(field, tags, i)
	}
}

// created checks a Unix time, which is of the years 1970 to 9999.
func (c *checker) created(field string, seconds int64) {
	if seconds < 0 || seconds > 253402300799 {
		c.fault(field, "%d is not a time in seconds since 1970", seconds)
	}
}

// identity checks what names a consumer to services: another one must not have
// the same.
func (c *checker) identity(field, value, attribute string) {
	if value == "" {
		return
	}
	c.headerValue(field, value)
	place := [2]string{attribute, value}
	if owner := c.identities[place]; owner != "" {
		c.fault(field, "%q belongs to Consumer %q already", clip(value), owner)
		return
	}
	c.identities[place] = c.key.Name
}

// headerValue checks what may become the value of a header.
func (c *checker) headerValue(field, value string) {
	if value == "" || len(value) > 256 || hasControl(value) {
		c.fault(field, "%q can't stand in a header: one to 256 bytes, no control characters", clip(value))
	}
}

// credentialName checks the id or key of a credential; none gets one made.
func (c *checker) credentialName(field, name string, earlier map[string]bool) {
	if name == "" {
		return
	}
	c.headerValue(field, name)
	if earlier[name] {
		c.fault(field, "%q is given twice", clip(name))
	}
	earlier[name] = true
}

func (c *checker) credential(field string, credential *policyv1.Credential) {
	alg := credential.GetAlgorithm()
	if alg != "" {
		c.algorithm(field+".algorithm", alg)
	}
	switch credential.GetKeySet().GetSource().(type) {
	case nil:
		if alg != "" && !strings.HasPrefix(alg, "HS") && slices.Contains(Algorithms, alg) {
			c.fault(field+".keySet", "is missing: give the public key for %s (only shared secrets are made here)", alg)
		}
	case *policyv1.KeySet_Builtin, *policyv1.KeySet_JwksUri:
		c.fault(field+".keySet", "can't be that of a credential: give jwks, pem or secret. Keys from elsewhere belong to an Issuer; match says which of its tokens are the consumer's")
	default:
		if c.fresh() && (alg == "" || slices.Contains(Algorithms, alg)) {
			_, faults := credentialKeys(field, credential)
			c.add(faults)
		}
	}
}

func (c *checker) match(m *policyv1.ConsumerMatch) {
	if c.state.Issuer(m.GetIssuer()) == nil {
		c.fault("spec.match.issuer", "there is no Issuer %q", clip(m.GetIssuer()))
	}
	for i, w := range m.GetClaims() {
		c.condition(index("spec.match.claims", i), w)
	}
}
