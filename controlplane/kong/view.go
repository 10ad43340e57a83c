package kong

import (
	"encoding/json"
	"strings"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// consumerView is a consumer in answers.
type consumerView struct {
	ID        string   `json:"id"`
	Username  *string  `json:"username"`
	CustomID  *string  `json:"custom_id"`
	Tags      []string `json:"tags"`
	CreatedAt *int64   `json:"created_at"`
}

// credentialView is a credential in answers. Its secret is left out where the
// actor may not see it, and null where there is none.
type credentialView struct {
	ID           string          `json:"id"`
	Consumer     ownerView       `json:"consumer"`
	Key          *string         `json:"key"`
	Algorithm    string          `json:"algorithm"`
	Secret       json.RawMessage `json:"secret,omitempty"`
	Base64       bool            `json:"secret_is_base64,omitempty"`
	RSAPublicKey *string         `json:"rsa_public_key"`
	Tags         []string        `json:"tags"`
	CreatedAt    *int64          `json:"created_at"`
}

type ownerView struct {
	ID string `json:"id"`
}

// page is a part of a list.
type page struct {
	Data   []any   `json:"data"`
	Next   *string `json:"next"`
	Offset string  `json:"offset,omitempty"`
}

func orNull[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}

func tagsOrNull(tags []string) []string {
	if len(tags) == 0 {
		return nil
	}
	return tags
}

func (c *consumer) view() consumerView {
	s := c.spec()
	return consumerView{c.id, orNull(s.GetUsername()), orNull(s.GetCustomId()), tagsOrNull(s.GetTags()), orNull(s.GetCreatedAt())}
}

// view shows a credential as far as Kong has words for it.
func (c *credential) view(secrets bool) credentialView {
	v := credentialView{ID: c.id, Consumer: ownerView{c.of.id}, Key: orNull(c.GetKey()), Algorithm: algorithmOf(c.Credential),
		Secret: json.RawMessage("null"), Tags: tagsOrNull(c.GetTags()), CreatedAt: orNull(c.GetCreatedAt())}
	switch s := c.GetKeySet().GetSource().(type) {
	case *policyv1.KeySet_Pem:
		if keys := s.Pem.GetKeys(); len(keys) == 1 {
			v.RSAPublicKey = orNull(keys[0].GetPem())
		}
	case *policyv1.KeySet_Secret:
		if v.Secret = nil; len(s.Secret.GetKeys()) == 0 {
			break
		}
		key := s.Secret.GetKeys()[0]
		v.Base64 = key.GetBase64()
		if secrets {
			v.Secret, _ = json.Marshal(key.GetSecret()) // a string always can be
		}
	}
	return v
}

// algorithmOf is the algorithm of a credential's first key: what it says itself,
// or the usual one of its type.
func algorithmOf(c *policyv1.Credential) string {
	if c.GetAlgorithm() != "" {
		return c.GetAlgorithm()
	}
	all, _ := policy.ConsumerKeys(&policyv1.ConsumerSpec{Credentials: []*policyv1.Credential{c}})
	if len(all) == 1 && len(all[0]) > 0 {
		return all[0][0].Algorithm()
	}
	return "HS256"
}

func isShared(algorithm string) bool { return strings.HasPrefix(algorithm, "HS") }

func (c *call) showSecrets() bool { return c.MayReadSecrets != nil && c.MayReadSecrets(c.ctx) }
