package policy

import (
	"slices"
	"strings"
	"time"

	"github.com/watchword-mesh/watchword/internal/jose"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Algorithms that an issuer's keys may have: those that every data plane
// verifies (JWA names, RFC 7518 section 3.1, RFC 8037).
var Algorithms = []string{
	"ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512",
	"PS256", "PS384", "PS512", "RS256", "RS384", "RS512",
}

func (c *checker) issuer(s *policyv1.IssuerSpec) {
	c.issuerClaim(s.GetIssuer())
	for i, alg := range s.GetAlgorithms() {
		if !slices.Contains(Algorithms, alg) {
			c.fault(index("spec.algorithms", i), "%q is not an algorithm; there are %s", clip(alg), strings.Join(Algorithms, ", "))
		}
		c.once("spec.algorithms", s.GetAlgorithms(), i)
	}
	builtin := s.GetKeySet().GetBuiltin()
	switch {
	case s.GetKeySet().GetSource() == nil:
		c.fault("spec.keySet", "is missing: give jwks or pem")
	case builtin != nil && c.key.Name != BuiltinIssuer:
		c.fault("spec.keySet.builtin", "only the Issuer %q has the built-in keys; give jwks or pem", BuiltinIssuer)
	case builtin == nil && c.key.Name == BuiltinIssuer:
		c.fault("metadata.name", "%q is the built-in issuer; choose another name", BuiltinIssuer)
	case builtin != nil:
		c.builtin(builtin)
		if len(s.GetAlgorithms()) > 0 {
			c.fault("spec.algorithms", "the built-in issuer chooses its own")
		}
	case c.since[c.key] == c.state[c.key] && c.since != nil:
		// Its keys were parsed when it was stored.
	default:
		_, faults := IssuerKeys(s)
		for _, f := range faults {
			c.fault(f.Field, "%s", f.Message)
		}
	}
}

func (c *checker) issuerClaim(iss string) {
	switch {
	case iss == "":
		c.fault("spec.issuer", `is missing: the exact "iss" of its tokens`)
		return
	case len(iss) > 512 || strings.ContainsFunc(iss, func(r rune) bool { return r < ' ' || r == 0x7f }):
		c.fault("spec.issuer", "%q is not an issuer: no control characters, at most 512 bytes", clip(iss))
	}
	if owner := c.issuers[iss]; owner != "" {
		c.fault("spec.issuer", "%q belongs to Issuer %q already; a key of one could sign for the other", clip(iss), owner)
		return
	}
	c.issuers[iss] = c.key.Name
}

func (c *checker) builtin(b *policyv1.BuiltinKeys) {
	if !trustDomain.MatchString(b.GetTrustDomain()) {
		c.fault("spec.keySet.builtin.trustDomain", "%q is not a trust domain: lower-case letters, digits and . - _", clip(b.GetTrustDomain()))
	}
	c.seconds("spec.keySet.builtin.tokenLifetime", b.GetTokenLifetime(), time.Second, time.Hour)
}

// IssuerKeys parses the keys that an Issuer holds itself; none for the
// built-in one, and none for one whose keys are fetched.
func IssuerKeys(s *policyv1.IssuerSpec) ([]jose.Key, []Fault) {
	if s.GetKeySet().GetJwksUri() != nil {
		return nil, nil
	}
	options := jose.SetOptions{Algorithms: s.GetAlgorithms()}
	if jwks := s.GetKeySet().GetJwks(); jwks != "" || s.GetKeySet().GetPem() == nil {
		if s.GetKeySet().GetBuiltin() != nil {
			return nil, nil
		}
		if strings.Contains(jwks, Redacted) {
			return nil, []Fault{{Field: "spec.keySet.jwks", Message: "holds " + Redacted + ", which is shown in place of a secret: put the secret back"}}
		}
		keys, faults := jose.ParseSet([]byte(jwks), options)
		return keys, keyFaults("spec.keySet.jwks", faults)
	}
	return pemKeys(s.GetKeySet().GetPem().GetKeys(), options)
}

func keyFaults(field string, faults []jose.Fault) []Fault {
	var out []Fault
	for _, f := range faults {
		out = append(out, Fault{Field: field, Message: f.Error()})
	}
	return out
}

func pemKeys(pems []*policyv1.PemKey, options jose.SetOptions) ([]jose.Key, []Fault) {
	var keys []jose.Key
	var faults []Fault
	kids := map[string]bool{}
	for i, p := range pems {
		field := index("spec.keySet.pem.keys", i)
		k, f := jose.ParsePEM(p.GetPem(), p.GetKid(), options)
		keys, faults = append(keys, k...), append(faults, keyFaults(field+".pem", f)...)
		if kids[p.GetKid()] && p.GetKid() == "" {
			faults = append(faults, Fault{Field: field + ".kid", Message: "is missing, and another key has none either; at most one may"})
		} else if kids[p.GetKid()] {
			faults = append(faults, Fault{Field: field + ".kid", Message: "another key has the same kid"})
		}
		kids[p.GetKid()] = true
	}
	if len(pems) == 0 {
		faults = append(faults, Fault{Field: "spec.keySet.pem.keys", Message: "is empty: no token could be verified"})
	}
	return keys, faults
}
