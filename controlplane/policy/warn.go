package policy

import (
	"fmt"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Warnings says what of the objects is allowed in a state and may still
// surprise.
func Warnings(objects []*Object, in State) []string {
	var out []string
	for _, o := range objects {
		switch spec := o.Resource.GetSpec().(type) {
		case *policyv1.Resource_AuthorizationPolicy:
			out = append(out, authorizationWarnings(o, spec.AuthorizationPolicy, in)...)
		case *policyv1.Resource_AuthenticationPolicy:
			if s := spec.AuthenticationPolicy; s.GetMode() == policyv1.AuthenticationPolicySpec_OFF && len(s.GetTarget().GetServices()) == 0 {
				out = append(out, warning(o, "spec.mode", "switches authentication off for every service without a policy of its own"))
			}
		}
	}
	return out
}

func authorizationWarnings(o *Object, s *policyv1.AuthorizationPolicySpec, in State) []string {
	if s.GetAction() == policyv1.AuthorizationPolicySpec_ALLOW && len(s.GetRules()) == 0 {
		return []string{warning(o, "spec", "has no rules, so that it allows nothing")}
	}
	if s.GetAction() != policyv1.AuthorizationPolicySpec_DENY {
		return nil
	}
	place := in.withoutToken(s.GetTarget())
	var out []string
	for i, r := range s.GetRules() {
		if place != "" && (r.GetFrom() != nil || len(r.GetWhen()) > 0) {
			out = append(out, warning(o, index("spec.rules", i), "denies by what is in the token, but a caller of "+place+" gets past by sending none: its mode is not STRICT"))
		}
	}
	return out
}

// withoutToken returns a place in the target where requests without a token
// are let in, or "".
func (s State) withoutToken(t *policyv1.Target) string {
	policies := s.Policies()
	for _, name := range s.Services() {
		for _, route := range routeNames(s.Service(name)) {
			if Match(t, name, route) == LevelNone {
				continue
			}
			switch _, spec := policies.AuthenticationFor(name, route); spec.GetMode() {
			case policyv1.AuthenticationPolicySpec_OPTIONAL, policyv1.AuthenticationPolicySpec_OFF:
				return describeTarget(name, route)
			}
		}
	}
	return ""
}

func warning(o *Object, field, text string) string {
	return fmt.Sprintf("%s:%d: %s: %s: %s", o.Source, o.Line(field), o.Key, field, text)
}
