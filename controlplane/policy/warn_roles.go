package policy

import (
	"slices"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// roleBinding warns of tokens that are sent to services as well as here.
func (w *warner) roleBinding(s *policyv1.RoleBindingSpec) {
	for i, subject := range s.GetSubjects() {
		for j, aud := range subject.GetToken().GetAudiences() {
			if name := w.acceptedBy(subject.GetToken().GetIssuer(), aud); name != "" {
				field := index(index("spec.subjects", i)+".token.audiences", j)
				w.warn(field, "AuthenticationPolicy %q takes tokens for %q too: the services that it is about could use here what callers send them. Use an audience that is for the admin API alone", name, clip(aud))
			}
		}
	}
}

// acceptedBy returns the first policy with a rule that takes tokens of an Issuer
// for an audience, or "".
func (w *warner) acceptedBy(issuer, aud string) string {
	for _, k := range w.state.keysOf(KindAuthenticationPolicy) {
		for _, r := range w.state[k].GetAuthenticationPolicy().GetJwtRules() {
			if r.GetIssuer() == issuer && slices.Contains(r.GetAudiences(), aud) {
				return k.Name
			}
		}
	}
	return ""
}
