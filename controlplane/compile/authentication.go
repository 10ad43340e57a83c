package compile

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

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
	policyv1.AuthenticationPolicySpec_PERMISSIVE:       dataplanev1.Authentication_PERMISSIVE,
}

// authentication compiles a policy; rules without a usable key are left out.
func (c *compiler) authentication(p policy.AuthenticationPolicy, observe bool) *dataplanev1.Authentication {
	a := &dataplanev1.Authentication{
		Policy:            p.Name,
		Mode:              modes[p.Spec.GetMode()],
		Observe:           observe,
		AnonymousConsumer: p.Spec.GetAnonymousConsumer(),
		AllowScripts:      p.Spec.GetAllowScripts(),
		EndStreams:        p.Spec.GetEndStreams() && !observe, // what is only observed ends nothing
	}
	for _, h := range p.Spec.GetConsumerHeaders() {
		a.ConsumerHeaders = append(a.ConsumerHeaders, &dataplanev1.ConsumerHeader{
			Attribute: dataplanev1.ConsumerHeader_Attribute(h.GetAttribute()), Header: strings.ToLower(h.GetHeader()),
		})
	}
	for i, r := range p.Spec.GetJwtRules() {
		if t := c.tokenRule(p.Name, i, r); t != nil {
			a.Rules = append(a.Rules, t)
		} else {
			c.strip(r)
		}
	}
	if len(a.Rules) == 0 {
		a.AnonymousConsumer = ""
	}
	if a.AnonymousConsumer != "" {
		c.consumers[a.AnonymousConsumer] = true
	}
	return a
}

// strip has the headers that a rule without a usable key would write still removed
// from requests: services trust them.
func (c *compiler) strip(lost *policyv1.JwtRule) {
	t := &dataplanev1.TokenRule{OutputClaims: outputClaims(lost.GetOutputClaims()), PayloadHeader: strings.ToLower(lost.GetOutputPayloadToHeader())}
	for _, h := range writtenHeaders(t) {
		if h != "" {
			c.stripped[h] = true
		}
	}
}

// writtenHeaders are the headers that a rule writes, and that callers must not.
func writtenHeaders(t *dataplanev1.TokenRule) []string {
	headers := []string{t.GetPayloadHeader()}
	for _, o := range t.GetOutputClaims() {
		if !o.GetKeepExisting() {
			headers = append(headers, o.GetHeader())
		}
	}
	return headers
}

// observedAuthentication is nil where nothing is observed, or nothing can be.
func (c *compiler) observedAuthentication(p policy.AuthenticationPolicy) *dataplanev1.Authentication {
	if p.Name == "" || p.Spec.GetMode() == policyv1.AuthenticationPolicySpec_OFF {
		return nil
	}
	if a := c.authentication(p, true); len(a.Rules) > 0 {
		return a
	}
	return nil
}

// tokenRule compiles a rule; it is nil if no key could verify its tokens.
func (c *compiler) tokenRule(policyName string, i int, r *policyv1.JwtRule) *dataplanev1.TokenRule {
	t := &dataplanev1.TokenRule{
		FromParams:           locations(r.GetFromParams()),
		FromCookies:          locations(r.GetFromCookies()),
		FromForm:             locations(r.GetFromForm()),
		ClockSkew:            duration(r.GetClockSkew(), DefaultClockSkew),
		OutputClaims:         outputClaims(r.GetOutputClaims()),
		ForwardOriginalToken: r.GetForwardOriginalToken(),
		Expiration:           timeCheck(r.GetExpiration(), dataplanev1.TimeCheck_REQUIRED),
		NotBefore:            timeCheck(r.GetNotBefore(), dataplanev1.TimeCheck_IF_PRESENT),
		RequiredClaims:       slices.Sorted(slices.Values(r.GetRequiredClaims())),
		PayloadHeader:        strings.ToLower(r.GetOutputPayloadToHeader()),
	}
	if !c.signer(t, policyName, i, r) {
		return nil
	}
	t.MaxLifetime = maxLifetime(r, t.GetExpiration())
	c.audiences(t, r)
	for _, h := range r.GetFromHeaders() {
		t.FromHeaders = append(t.FromHeaders, &dataplanev1.TokenLocation{Name: strings.ToLower(h.GetName()), Prefix: h.GetPrefix()})
	}
	// RFC 6750 section 2.1. Envoy's own default would also take the query
	// parameter access_token, which ends up in logs.
	if len(t.FromHeaders)+len(t.FromParams)+len(t.FromCookies)+len(t.FromForm) == 0 {
		t.FromHeaders = []*dataplanev1.TokenLocation{{Name: "authorization", Prefix: "Bearer "}}
	}
	return t
}

// signer says whose tokens a rule is about, and how its caller is named; false
// if there is no key for them.
func (c *compiler) signer(t *dataplanev1.TokenRule, policyName string, i int, r *policyv1.JwtRule) bool {
	switch {
	case r.GetConsumers() != nil:
		t.CredentialSet, t.KeyClaim = c.consumerSet(policyName, i, r.GetConsumers()), keyClaim(r.GetKeyClaim())
	case r.GetServices() != nil:
		t.CredentialSet, t.KeyClaim = c.serviceSet(), keyClaim(nil)
	case len(c.in.Keys[r.GetIssuer()]) == 0:
		return false
	default:
		t.Issuer = r.GetIssuer()
		c.issuers[t.Issuer] = true
		t.Consumers = c.matches(t.Issuer)
		if t.Issuer == policy.BuiltinIssuer {
			t.Types = []string{"at+jwt"} // RFC 9068 section 2.1
		}
		return true
	}
	return t.CredentialSet != ""
}

// ours says whether the tokens of a rule are signed by this mesh.
func ours(r *policyv1.JwtRule) bool {
	return r.GetServices() != nil || r.GetIssuer() == policy.BuiltinIssuer
}

func maxLifetime(r *policyv1.JwtRule, expiration dataplanev1.TimeCheck) *durationpb.Duration {
	switch {
	case ours(r):
		return duration(r.GetMaxLifetime(), DefaultMaxLifetime)
	case expiration == dataplanev1.TimeCheck_REQUIRED:
		return duration(r.GetMaxLifetime(), DefaultForeignMaxLifetime)
	}
	return r.GetMaxLifetime()
}

// audiences never leaves a rule without any by accident: empty is "any" to
// data planes.
func (c *compiler) audiences(t *dataplanev1.TokenRule, r *policyv1.JwtRule) {
	switch {
	case r.GetAudienceCheck() == policyv1.JwtRule_UNCHECKED && !ours(r):
		t.AudienceUnchecked = true
	case len(r.GetAudiences()) > 0:
		t.Audiences = r.GetAudiences()
	default:
		t.Audiences = policy.Audiences(c.service, c.spec)
	}
}

func timeCheck(given policyv1.TimeCheck, fallback dataplanev1.TimeCheck) dataplanev1.TimeCheck {
	if given == policyv1.TimeCheck_TIME_CHECK_UNSPECIFIED {
		return fallback
	}
	return dataplanev1.TimeCheck(given)
}

func keyClaim(k *policyv1.KeyClaim) *dataplanev1.KeyClaim {
	if k == nil {
		k = &policyv1.KeyClaim{Name: "iss"}
	}
	out := &dataplanev1.KeyClaim{Name: k.GetName()}
	for _, s := range k.GetSources() {
		out.Sources = append(out.Sources, dataplanev1.KeyClaim_Source(s))
	}
	if len(out.Sources) == 0 {
		out.Sources = []dataplanev1.KeyClaim_Source{dataplanev1.KeyClaim_PAYLOAD}
	}
	return out
}

func locations(list []*policyv1.TokenLocation) []*dataplanev1.TokenLocation {
	var out []*dataplanev1.TokenLocation
	for _, l := range list {
		out = append(out, &dataplanev1.TokenLocation{Name: l.GetName(), Prefix: l.GetPrefix()})
	}
	return out
}

func outputClaims(list []*policyv1.OutputClaim) []*dataplanev1.OutputClaim {
	var out []*dataplanev1.OutputClaim
	for _, o := range list {
		out = append(out, &dataplanev1.OutputClaim{
			ClaimPath: o.GetClaimPath(), Header: strings.ToLower(o.GetHeader()),
			Query: o.GetQuery(), Cookie: o.GetCookie(), Form: o.GetForm(),
			KeepExisting: o.Override != nil && !o.GetOverride(),
		})
	}
	return out
}
