package compile

import (
	"strings"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// byDefault holds where no AuthenticationPolicy does: a token of the built-in
// issuer for the service itself.
var byDefault = &policyv1.AuthenticationPolicySpec{
	Mode:     policyv1.AuthenticationPolicySpec_STRICT,
	JwtRules: []*policyv1.JwtRule{{Issuer: policy.BuiltinIssuer}},
}

var modes = map[policyv1.AuthenticationPolicySpec_Mode]dataplanev1.Authentication_Mode{
	policyv1.AuthenticationPolicySpec_MODE_UNSPECIFIED: dataplanev1.Authentication_STRICT,
	policyv1.AuthenticationPolicySpec_STRICT:           dataplanev1.Authentication_STRICT,
	policyv1.AuthenticationPolicySpec_OPTIONAL:         dataplanev1.Authentication_OPTIONAL,
	policyv1.AuthenticationPolicySpec_OFF:              dataplanev1.Authentication_OFF,
}

func (c *compiler) authentication(route string) *dataplanev1.Authentication {
	name, spec := c.in.Policies.AuthenticationFor(c.service, route)
	if name == "" {
		spec = byDefault
	}
	a := &dataplanev1.Authentication{Policy: name, Mode: modes[spec.GetMode()]}
	for _, r := range spec.GetJwtRules() {
		if len(c.in.Keys[r.GetIssuer()]) > 0 {
			a.Rules = append(a.Rules, c.tokenRule(r))
		}
	}
	return a
}

func (c *compiler) tokenRule(r *policyv1.JwtRule) *dataplanev1.TokenRule {
	c.issuers[r.GetIssuer()] = true
	lifetime := DefaultForeignMaxLifetime
	if r.GetIssuer() == policy.BuiltinIssuer {
		lifetime = DefaultMaxLifetime
	}
	t := &dataplanev1.TokenRule{
		Issuer:               r.GetIssuer(),
		Audiences:            r.GetAudiences(),
		FromParams:           locations(r.GetFromParams()),
		FromCookies:          locations(r.GetFromCookies()),
		ClockSkew:            duration(r.GetClockSkew(), DefaultClockSkew),
		MaxLifetime:          duration(r.GetMaxLifetime(), lifetime),
		ForwardOriginalToken: r.GetForwardOriginalToken(),
	}
	if len(t.Audiences) == 0 {
		t.Audiences = policy.Audiences(c.service, c.spec)
	}
	for _, h := range r.GetFromHeaders() {
		t.FromHeaders = append(t.FromHeaders, &dataplanev1.TokenLocation{Name: strings.ToLower(h.GetName()), Prefix: h.GetPrefix()})
	}
	// RFC 6750 section 2.1. Envoy's own default would also take the query
	// parameter access_token, which ends up in logs.
	if len(t.FromHeaders)+len(t.FromParams)+len(t.FromCookies) == 0 {
		t.FromHeaders = []*dataplanev1.TokenLocation{{Name: "authorization", Prefix: "Bearer "}}
	}
	for _, o := range r.GetOutputClaims() {
		t.OutputClaims = append(t.OutputClaims, &dataplanev1.OutputClaim{ClaimPath: o.GetClaimPath(), Header: strings.ToLower(o.GetHeader())})
	}
	return t
}

func locations(list []*policyv1.TokenLocation) []*dataplanev1.TokenLocation {
	var out []*dataplanev1.TokenLocation
	for _, l := range list {
		out = append(out, &dataplanev1.TokenLocation{Name: l.GetName(), Prefix: l.GetPrefix()})
	}
	return out
}
