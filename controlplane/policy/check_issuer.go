package policy

import (
	"slices"
	"strings"
	"time"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Algorithms that an issuer's keys may have: those that every data plane
// verifies (JWA names, RFC 7518 section 3.1, RFC 8037).
var Algorithms = []string{
	"ES256", "ES384", "ES512", "EdDSA", "HS256", "HS384", "HS512",
	"PS256", "PS384", "PS512", "RS256", "RS384", "RS512",
}

// SigningAlgorithms are those that the built-in issuer can sign with: all but the
// ones with shared secrets.
var SigningAlgorithms = slices.DeleteFunc(slices.Clone(Algorithms), func(alg string) bool { return strings.HasPrefix(alg, "HS") })

func (c *checker) issuer(s *policyv1.IssuerSpec) {
	c.issuerClaim("spec.issuer", s.GetIssuer())
	if s.GetIssuer() == "" && s.GetKeySet().GetBuiltin() != nil {
		c.fault("spec.issuer", `is missing: the exact "iss" of its tokens`)
	}
	for i, alg := range s.GetAlgorithms() {
		c.algorithm(index("spec.algorithms", i), alg)
		c.once("spec.algorithms", s.GetAlgorithms(), i)
	}
	builtin := s.GetKeySet().GetBuiltin()
	switch {
	case s.GetKeySet().GetSource() == nil:
		c.fault("spec.keySet", "is missing: give jwks, jwksUri, pem or secret")
	case builtin != nil && c.key.Name != BuiltinIssuer:
		c.fault("spec.keySet.builtin", "only the Issuer %q has the built-in keys; give jwks, jwksUri, pem or secret", BuiltinIssuer)
	case builtin == nil && c.key.Name == BuiltinIssuer:
		c.fault("metadata.name", "%q is the built-in issuer; choose another name", BuiltinIssuer)
	case builtin != nil:
		c.builtin(s)
	case c.fresh():
		_, faults := IssuerKeys(s)
		c.add(faults)
		c.jwksURI("spec.keySet.jwksUri", s.GetKeySet().GetJwksUri())
	}
}

// algorithm checks a JWA name.
func (c *checker) algorithm(field, alg string) {
	if !slices.Contains(Algorithms, alg) {
		c.fault(field, "%q is not an algorithm; there are %s", clip(alg), strings.Join(Algorithms, ", "))
	}
}

// issuerClaim checks an `iss`, and that nobody else has it; none belongs to
// nobody.
func (c *checker) issuerClaim(field, iss string) {
	if iss == "" {
		return
	}
	if len(iss) > 512 || hasControl(iss) {
		c.fault(field, "%q is not an issuer: no control characters, at most 512 bytes", clip(iss))
	}
	if owner, taken := c.issuers[iss]; taken {
		c.fault(field, "%q belongs to %s %q already; a key of one could sign for the other", clip(iss), owner.Kind, owner.Name)
		return
	}
	c.issuers[iss] = c.key
}

// hasControl says whether a text has a character that no header may have (RFC
// 9110 section 5.5).
func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func (c *checker) builtin(s *policyv1.IssuerSpec) {
	b := s.GetKeySet().GetBuiltin()
	if !trustDomain.MatchString(b.GetTrustDomain()) {
		c.fault("spec.keySet.builtin.trustDomain", "%q is not a trust domain: lower-case letters, digits and . - _", clip(b.GetTrustDomain()))
	}
	c.seconds("spec.keySet.builtin.tokenLifetime", b.GetTokenLifetime(), time.Second, time.Hour)
	c.seconds("spec.keySet.builtin.signingHorizon", b.GetSigningHorizon(), time.Minute, mostHorizon)
	c.rotation(b.GetRotation())
	if alg := b.GetAlgorithm(); alg != "" && !slices.Contains(SigningAlgorithms, alg) {
		c.fault("spec.keySet.builtin.algorithm", "%q is not an algorithm to sign with; there are %s", clip(alg), strings.Join(SigningAlgorithms, ", "))
	}
	if len(s.GetAlgorithms()) > 0 {
		c.fault("spec.algorithms", "is for keys of others; what the built-in issuer signs with is spec.keySet.builtin.algorithm")
	}
	if s.GetKeySet().GetAllowWeakKeys() {
		c.fault("spec.keySet.allowWeakKeys", "has no meaning for the built-in keys")
	}
}

// Bounds of rotation. A key that signs for longer than a year is better changed by
// hand, and said so.
const (
	mostHorizon = 7 * 24 * time.Hour
	mostEvery   = 365 * 24 * time.Hour
	mostGrace   = 24 * time.Hour
)

func (c *checker) rotation(r *policyv1.KeyRotation) {
	if every := r.GetEvery(); every.AsDuration() != 0 {
		c.seconds("spec.keySet.builtin.rotation.every", every, time.Minute, mostEvery)
	}
	c.seconds("spec.keySet.builtin.rotation.grace", r.GetGrace(), time.Second, mostGrace)
}
