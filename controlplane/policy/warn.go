package policy

import (
	"fmt"
	"slices"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Warnings says what of the objects is allowed in a state and may still
// surprise.
func Warnings(objects []*Object, in State) []string {
	w := &warner{state: in, policies: in.Policies()}
	for _, o := range objects {
		w.object = o
		switch spec := o.Resource.GetSpec().(type) {
		case *policyv1.Resource_Issuer:
			w.issuer(spec.Issuer)
		case *policyv1.Resource_AuthorizationPolicy:
			w.authorization(spec.AuthorizationPolicy)
		case *policyv1.Resource_AuthenticationPolicy:
			w.authentication(spec.AuthenticationPolicy)
		case *policyv1.Resource_RoleBinding:
			w.roleBinding(spec.RoleBinding)
		}
		w.weakKeys(o.Resource)
	}
	return w.out
}

type warner struct {
	state    State
	policies *Policies
	object   *Object
	out      []string
}

func (w *warner) warn(field, format string, args ...any) {
	o := w.object
	w.out = append(w.out, fmt.Sprintf("%s:%d: %s: %s: %s", o.Source, o.Line(field), o.Key, field, fmt.Sprintf(format, args...)))
}

func (w *warner) issuer(s *policyv1.IssuerSpec) {
	if s.GetIssuer() == "" && s.GetKeySet().GetBuiltin() == nil {
		w.warn("spec", `has no issuer: the "iss" of its tokens is not looked at, so that whoever holds one of the keys may write anything there`)
	}
}

func (w *warner) weakKeys(r *policyv1.Resource) {
	const text = "takes keys that can be broken: RSA keys under 2048 bits, and shared secrets that can be guessed"
	if r.GetIssuer().GetKeySet().GetAllowWeakKeys() {
		w.warn("spec.keySet.allowWeakKeys", text)
	}
	if r.GetService().GetSelfIssued().GetKeySet().GetAllowWeakKeys() {
		w.warn("spec.selfIssued.keySet.allowWeakKeys", text)
	}
	for i, c := range r.GetConsumer().GetCredentials() {
		if c.GetKeySet().GetAllowWeakKeys() {
			w.warn(index("spec.credentials", i)+".keySet.allowWeakKeys", text)
		}
	}
}

func (w *warner) authentication(s *policyv1.AuthenticationPolicySpec) {
	if s.GetMode() == policyv1.AuthenticationPolicySpec_OFF && len(s.GetTarget().GetServices()) == 0 {
		w.warn("spec.mode", "switches authentication off for every service without a policy of its own")
	}
	if place := w.onlyObserved(s); place != "" {
		w.warn("spec.enforcement", "nothing is enforced at %s: the default, a token of the built-in issuer, holds only where no policy does. Add an enforced policy beside this one", place)
	}
	for i, r := range s.GetJwtRules() {
		w.rule(index("spec.jwtRules", i), r)
	}
	w.cookies(s)
}

func (w *warner) rule(field string, r *policyv1.JwtRule) {
	if r.GetAudienceCheck() == policyv1.JwtRule_UNCHECKED {
		w.warn(field+".audienceCheck", `"aud" is not looked at: a token for any other service is good here too`)
	}
	switch r.GetExpiration() {
	case policyv1.TimeCheck_IF_PRESENT:
		w.warn(field+".expiration", `a token without "exp" is good for ever`)
	case policyv1.TimeCheck_NOT_CHECKED:
		w.warn(field+".expiration", "expired tokens are good: once stolen, one is good for ever")
	}
	if r.GetNotBefore() == policyv1.TimeCheck_NOT_CHECKED {
		w.warn(field+".notBefore", "tokens are good before their time")
	}
}

// cookies warns of tokens that stay where they are.
func (w *warner) cookies(s *policyv1.AuthenticationPolicySpec) {
	if s.GetAllowScripts() {
		return
	}
	service := ""
	for i, r := range s.GetJwtRules() {
		if len(r.GetFromCookies()) == 0 || r.GetForwardOriginalToken() {
			continue
		}
		if service == "" {
			if service = w.state.envoyUnder(w.policies, w.object.Key.Name, s); service == "" {
				return
			}
		}
		w.warn(index("spec.jwtRules", i)+".fromCookies", "the Envoy of Service %q leaves the token in the cookie, so that the service sees it; set allowScripts: true to have it removed, or forwardOriginalToken: true to say so", service)
	}
}

// onlyObserved returns a place where an observed policy holds, and no enforced
// one does; or "".
func (w *warner) onlyObserved(s *policyv1.AuthenticationPolicySpec) string {
	if s.GetEnforcement() != policyv1.Enforcement_OBSERVE {
		return ""
	}
	return w.state.find(s.GetTarget(), func(service, route string) bool {
		enforced, observed := w.policies.AuthenticationFor(service, route)
		return enforced.Name == "" && observed.Name == w.object.Key.Name
	})
}

func (w *warner) authorization(s *policyv1.AuthorizationPolicySpec) {
	allow := s.GetAction() == policyv1.AuthorizationPolicySpec_ALLOW
	if allow && len(s.GetRules()) == 0 {
		w.warn("spec", "has no rules, so that it allows nothing")
	}
	place := w.withoutToken(s.GetTarget())
	for i, r := range s.GetRules() {
		field := index("spec.rules", i)
		from := r.GetFrom()
		switch {
		case !allow && place != "" && (positives(from) > 0 || len(r.GetWhen()) > 0):
			w.warn(field, "denies by what is in the token, but a caller of %s gets past by sending none: its mode is not STRICT", place)
		case allow && place != "" && from != nil && positives(from) == 0 && len(r.GetWhen()) == 0:
			w.warn(field+".from", "only excludes: a caller of %s gets in by sending no token, since its mode is not STRICT", place)
		}
		if guest := w.guest(from.GetConsumers()); allow && guest != "" {
			w.warn(field+".from.consumers", "lets in requests that no token names a caller of: Consumer %q is an anonymous one", guest)
		}
	}
}

// guest returns one of the consumers that some policy takes for the anonymous
// one, or "".
func (w *warner) guest(consumers []string) string {
	if len(consumers) == 0 {
		return ""
	}
	for _, k := range w.state.keysOf(KindAuthenticationPolicy) {
		if name := w.state[k].GetAuthenticationPolicy().GetAnonymousConsumer(); name != "" && slices.Contains(consumers, name) {
			return name
		}
	}
	return ""
}

// withoutToken returns a place in the target where requests without a token
// are let in, or "".
func (w *warner) withoutToken(t *policyv1.Target) string {
	return w.state.find(t, func(service, route string) bool {
		p := w.policies.effective(service, route)
		switch p.Spec.GetMode() {
		case policyv1.AuthenticationPolicySpec_OPTIONAL, policyv1.AuthenticationPolicySpec_OFF, policyv1.AuthenticationPolicySpec_PERMISSIVE:
			return true
		}
		return p.Spec.GetEnforcement() == policyv1.Enforcement_OBSERVE
	})
}

// find describes the first route of a target for which a function holds, or
// returns "".
func (s State) find(t *policyv1.Target, holds func(service, route string) bool) string {
	for _, name := range s.Services() {
		for _, route := range routeNames(s.Service(name)) {
			if Match(t, name, route) != LevelNone && holds(name, route) {
				return describeTarget(name, route)
			}
		}
	}
	return ""
}
