package api

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// notMade stands in a dry run for what would be made.
const notMade = "(generated)"

// maker fills in what of a Consumer is made where its document leaves it out.
type maker struct {
	uid    func() string
	secret func(length int) string

	resource string
	// What was made and must be shown once.
	generated []*adminv1.Generated
}

// NewSecret returns random letters and digits.
func NewSecret(length int) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	// The largest multiple of their number that a byte holds: what is above would
	// make some more likely.
	const most = 256 - 256%len(letters)
	out, draw := make([]byte, 0, length), make([]byte, 64)
	for len(out) < length {
		_, _ = rand.Read(draw) // never fails
		for _, b := range draw {
			if int(b) < most && len(out) < length {
				out = append(out, letters[int(b)%len(letters)])
			}
		}
	}
	return string(out)
}

// consumer fills in a Consumer; what was made for the stored one stays.
func (m *maker) consumer(c, stored *policyv1.ConsumerSpec) {
	if c.Id == "" {
		c.Id = stored.GetId()
	}
	if c.Id == "" {
		c.Id = m.uid()
	}
	c.CreatedAt = cmp.Or(c.CreatedAt, stored.GetCreatedAt())
	of := storedCredentials(c.GetCredentials(), stored.GetCredentials())
	for i, credential := range c.GetCredentials() {
		m.credential(fmt.Sprintf("spec.credentials[%d]", i), credential, of[i])
	}
}

func (m *maker) credential(field string, c, stored *policyv1.Credential) {
	neither := c.Id == "" && c.Key == ""
	if c.Id == "" {
		c.Id = stored.GetId()
	}
	if c.Id == "" {
		c.Id = m.uid()
	}
	if c.Key == "" {
		c.Key = stored.GetKey()
	}
	if c.Key == "" {
		if neither {
			c.Key = keyOf(c.Id)
		} else {
			c.Key = m.secret(32)
		}
		m.note(field+".key", c.Key)
	}
	c.CreatedAt = cmp.Or(c.CreatedAt, stored.GetCreatedAt())
	m.keySet(field+".keySet", c, stored)
}

// keyOf is the key of a credential that gave neither id nor key: its id without
// dashes, so that it can be told from one whose key was given.
func keyOf(id string) string { return strings.ReplaceAll(id, "-", "") }

// storedCredentials says which stored credential each one is: by its id, else by
// its key; those that give neither are, in their order, those that were made for
// such ones.
func storedCredentials(now, stored []*policyv1.Credential) []*policyv1.Credential {
	out, taken := make([]*policyv1.Credential, len(now)), map[int]bool{}
	pair := func(which func(*policyv1.Credential) bool, same func(a, b *policyv1.Credential) bool) {
		for i, c := range now {
			if out[i] != nil || !which(c) {
				continue
			}
			for j, s := range stored {
				if !taken[j] && same(c, s) {
					out[i], taken[j] = s, true
					break
				}
			}
		}
	}
	pair(func(c *policyv1.Credential) bool { return c.GetId() != "" },
		func(c, s *policyv1.Credential) bool { return c.GetId() == s.GetId() })
	pair(func(c *policyv1.Credential) bool { return c.GetKey() != "" },
		func(c, s *policyv1.Credential) bool { return c.GetKey() == s.GetKey() })
	// One whose key was given before is not taken for another: that would keep a
	// credential in force that the document no longer has.
	pair(func(c *policyv1.Credential) bool { return c.GetId() == "" && c.GetKey() == "" },
		func(_, s *policyv1.Credential) bool { return s.GetKey() == keyOf(s.GetId()) })
	return out
}

// keySet keeps the stored keys, or makes a shared secret, where none is given.
// Other algorithms have keys that only their owner can make.
func (m *maker) keySet(field string, c, stored *policyv1.Credential) {
	alg := hmac(c.GetAlgorithm())
	sameAlgorithm := stored.GetAlgorithm() == c.GetAlgorithm() || (alg != "" && alg == hmac(stored.GetAlgorithm()))
	if !sameAlgorithm {
		stored = nil
	}
	if c.GetKeySet().GetSource() == nil {
		weak := c.GetKeySet().GetAllowWeakKeys()
		switch {
		case stored.GetKeySet().GetSource() != nil:
			c.KeySet = proto.CloneOf(stored.GetKeySet())
			c.KeySet.AllowWeakKeys = c.KeySet.AllowWeakKeys || weak
			return
		case alg == "":
			return
		}
		c.KeySet = &policyv1.KeySet{AllowWeakKeys: weak, Source: &policyv1.KeySet_Secret{Secret: &policyv1.SecretKeys{Keys: []*policyv1.SecretKey{{}}}}}
	}
	for i, k := range c.GetKeySet().GetSecret().GetKeys() {
		if k.GetSecret() == "" {
			m.sharedSecret(fmt.Sprintf("%s.secret.keys[%d].secret", field, i), k, alg, storedSecret(i, k, stored.GetKeySet().GetSecret().GetKeys()))
		}
	}
}

// hmac is the algorithm of a shared secret, by default HS256; "" if it is none of
// them.
func hmac(algorithm string) string {
	switch algorithm {
	case "":
		return "HS256"
	case "HS256", "HS384", "HS512":
		return algorithm
	}
	return ""
}

// storedSecret is the secret of the key that is stored at the same place, if it
// is still of the same kid and form.
func storedSecret(i int, k *policyv1.SecretKey, stored []*policyv1.SecretKey) string {
	if i < len(stored) && stored[i].GetKid() == k.GetKid() && stored[i].GetAlgorithm() == k.GetAlgorithm() && stored[i].GetBase64() == k.GetBase64() {
		return stored[i].GetSecret()
	}
	return ""
}

// sharedSecret makes a secret as long as the hash of its algorithm (RFC 7518
// section 3.2).
func (m *maker) sharedSecret(field string, k *policyv1.SecretKey, fallback, stored string) {
	if k.Secret = stored; stored != "" {
		return
	}
	alg := fallback
	if k.GetAlgorithm() != "" {
		alg = hmac(k.GetAlgorithm())
	}
	length := map[string]int{"HS256": 32, "HS384": 48, "HS512": 64}[alg]
	if length == 0 {
		return // Check says what is wrong with the algorithm
	}
	if k.Secret = m.secret(length); k.GetBase64() && k.Secret != notMade {
		k.Secret = base64.StdEncoding.EncodeToString([]byte(k.Secret))
	}
	m.note(field, k.Secret)
}

func (m *maker) note(field, value string) {
	m.generated = append(m.generated, &adminv1.Generated{Resource: m.resource, Field: field, Value: value})
}

// generate fills in a resource. For a dry run it also keeps the form to show:
// what is made for it now is not what an apply would make.
func (s *Server) generate(p *plan, r, stored *policyv1.Resource) {
	if r.GetConsumer() == nil {
		return
	}
	key := policy.KeyOf(r)
	shown := proto.CloneOf(r)
	m := &maker{uid: s.NewUID, secret: s.NewSecret, resource: key.String()}
	m.consumer(r.GetConsumer(), stored.GetConsumer())
	if p.dryRun {
		m = &maker{uid: func() string { return notMade }, secret: func(int) string { return notMade }, resource: key.String()}
		m.consumer(shown.GetConsumer(), stored.GetConsumer())
		p.shown[key] = shown
	}
	p.generated = append(p.generated, m.generated...)
}
