package kong

import (
	"cmp"
	"encoding/base64"
	"strings"

	"github.com/watchword-mesh/watchword/internal/jose"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// setKeys gives a credential the algorithm and the key of a request, and says
// whether its secret is new. What the request leaves out stays; a new credential
// that is given no key gets a secret made, as in Kong.
//
// In Kong a credential has both a secret and a public key, of which the algorithm
// uses one. Here it has the one that is used.
func (c *call) setKeys(of *policyv1.Credential, in *credentialInput) (told bool) {
	inBase64 := in.base64.value
	if !in.base64.set() {
		inBase64 = c.SecretIsBase64
		if keys := of.GetKeySet().GetSecret().GetKeys(); len(keys) > 0 {
			inBase64 = keys[0].GetBase64()
		}
	}
	publicKey := in.publicKey.value
	if raw, err := anyBase64(publicKey); inBase64 && err == nil {
		publicKey = string(raw) // Kong decodes it as it does secrets
	}
	alg := nextAlgorithm(of, in, publicKey)
	same := of.GetKeySet().GetSource() != nil && alg == algorithmOf(of)
	if !same {
		of.Algorithm = alg
	}
	if isShared(alg) {
		return c.setSecret(of, in, alg, inBase64)
	}
	setPublicKey(of, in, publicKey, alg, same)
	return false
}

// nextAlgorithm is the algorithm that a credential is to have. The public key of a
// new one that comes without says it by its type: in Kong it would be HS256, and
// the key would have no effect. A secret that is in use is not lost that way.
func nextAlgorithm(of *policyv1.Credential, in *credentialInput, publicKey string) string {
	before := ""
	if of.GetKeySet().GetSource() != nil {
		before = algorithmOf(of)
	}
	switch {
	case in.algorithm.set():
		return in.algorithm.value
	case in.publicKey.set() && isShared(before) && !in.secret.set():
		in.add("rsa_public_key", "has no effect with %s: give the algorithm too", before)
		return before
	case in.publicKey.set() && before == "" && !in.secret.set():
		if keys, faults := jose.ParsePEM(publicKey, "", jose.SetOptions{AllowWeak: true}); len(faults) == 0 && len(keys) > 0 {
			return keys[0].Algorithm()
		}
		in.add("rsa_public_key", "invalid key: give one PEM block, PUBLIC KEY or CERTIFICATE, and the algorithm")
		return "RS256"
	case before != "":
		return before
	}
	return "HS256"
}

func (c *call) setSecret(of *policyv1.Credential, in *credentialInput, alg string, inBase64 bool) (told bool) {
	secret := in.secret.value
	switch {
	case in.secret.set():
		keys := of.GetKeySet().GetSecret().GetKeys()
		if c.showSecrets() && len(keys) == 1 && keys[0].GetSecret() == secret && keys[0].GetBase64() == inBase64 {
			return true // with what else is said of it, such as that it may be weak
		}
	case of.GetKeySet().GetSecret() != nil, of.GetKeySet().GetJwks() != "":
		keys := of.GetKeySet().GetSecret().GetKeys()
		in.reread(len(keys) > 0 && keys[0].GetBase64())
		return false // stays
	default:
		// As long as the hash (RFC 7518 section 3.2).
		secret = c.NewSecret(cmp.Or(map[string]int{"HS384": 48, "HS512": 64}[alg], 32))
		if inBase64 {
			secret = base64.StdEncoding.EncodeToString([]byte(secret))
		}
	}
	of.KeySet = &policyv1.KeySet{Source: &policyv1.KeySet_Secret{Secret: &policyv1.SecretKeys{Keys: []*policyv1.SecretKey{{Secret: secret, Base64: inBase64}}}}}
	return true
}

// reread refuses to read what is stored in another way: the text of a secret would
// stay, and stand for other bytes.
func (in *credentialInput) reread(inBase64 bool) {
	if in.base64.set() && in.base64.value != inBase64 {
		in.add("secret_is_base64", "says how a secret is read: give the secret too")
	}
}

const needsKey = "failed conditional validation given value of field 'algorithm'"

func setPublicKey(of *policyv1.Credential, in *credentialInput, publicKey, alg string, same bool) {
	before := of.GetKeySet()
	if !in.publicKey.set() {
		// What can't be shown in PEM is shown as null, and stays when it comes back so.
		shown := len(before.GetPem().GetKeys()) == 1
		if (in.publicKey.there && shown) || (before.GetPem() == nil && before.GetJwks() == "") {
			in.add("rsa_public_key", "required field missing")
			in.addEntity(needsKey)
		} else {
			in.reread(false)
		}
		return
	}
	if pems := before.GetPem().GetKeys(); len(pems) == 1 && pems[0].GetPem() == publicKey && same {
		return // with what else is said of it, such as that it may be weak
	}
	if _, faults := jose.ParsePEM(publicKey, "", jose.SetOptions{Algorithms: []string{alg}}); len(faults) > 0 {
		in.add("rsa_public_key", "invalid key: %s", faults[0].Message)
		in.addEntity(needsKey)
		return
	}
	of.KeySet = &policyv1.KeySet{Source: &policyv1.KeySet_Pem{Pem: &policyv1.PemKeys{Keys: []*policyv1.PemKey{{Pem: publicKey}}}}}
}

// anyBase64 decodes the standard and the URL alphabet, with padding or without
// (RFC 4648).
func anyBase64(s string) ([]byte, error) {
	s = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(s, "="))
	return base64.RawStdEncoding.DecodeString(s)
}
