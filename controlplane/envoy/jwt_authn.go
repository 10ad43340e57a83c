package envoy

import (
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/emptypb"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// The cache of verified tokens, per provider and worker: a service with
// thousands of callers gets a token of each into it, and at worst it takes
// 4 MiB of token text. Longer tokens are verified each time. `exp` is looked
// at on a hit, too; a new config starts with an empty cache.
const (
	cachedTokens    = 1024
	cachedTokenSize = 4096
)

// providers are the distinct token rules of a ruleset. Routes that take the
// same tokens share one, and so its cache.
type providers struct {
	byName map[string]*dataplanev1.TokenRule
	names  map[string]string // encoded rule -> name
}

// newProviders names each distinct rule ISSUER/N, by first use.
func newProviders(rs *dataplanev1.Ruleset) *providers {
	ps := &providers{byName: map[string]*dataplanev1.TokenRule{}, names: map[string]string{}}
	count := map[string]int{}
	for _, r := range rs.GetRoutes() {
		if r.GetAuthentication().GetMode() == dataplanev1.Authentication_OFF {
			continue
		}
		for _, tr := range r.GetAuthentication().GetRules() {
			key := encoded(tr)
			if _, ok := ps.names[key]; ok {
				continue
			}
			name := fmt.Sprintf("%s/%d", tr.GetIssuer(), count[tr.GetIssuer()])
			count[tr.GetIssuer()]++
			ps.names[key], ps.byName[name] = name, tr
		}
	}
	return ps
}

// of are the names of the providers of a route, in its order.
func (ps *providers) of(a *dataplanev1.Authentication) []string {
	var out []string
	for _, tr := range a.GetRules() {
		out = append(out, ps.names[encoded(tr)])
	}
	return out
}

// jwtAuthn verifies what the route that was selected asks for. A route without
// requirement passes here: watchword.allow decides whether that is meant.
func jwtAuthn(rs *dataplanev1.Ruleset, ps *providers) *jwtv3.JwtAuthentication {
	issuers := map[string]*dataplanev1.Issuer{}
	for _, is := range rs.GetIssuers() {
		issuers[is.GetName()] = is
	}
	c := &jwtv3.JwtAuthentication{
		Providers: map[string]*jwtv3.JwtProvider{},
		FilterStateRules: &jwtv3.FilterStateRule{
			Name:     routeStateKey,
			Requires: map[string]*jwtv3.JwtRequirement{},
		},
	}
	for name, tr := range ps.byName {
		c.Providers[name] = jwtProvider(name, tr, issuers[tr.GetIssuer()])
	}
	for i, r := range rs.GetRoutes() {
		if req := requirement(r.GetAuthentication(), ps); req != nil {
			c.FilterStateRules.Requires[routeID(i)] = req
		}
	}
	return c
}

// requirement is nil when no token is looked at.
func requirement(a *dataplanev1.Authentication, ps *providers) *jwtv3.JwtRequirement {
	if a.GetMode() == dataplanev1.Authentication_OFF {
		return nil
	}
	var list []*jwtv3.JwtRequirement
	for _, name := range ps.of(a) {
		list = append(list, &jwtv3.JwtRequirement{
			RequiresType: &jwtv3.JwtRequirement_ProviderName{ProviderName: name},
		})
	}
	if a.GetMode() == dataplanev1.Authentication_OPTIONAL {
		list = append(list, &jwtv3.JwtRequirement{
			RequiresType: &jwtv3.JwtRequirement_AllowMissing{AllowMissing: &emptypb.Empty{}},
		})
	}
	if len(list) == 1 { // Envoy refuses a list of one
		return list[0]
	}
	return &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_RequiresAny{
		RequiresAny: &jwtv3.JwtRequirementOrList{Requirements: list},
	}}
}

func jwtProvider(name string, tr *dataplanev1.TokenRule, is *dataplanev1.Issuer) *jwtv3.JwtProvider {
	p := &jwtv3.JwtProvider{
		Issuer:              is.GetIssuer(),
		Audiences:           tr.GetAudiences(),
		JwksSourceSpecifier: localJWKS(is.GetKeys()),
		// Without it a token that never expires passes.
		RequireExpiration: true,
		ClockSkewSeconds:  uint32(tr.GetClockSkew().GetSeconds()),
		Forward:           tr.GetForwardOriginalToken(),
		FromParams:        locationNames(tr.GetFromParams()),
		FromCookies:       locationNames(tr.GetFromCookies()),
		PayloadInMetadata: payloadKey,
		HeaderInMetadata:  verifiedByKey + name,
		NormalizePayloadInMetadata: &jwtv3.JwtProvider_NormalizePayload{
			SpaceDelimitedClaims: []string{"scope"},
		},
		FailedStatusInMetadata: failedKey,
		JwtCacheConfig:         &jwtv3.JwtCacheConfig{JwtCacheSize: cachedTokens, JwtMaxTokenSize: cachedTokenSize},
	}
	if d := tr.GetMaxLifetime(); d != nil {
		// Envoy grants the skew to exp and nbf, but not here: a token that was
		// signed a moment ago for the whole of max_lifetime would be refused
		// wherever the clock is a little behind the issuer's.
		p.MaxLifetime = durationpb.New(d.AsDuration() + tr.GetClockSkew().AsDuration())
	}
	for _, h := range tr.GetFromHeaders() {
		p.FromHeaders = append(p.FromHeaders, &jwtv3.JwtHeader{Name: h.GetName(), ValuePrefix: h.GetPrefix()})
	}
	for _, oc := range tr.GetOutputClaims() {
		p.ClaimToHeaders = append(p.ClaimToHeaders, claimToHeader(oc))
	}
	return p
}

func locationNames(list []*dataplanev1.TokenLocation) []string {
	var out []string
	for _, l := range list {
		out = append(out, l.GetName())
	}
	return out
}

// claimToHeader always gives the names one by one: `a.b` may be one claim or
// two names.
func claimToHeader(oc *dataplanev1.OutputClaim) *jwtv3.JwtClaimToHeader {
	c := &jwtv3.JwtClaimToHeader{HeaderName: oc.GetHeader()}
	for _, p := range oc.GetClaimPath() {
		c.ClaimPath = append(c.ClaimPath, &jwtv3.JwtClaimToHeader_PathSegment{
			Key: p,
		})
	}
	return c
}

// localJWKS keeps the order of keys: those without kid are tried one by one.
func localJWKS(keys []*dataplanev1.Key) *jwtv3.JwtProvider_LocalJwks {
	var list []string
	for _, k := range keys {
		list = append(list, k.GetJwk())
	}
	return &jwtv3.JwtProvider_LocalJwks{LocalJwks: &corev3.DataSource{
		Specifier: &corev3.DataSource_InlineString{InlineString: `{"keys":[` + strings.Join(list, ",") + `]}`},
	}}
}
