package controlplane

import (
	"fmt"

	"github.com/google/uuid"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// builtinIssuer is the Issuer that the first start stores.
func builtinIssuer(url, trustDomain string) *policyv1.Resource {
	return &policyv1.Resource{
		Metadata: &policyv1.Metadata{Name: policy.BuiltinIssuer, Uid: uuid.NewString()},
		Spec: &policyv1.Resource_Issuer{Issuer: &policyv1.IssuerSpec{
			Issuer: url,
			KeySet: &policyv1.KeySet{Source: &policyv1.KeySet_Builtin{Builtin: &policyv1.BuiltinKeys{TrustDomain: trustDomain}}},
		}},
	}
}

// fits refuses flags that contradict what the first start has fixed: tokens
// and policies in use name it.
func (r *replica) fits(given Config) error {
	spec := r.loop.current.Load().Config.Issuer(policy.BuiltinIssuer)
	domain := spec.GetKeySet().GetBuiltin().GetTrustDomain()
	if given.IssuerURL != "" && given.IssuerURL != spec.GetIssuer() {
		return fmt.Errorf("--issuer-url %s: the first start fixed %s, which tokens in use name; leave the flag out, or start on empty data", given.IssuerURL, spec.GetIssuer())
	}
	if given.TrustDomain != "" && given.TrustDomain != domain {
		return fmt.Errorf("--trust-domain %s: the first start fixed %s, which tokens in use name; leave the flag out, or start on empty data", given.TrustDomain, domain)
	}
	return nil
}
