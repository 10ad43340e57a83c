package policy

import (
	"regexp"
	"slices"

	"github.com/watchword-mesh/watchword/internal/identity"
	"github.com/watchword-mesh/watchword/internal/jose"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// workload names the pods of a Kubernetes service account.
type workload struct{ issuer, namespace, serviceAccount string }

// dnsSubdomain is what Kubernetes takes as the name of a service account (RFC
// 1123 section 2.1).
var dnsSubdomain = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

func (c *checker) bootstrap(b *policyv1.Bootstrap) {
	if b != nil && len(b.GetKubernetes()) == 0 {
		c.fault("spec.bootstrap", "is empty: give kubernetes, or leave it out")
	}
	for i, w := range b.GetKubernetes() {
		c.kubernetes(index("spec.bootstrap.kubernetes", i), w)
	}
}

func (c *checker) kubernetes(field string, w *policyv1.KubernetesWorkload) {
	c.voucher(field+".issuer", w.GetIssuer())
	if !identity.IsName(w.GetNamespace()) {
		c.fault(field+".namespace", "%q is not a namespace: lower-case letters, digits and dashes, at most 63, a letter or digit at both ends", clip(w.GetNamespace()))
	}
	if a := w.GetServiceAccount(); len(a) > 253 || !dnsSubdomain.MatchString(a) {
		c.fault(field+".serviceAccount", "%q is not the name of a service account: lower-case letters, digits, dashes and dots, at most 253", clip(a))
	}
	for i, aud := range w.GetAudiences() {
		c.ownAudience(index(field+".audiences", i), aud)
		c.once(field+".audiences", w.GetAudiences(), i)
	}
	if iss := c.state.Issuer(BuiltinIssuer).GetIssuer(); len(w.GetAudiences()) == 0 && iss != "" {
		c.ownAudience(field, iss) // the default
	}
	at := workload{w.GetIssuer(), w.GetNamespace(), w.GetServiceAccount()}
	switch owner := c.workloads[at]; owner {
	case "":
		c.workloads[at] = c.key.Name
	case c.key.Name:
		c.fault(field, "is given twice; put all audiences into one entry")
	default:
		c.fault(field, "is a workload of Service %q already: which of the two would its pods be?", owner)
	}
}

// voucher checks an Issuer whose tokens say who somebody is to the control plane
// itself, so that nobody but the Issuer may be able to sign them.
func (c *checker) voucher(field, name string) {
	wrong, known := c.vouching[name]
	if !known {
		wrong = vouches(name, c.state.Issuer(name))
		c.vouching[name] = wrong
	}
	if wrong != "" {
		c.fault(field, "%s", wrong)
	}
}

// vouches says why an Issuer can't vouch for anybody, or "".
func vouches(name string, s *policyv1.IssuerSpec) string {
	quoted := `"` + clip(name) + `"`
	switch {
	case s == nil:
		return "there is no Issuer " + quoted
	case s.GetKeySet().GetBuiltin() != nil:
		return "the Issuer " + quoted + " is the built-in one, whose tokens are of services of this mesh already"
	case s.GetIssuer() == "":
		return "the Issuer " + quoted + ` has no issuer, so that the "iss" of its tokens is not looked at: give it one`
	case s.GetKeySet().GetAllowWeakKeys():
		return "the Issuer " + quoted + " takes weak keys, with which others could sign: take allowWeakKeys away"
	case hasSharedSecret(s):
		return "the Issuer " + quoted + " has a shared secret, with which whoever verifies could sign: it needs public keys"
	}
	return ""
}

// hasSharedSecret is about the keys that an Issuer holds itself: of those that
// are fetched, shared secrets are left out.
func hasSharedSecret(s *policyv1.IssuerSpec) bool {
	if s.GetKeySet().GetSecret() != nil {
		return true
	}
	keys, _ := IssuerKeys(s)
	return slices.ContainsFunc(keys, jose.Key.Symmetric)
}
