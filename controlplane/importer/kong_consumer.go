package importer

import (
	"cmp"
	"encoding/base64"
	"strings"

	"github.com/watchword-mesh/watchword/internal/jose"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

type kongConsumer struct {
	name string
	spec *policyv1.ConsumerSpec
	// A plugin that may refuse its requests, by name.
	guard string
	// It is in groups, which may have plugins too.
	grouped bool
}

// kongSecret is one of jwt_secrets: a credential of a consumer.
type kongSecret struct {
	object
	// The consumer that it is written inside of, or what it refers to.
	of       *kongConsumer
	consumer string
}

// Other credentials and groups of a consumer.
var kongOtherCredentials = []string{"acls", "basicauth_credentials", "hmacauth_credentials", "keyauth_credentials", "keyauth_enc_credentials", "mtls_auth_credentials", "oauth2_credentials", "groups"}

func (k *kong) consumer(n node) {
	known := append([]string{"username", "custom_id", "id", "tags", "jwt_secrets", "plugins", "created_at", "updated_at"}, kongOtherCredentials...)
	o := k.object(n, known...)
	c := &kongConsumer{spec: &policyv1.ConsumerSpec{Username: o.text("username"), CustomId: o.text("custom_id"), Id: o.text("id"), Tags: plain(o.texts("tags"))}}
	original := cmp.Or(c.spec.GetUsername(), c.spec.GetCustomId())
	if original == "" {
		k.fault(n, "username and custom_id are missing; it needs one of them")
		return
	}
	for _, field := range kongOtherCredentials {
		if o.has(field) {
			at, _ := o.at(field)
			k.leave(at, "only jwt_secrets are imported")
		}
	}
	k.consumerPlugins(o, c)
	c.name = k.rename(n, "Consumer", original, n.source+n.path)
	k.consumerList = append(k.consumerList, c)
	for _, ref := range []string{c.spec.GetUsername(), c.spec.GetCustomId(), c.spec.GetId()} {
		if ref != "" && k.consumers[ref] == nil {
			k.consumers[ref] = c
		}
	}
	for _, s := range o.list("jwt_secrets") {
		k.secrets = append(k.secrets, k.secret(s, c))
	}
}

// consumerPlugins have no place here, but may refuse the anonymous consumer.
func (k *kong) consumerPlugins(o object, c *kongConsumer) {
	c.grouped = o.has("groups")
	for _, p := range o.list("plugins") {
		k.leave(p, "a plugin for one consumer alone has no place here")
		if use := k.object(p); use.flag("enabled", true) && kongGuards(use.text("name")) {
			c.guard = cmp.Or(c.guard, use.text("name"))
		}
	}
}

func (k *kong) secret(n node, of *kongConsumer) kongSecret {
	o := k.object(n, "id", "key", "secret", "algorithm", "rsa_public_key", "tags", "consumer", "created_at")
	return kongSecret{object: o, of: of, consumer: k.reference(o, "consumer")}
}

// credentials gives all jwt_secrets to their consumers.
func (k *kong) credentials() {
	encoded := k.encoded()
	for _, s := range k.secrets {
		of := s.of
		if of == nil {
			of = k.consumers[s.consumer]
		}
		if of == nil {
			k.leave(s.node, "belongs to no consumer of the file")
			continue
		}
		if c := k.credential(s, encoded); c != nil {
			of.spec.Credentials = append(of.spec.Credentials, c)
		}
	}
	for _, c := range k.consumerList {
		k.addConsumer(c.name, c.spec)
	}
}

// encoded says whether secrets are base64. In Kong that is said by the plugin,
// here by the secret.
func (k *kong) encoded() bool {
	for i, p := range k.plugins {
		if at, ok := p.config.at("secret_is_base64"); p.base64 != k.plugins[0].base64 {
			if !ok {
				at = p.node
			}
			k.leave(at, "secret_is_base64 is not the same everywhere, and a secret has one form here: they are taken as the plugin in line %d says, so that this place refuses what it took", k.plugins[0].yaml.Line)
			k.plugins[i].base64 = k.plugins[0].base64
		}
	}
	return len(k.plugins) > 0 && k.plugins[0].base64
}

// credential is one key; nil if it is left over.
func (k *kong) credential(s kongSecret, encoded bool) *policyv1.Credential {
	c := &policyv1.Credential{Id: s.text("id"), Key: s.text("key"), Algorithm: s.text("algorithm"), Tags: plain(s.texts("tags"))}
	if k.placeholders(s) {
		return nil
	}
	if c.GetKey() != "" && k.keys[c.GetKey()] {
		k.leave(s.node, "another credential has the same key")
		return nil
	}
	alg := cmp.Or(c.GetAlgorithm(), "HS256")
	ok := true
	if strings.HasPrefix(alg, "HS") {
		c.KeySet, ok = k.shared(s, alg, encoded)
	} else {
		c.KeySet, ok = k.public(s, alg, encoded)
	}
	if !ok {
		return nil
	}
	k.keys[c.GetKey()] = true
	return c
}

// placeholders says whether a value stands for another one, of the environment
// or a vault, that only deck or Kong puts in: taken as it is, everybody who
// knows the file would know the secret.
func (k *kong) placeholders(s kongSecret) bool {
	found := false
	for _, field := range []string{"key", "secret", "rsa_public_key"} {
		if text := s.text(field); strings.Contains(text, "${{") || strings.Contains(text, "{vault://") {
			at, _ := s.at(field)
			k.leave(at, "is a placeholder of deck's or Kong's, not the value itself: the credential is left out; put the values in (deck file render --populate-env-vars for ${{ env }}), then import that")
			found = true
		}
	}
	return found
}

// shared is a secret, nil if one is to be made.
func (k *kong) shared(s kongSecret, alg string, encoded bool) (*policyv1.KeySet, bool) {
	if s.has("rsa_public_key") {
		at, _ := s.at("rsa_public_key")
		k.warn(at, "has no effect with %s, and is left out", alg)
	}
	secret := s.text("secret")
	if secret == "" {
		return nil, true
	}
	at, _ := s.at("secret")
	raw := []byte(secret)
	if encoded {
		var err error
		if raw, err = anyBase64(secret); err != nil {
			k.leave(at, "is not base64, which secret_is_base64 says it is: the credential is left out")
			return nil, false
		}
	}
	set := &policyv1.KeySet{Source: &policyv1.KeySet_Secret{Secret: &policyv1.SecretKeys{Keys: []*policyv1.SecretKey{{Secret: secret, Base64: encoded}}}}}
	jwk := `{"keys":[{"kty":"oct","alg":` + quoted(alg) + `,"k":"` + base64.RawURLEncoding.EncodeToString(raw) + `"}]}`
	switch weak, ok := weakness(func(o jose.SetOptions) []jose.Fault { _, f := jose.ParseSet([]byte(jwk), o); return f }); {
	case !ok:
		k.leave(s.node, "the algorithm %q or its secret can't be used", clip(alg))
		return nil, false
	case weak:
		k.warn(at, "%s", weakWarning)
		set.AllowWeakKeys = true
	}
	return set, true
}

// public is a key in PEM.
func (k *kong) public(s kongSecret, alg string, encoded bool) (*policyv1.KeySet, bool) {
	text := s.text("rsa_public_key")
	if text == "" {
		k.leave(s.node, "has no rsa_public_key, which %s needs", clip(alg))
		return nil, false
	}
	at, _ := s.at("rsa_public_key")
	if raw, err := anyBase64(text); encoded && err == nil {
		text = string(raw) // Kong decodes it as it does secrets
	}
	set := &policyv1.KeySet{Source: &policyv1.KeySet_Pem{Pem: &policyv1.PemKeys{Keys: []*policyv1.PemKey{{Pem: strings.TrimSpace(text) + "\n"}}}}}
	var faults []jose.Fault
	switch weak, ok := weakness(func(o jose.SetOptions) []jose.Fault {
		o.Algorithms = []string{alg}
		_, faults = jose.ParsePEM(text, "", o)
		return faults
	}); {
	case !ok:
		k.leave(at, "the credential is left out: %s", faults[0].Message)
		return nil, false
	case weak:
		k.warn(at, "%s", weakWarning)
		set.AllowWeakKeys = true
	}
	return set, true
}

// weakness says whether keys can be used, and whether only as weak ones.
func weakness(parse func(jose.SetOptions) []jose.Fault) (weak, ok bool) {
	if len(parse(jose.SetOptions{})) == 0 {
		return false, true
	}
	return true, len(parse(jose.SetOptions{AllowWeak: true})) == 0
}

// anyBase64 decodes the standard and the URL alphabet, with padding or without
// (RFC 4648).
func anyBase64(s string) ([]byte, error) {
	s = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(s, "="))
	return base64.RawStdEncoding.DecodeString(s)
}
