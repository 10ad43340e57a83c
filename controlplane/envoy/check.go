package envoy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// check refuses what Envoy would refuse, and what it would accept but enforce
// less of than is written. The compiler of policies makes no such ruleset; this
// is the last place before the wire. All faults are reported at once.
func check(rs *dataplanev1.Ruleset) error {
	var errs []error
	if rs.GetService() == "" {
		errs = append(errs, errors.New("the ruleset names no service"))
	}
	issuers := map[string]bool{}
	for _, is := range rs.GetIssuers() {
		if issuers[is.GetName()] {
			errs = append(errs, fmt.Errorf("issuer %q is there twice", is.GetName()))
		}
		issuers[is.GetName()] = true
		errs = append(errs, within(checkIssuer(is), "issuer %q", is.GetName()))
	}
	errs = append(errs, checkLastRoute(rs.GetRoutes()))
	locations := tokenHeaders(rs)
	for i, r := range rs.GetRoutes() {
		errs = append(errs, within(checkRoute(r, issuers, locations), "route %d %q", i, r.GetName()))
	}
	return errors.Join(errs...)
}

// within says where each of the joined faults is.
func within(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	where := fmt.Sprintf(format, args...)
	list, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return fmt.Errorf("%s: %w", where, err)
	}
	var errs []error
	for _, e := range list.Unwrap() {
		errs = append(errs, within(e, "%s", where))
	}
	return errors.Join(errs...)
}

func checkIssuer(is *dataplanev1.Issuer) error {
	if len(is.GetKeys()) == 0 {
		return errors.New("it has no keys: Envoy keeps the config it has, so revoked keys stay")
	}
	return nil
}

func checkLastRoute(routes []*dataplanev1.Route) error {
	if len(routes) == 0 {
		return errors.New("there are no routes")
	}
	if len(routes) > maxRoutes {
		return fmt.Errorf("%d routes are more than %d", len(routes), maxRoutes)
	}
	m := routes[len(routes)-1].GetMatch()
	if len(m.GetHosts())+len(m.GetPaths())+len(m.GetMethods()) > 0 {
		return errors.New("the last route does not match every request")
	}
	return nil
}

func checkRoute(r *dataplanev1.Route, issuers, locations map[string]bool) error {
	errs := []error{checkMatch(r.GetMatch())}
	a := r.GetAuthentication()
	switch a.GetMode() {
	case dataplanev1.Authentication_OFF:
	case dataplanev1.Authentication_STRICT, dataplanev1.Authentication_OPTIONAL:
		if len(a.GetRules()) == 0 {
			errs = append(errs, fmt.Errorf("mode %s needs a token rule", a.GetMode()))
		}
	default:
		errs = append(errs, fmt.Errorf("authentication mode %s is not known", a.GetMode()))
	}
	for i, tr := range a.GetRules() {
		errs = append(errs, within(checkTokenRule(tr, issuers, locations), "token rule %d", i))
	}
	az := r.GetAuthorization()
	for _, rule := range slices.Concat(az.GetDeny(), az.GetAllow()) {
		errs = append(errs, within(checkAuthorizationRule(rule), "authorization rule %q", rule.GetName()))
	}
	return errors.Join(errs...)
}

func checkMatch(m *dataplanev1.RequestMatch) error {
	for _, h := range m.GetHosts() {
		rest := strings.TrimPrefix(h, "*.")
		if rest == "" || strings.ContainsAny(rest, "*:") || rest != strings.ToLower(rest) {
			return fmt.Errorf("host %q is not a lower-case host name, with or without a leading %q", h, "*.")
		}
	}
	for _, p := range m.GetPaths() {
		if !strings.HasPrefix(p, "/") || strings.Contains(strings.TrimSuffix(p, "/*"), "*") {
			return fmt.Errorf("path %q is neither like /a nor like /a/*", p)
		}
	}
	if slices.Contains(m.GetMethods(), "") {
		return errors.New("a method is empty")
	}
	return nil
}

func checkTokenRule(tr *dataplanev1.TokenRule, issuers, locations map[string]bool) error {
	var errs []error
	if !issuers[tr.GetIssuer()] {
		errs = append(errs, fmt.Errorf("issuer %q is not in the ruleset", tr.GetIssuer()))
	}
	if len(tr.GetAudiences()) == 0 || slices.Contains(tr.GetAudiences(), "") {
		errs = append(errs, errors.New("an audience is missing: Envoy would not check it"))
	}
	if len(tr.GetFromHeaders())+len(tr.GetFromParams())+len(tr.GetFromCookies()) == 0 {
		errs = append(errs, errors.New("it does not say where the token is: Envoy would look in places of its own"))
	}
	// Envoy counts whole seconds, and takes 0 for its default of 60.
	if s := tr.GetClockSkew(); s.GetSeconds() < 1 || s.GetSeconds() > 1<<20 || s.GetNanos() != 0 {
		errs = append(errs, fmt.Errorf("clock skew %v is not a number of whole seconds from 1 on", s.AsDuration()))
	}
	if d := tr.GetMaxLifetime(); d != nil && d.AsDuration() <= 0 {
		errs = append(errs, fmt.Errorf("max lifetime %v lets no token through", d.AsDuration()))
	}
	for _, oc := range tr.GetOutputClaims() {
		errs = append(errs, within(checkOutputClaim(oc, locations), "output header %q", oc.GetHeader()))
	}
	return errors.Join(errs...)
}

func checkOutputClaim(oc *dataplanev1.OutputClaim, locations map[string]bool) error {
	h := oc.GetHeader()
	switch {
	case h == "" || strings.HasPrefix(h, ":") || h == "host" || h != strings.ToLower(h):
		return errors.New("it is not the name of a lower-case request header that may be set")
	case strings.HasPrefix(strings.ReplaceAll(h, "_", "-"), headerPrefix):
		return fmt.Errorf("names that begin with %s are our own", headerPrefix)
	case locations[strings.ReplaceAll(h, "_", "-")]:
		return errors.New("tokens are read from it, so it can't be removed first")
	}
	return checkClaimPath(oc.GetClaimPath())
}

// tokenHeaders are the headers that any route reads tokens from.
func tokenHeaders(rs *dataplanev1.Ruleset) map[string]bool {
	out := map[string]bool{}
	for _, r := range rs.GetRoutes() {
		for _, tr := range r.GetAuthentication().GetRules() {
			for _, h := range tr.GetFromHeaders() {
				out[strings.ReplaceAll(strings.ToLower(h.GetName()), "_", "-")] = true
			}
			if len(tr.GetFromCookies()) > 0 {
				out["cookie"] = true
			}
		}
	}
	return out
}

func checkAuthorizationRule(rule *dataplanev1.AuthorizationRule) error {
	errs := []error{checkMatch(rule.GetTo())}
	for _, p := range rule.GetFrom() {
		if p.GetIssuer() == "" {
			errs = append(errs, fmt.Errorf("subject %q has no issuer", p.GetSubject()))
		}
	}
	for _, m := range rule.GetWhen() {
		errs = append(errs, checkClaimMatch(m))
	}
	return errors.Join(errs...)
}

func checkClaimMatch(m *dataplanev1.ClaimMatch) error {
	if err := checkClaimPath(m.GetClaimPath()); err != nil {
		return err
	}
	where := strings.Join(m.GetClaimPath(), " > ")
	switch m.GetOp() {
	case dataplanev1.ClaimMatch_EXISTS:
		return nil
	case dataplanev1.ClaimMatch_IN, dataplanev1.ClaimMatch_NOT_IN:
	default:
		return fmt.Errorf("claim %s: operator %s is not known", where, m.GetOp())
	}
	if len(m.GetValues()) == 0 {
		return fmt.Errorf("claim %s: there are no values", where)
	}
	for _, v := range m.GetValues() {
		switch v.GetKind().(type) {
		case *structpb.Value_StringValue, *structpb.Value_NumberValue, *structpb.Value_BoolValue:
		default:
			return fmt.Errorf("claim %s: a value is neither string, number nor boolean", where)
		}
	}
	return nil
}

func checkClaimPath(path []string) error {
	if len(path) == 0 || slices.Contains(path, "") {
		return errors.New("the path of a claim is empty, or has an empty name")
	}
	return nil
}
