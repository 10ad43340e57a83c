package policy

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/watchword-mesh/watchword/internal/jose"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// IssuerKeys parses the keys that an Issuer holds itself. It has none, and no
// fault, where they come from elsewhere: those of the built-in Issuer, and of
// one with a jwksUri.
func IssuerKeys(s *policyv1.IssuerSpec) ([]jose.Key, []Fault) {
	return setKeys("spec.keySet", s.GetKeySet(), s.GetAlgorithms())
}

// ConsumerKeys parses the keys of a Consumer, for each of its credentials in
// their order.
func ConsumerKeys(s *policyv1.ConsumerSpec) ([][]jose.Key, []Fault) {
	var all [][]jose.Key
	var faults []Fault
	for i, c := range s.GetCredentials() {
		keys, f := credentialKeys(index("spec.credentials", i), c)
		all, faults = append(all, keys), append(faults, f...)
	}
	return all, faults
}

// credentialKeys has no key, and no fault, where a secret is still to be made.
func credentialKeys(field string, c *policyv1.Credential) ([]jose.Key, []Fault) {
	var algorithms []string
	if c.GetAlgorithm() != "" {
		algorithms = []string{c.GetAlgorithm()}
	}
	keys, faults := setKeys(field+".keySet", c.GetKeySet(), algorithms)
	var sound []Fault
	for _, f := range faults {
		if f.Message == emptySecret {
			continue
		}
		if f.Message == redacted("").Message {
			f.Message += ", or leave keySet out to keep what is stored"
		}
		sound = append(sound, f)
	}
	return keys, sound
}

// SelfIssuedKeys parses the keys of a service that signs for itself. A shared
// secret is a fault: whom the service calls could sign with it.
func SelfIssuedKeys(s *policyv1.SelfIssued) ([]jose.Key, []Fault) {
	const field = "spec.selfIssued.keySet"
	keys, faults := setKeys(field, s.GetKeySet(), nil)
	var public []jose.Key
	for _, k := range keys {
		if k.Symmetric() {
			faults = append(faults, Fault{Field: field, Message: "holds a shared secret, with which whoever verifies could sign: give public keys"})
			continue
		}
		public = append(public, k)
	}
	return public, faults
}

const emptySecret = "is empty: give the shared secret"

// setKeys parses the keys of a set that are in it.
func setKeys(field string, set *policyv1.KeySet, algorithms []string) ([]jose.Key, []Fault) {
	options := jose.SetOptions{Algorithms: algorithms, AllowWeak: set.GetAllowWeakKeys()}
	switch s := set.GetSource().(type) {
	case *policyv1.KeySet_Jwks:
		if strings.Contains(s.Jwks, Redacted) {
			return nil, []Fault{redacted(field + ".jwks")}
		}
		keys, faults := jose.ParseSet([]byte(s.Jwks), options)
		return keys, keyFaults(field+".jwks", faults)
	case *policyv1.KeySet_Pem:
		return pemKeys(field+".pem.keys", s.Pem.GetKeys(), options)
	case *policyv1.KeySet_Secret:
		return secretKeys(field+".secret.keys", s.Secret.GetKeys(), options)
	}
	return nil, nil
}

// redacted is the fault of a field that was applied as it was shown.
func redacted(field string) Fault {
	return Fault{Field: field, Message: "holds " + Redacted + ", which is shown in place of a secret: put the secret back"}
}

func keyFaults(field string, faults []jose.Fault) []Fault {
	var out []Fault
	for _, f := range faults {
		out = append(out, Fault{Field: field, Message: f.Error()})
	}
	return out
}

func pemKeys(field string, pems []*policyv1.PemKey, options jose.SetOptions) ([]jose.Key, []Fault) {
	var keys []jose.Key
	var faults []Fault
	kids := map[string]bool{}
	for i, p := range pems {
		at := index(field, i)
		if strings.Contains(p.GetPem(), Redacted) {
			faults = append(faults, redacted(at+".pem"))
			continue
		}
		k, f := jose.ParsePEM(p.GetPem(), p.GetKid(), options)
		keys, faults = append(keys, k...), append(faults, keyFaults(at+".pem", f)...)
		faults = append(faults, kidFault(at, p.GetKid(), kids)...)
	}
	if len(pems) == 0 {
		faults = append(faults, Fault{Field: field, Message: "is empty: no token could be verified"})
	}
	return keys, faults
}

// kidFault finds a kid that an earlier key has; at most one key may have none.
func kidFault(field, kid string, earlier map[string]bool) []Fault {
	taken := earlier[kid]
	earlier[kid] = true
	switch {
	case taken && kid == "":
		return []Fault{{Field: field + ".kid", Message: "is missing, and another key has none either; at most one may"}}
	case taken:
		return []Fault{{Field: field + ".kid", Message: "another key has the same kid"}}
	}
	return nil
}

func secretKeys(field string, secrets []*policyv1.SecretKey, options jose.SetOptions) ([]jose.Key, []Fault) {
	var keys []jose.Key
	var faults []Fault
	kids, seen := map[string]bool{}, map[string]bool{}
	for i, s := range secrets {
		at := index(field, i)
		faults = append(faults, kidFault(at, s.GetKid(), kids)...)
		bytes, fault := secretBytes(s)
		if fault == "" && seen[string(bytes)] {
			fault = "another key has the same secret; list each once"
		}
		if fault != "" {
			faults = append(faults, Fault{Field: at + ".secret", Message: fault})
			continue
		}
		seen[string(bytes)] = true
		k, wrong := secretKey(bytes, s, options)
		keys = append(keys, k...)
		for _, f := range wrong {
			faults = append(faults, Fault{Field: at, Message: f.Message})
		}
	}
	if len(secrets) == 0 {
		faults = append(faults, Fault{Field: field, Message: "is empty: no token could be verified"})
	}
	return keys, faults
}

// secretKey reads a shared secret as the JWK that it is equal to.
func secretKey(secret []byte, s *policyv1.SecretKey, options jose.SetOptions) ([]jose.Key, []jose.Fault) {
	jwk := map[string]string{"kty": "oct", "k": base64.RawURLEncoding.EncodeToString(secret)}
	if s.GetKid() != "" {
		jwk["kid"] = s.GetKid()
	}
	if s.GetAlgorithm() != "" {
		jwk["alg"] = s.GetAlgorithm()
	}
	text, err := json.Marshal(map[string]any{"keys": []any{jwk}})
	if err != nil {
		return nil, []jose.Fault{{Index: -1, Message: "can't be read"}}
	}
	return jose.ParseSet(text, options)
}

// secretBytes returns what a secret stands for, or what is wrong with it.
func secretBytes(s *policyv1.SecretKey) (secret []byte, fault string) {
	text := s.GetSecret()
	switch {
	case text == "":
		return nil, emptySecret
	case strings.Contains(text, Redacted):
		return nil, redacted("").Message
	case !s.GetBase64():
		return []byte(text), ""
	}
	// RFC 4648 sections 4 and 5, with padding or without.
	plain := strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimRight(text, "="))
	secret, err := base64.RawURLEncoding.DecodeString(plain)
	if err != nil || len(secret) == 0 {
		return nil, "is not base64 (RFC 4648): leave base64 out if the text itself is the secret"
	}
	return secret, ""
}
