package dataplane

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// withoutSecrets puts, in place of each shared secret, one that nobody has, so that
// the ruleset is whole and what the secret would verify is refused. It tells whether
// there was any.
func withoutSecrets(m *dataplanev1.Ruleset) (changed bool) {
	forget := func(keys []*dataplanev1.Key) {
		for _, k := range keys {
			if k.GetSymmetric() {
				k.Jwk, changed = nobodysKey(k), true
			}
		}
	}
	for _, i := range m.GetIssuers() {
		forget(i.GetKeys())
	}
	for _, s := range m.GetCredentialSets() {
		for _, c := range s.GetCredentials() {
			forget(c.GetKeys())
		}
	}
	return changed
}

// nobodysKey is a JWK (RFC 7518 section 6.4) of the same kid and algorithm.
func nobodysKey(k *dataplanev1.Key) string {
	secret := make([]byte, 64) // as long as HS512 wants it
	_, _ = rand.Read(secret)   // never fails
	members := map[string]string{"kty": "oct", "alg": k.GetAlgorithm(), "k": base64.RawURLEncoding.EncodeToString(secret)}
	if k.GetKid() != "" {
		members["kid"] = k.GetKid()
	}
	text, _ := json.Marshal(members) // strings only
	return string(text)
}
