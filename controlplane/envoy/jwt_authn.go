package envoy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	jwtv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// The cache of verified tokens, per provider and worker: a service with
// thousands of callers gets a token of each into it, and at worst it takes
// 4 MiB of token text. Longer tokens are verified each time. `exp` is looked
// at on a hit, too; a new config starts with an empty cache. The providers of a
// lookup, which may be a thousand, share what one has.
const (
	cachedTokens    = 1024
	fewCachedTokens = 16
	cachedTokenSize = 4096
)

// noSkewCheck is so large a clock skew, in seconds, that neither exp nor nbf matter
// (up to an nbf of about the year 2150), which Envoy has no switch for.
const noSkewCheck = 4_000_000_000

// noCredential is what a token is looked up by whose key claim can't be read, or
// names none: a provider that can't verify it says what is wrong with it.
const noCredential = "watchword.none"

// jwtAuthn verifies what the treatment of the request asks for. It refuses
// nothing: Envoy's refusals can't be told apart by a policy and have texts of
// their own, and its allow_missing_or_failed takes the providers of other
// routes. So each list of providers ends with one whose token, which is our own,
// always verifies, and says nothing; watchword.verify looks at what the others
// left in the metadata.
func (v *verification) jwtAuthn(in *instance) *jwtv3.JwtAuthentication {
	b := &jwtBuilder{v: v, names: map[int]string{}, count: map[string]int{}, config: &jwtv3.JwtAuthentication{
		Providers: map[string]*jwtv3.JwtProvider{passProvider: passingProvider()},
		FilterStateRules: &jwtv3.FilterStateRule{
			Name:     in.stateKey,
			Requires: map[string]*jwtv3.JwtRequirement{},
		},
	}}
	if in.lookup {
		b.lookup(in)
	} else {
		b.byTreatment(in)
	}
	return b.config
}

type jwtBuilder struct {
	v      *verification
	config *jwtv3.JwtAuthentication
	names  map[int]string // of providers, by their marks
	count  map[string]int
}

// byTreatment makes one requirement for each treatment that has a place in the
// instance.
func (b *jwtBuilder) byTreatment(in *instance) {
	names := map[int][]string{}
	for _, pl := range in.places {
		names[pl.treatment] = append(names[pl.treatment], b.place(in, pl))
	}
	for n, list := range names {
		b.require(b.v.plan.treatments[n].id, list)
	}
}

// lookup makes one requirement for each credential.
func (b *jwtBuilder) lookup(in *instance) {
	pl := in.places[0] // they are all alike
	probe := b.v.provider(in, pl, noCredential, passingKeys())
	probe.PayloadInMetadata, probe.HeaderInMetadata, probe.ClaimToHeaders, probe.ForwardPayloadHeader = "", "", nil, ""
	probe.Forward = true
	b.config.Providers[noCredential] = probe
	b.require(noCredential, []string{noCredential})
	credentials := b.v.plan.credentials(pl.rule)
	for _, c := range credentials {
		p := b.v.provider(in, pl, "", localJWKS(c.GetKeys()))
		p.JwtCacheConfig.JwtCacheSize = uint32(max(fewCachedTokens, cachedTokens/len(credentials)))
		name := "credential/" + c.GetKey()
		b.config.Providers[name] = p
		b.require(c.GetKey(), []string{name})
	}
}

// require tries the providers in order, and lets the request go on.
func (b *jwtBuilder) require(key string, names []string) {
	list := new(jwtv3.JwtRequirementOrList)
	for _, n := range append(names, passProvider) {
		list.Requirements = append(list.Requirements, &jwtv3.JwtRequirement{
			RequiresType: &jwtv3.JwtRequirement_ProviderName{ProviderName: n},
		})
	}
	b.config.FilterStateRules.Requires[key] = &jwtv3.JwtRequirement{RequiresType: &jwtv3.JwtRequirement_RequiresAny{RequiresAny: list}}
}

// place returns the name of the provider for a place. Treatments with equal
// rules at equal positions share one, and so its cache.
func (b *jwtBuilder) place(in *instance, pl place) string {
	whose, iss, keys := pl.rule.GetIssuer(), "", []*dataplanev1.Key(nil)
	if is := b.v.plan.issuers[whose]; is != nil {
		iss, keys = is.GetIssuer(), is.GetKeys()
	} else if c := b.v.plan.credentials(pl.rule); len(c) > 0 {
		whose, iss, keys = pl.rule.GetCredentialSet(), c[0].GetKey(), c[0].GetKeys()
	}
	name, known := b.names[pl.mark]
	if !known {
		name = fmt.Sprintf("%d/%s/%d", pl.position, whose, b.count[whose])
		b.count[whose]++
		b.names[pl.mark] = name
		b.config.Providers[name] = b.v.provider(in, pl, iss, localJWKS(keys))
	}
	return name
}

// permissive says whether a token that is not as the rule wants it counts as none,
// instead of being refused.
func (v *verification) permissive(pl place) bool {
	a := v.authentications[pl.treatment]
	return a.GetMode() == dataplanev1.Authentication_PERMISSIVE && !a.GetObserve()
}

func (v *verification) enforces() bool { return v.metadataPrefix == "watchword_" }

func (v *verification) provider(in *instance, pl place, iss string, keys *jwtv3.JwtProvider_LocalJwks) *jwtv3.JwtProvider {
	r := pl.rule
	p := &jwtv3.JwtProvider{
		Issuer:                 iss,
		Audiences:              r.GetAudiences(),
		JwksSourceSpecifier:    keys,
		ClockSkewSeconds:       clockSkew(r),
		Forward:                !v.removes(pl) || v.removedByScript(pl),
		PayloadInMetadata:      v.payloadKey(),
		HeaderInMetadata:       v.byKey(pl.mark),
		FailedStatusInMetadata: v.failedKey(pl.position),
		JwtCacheConfig:         &jwtv3.JwtCacheConfig{JwtCacheSize: cachedTokens, JwtMaxTokenSize: cachedTokenSize},
	}
	v.locate(p, pl)
	if v.enforces() {
		for _, o := range r.GetOutputClaims() {
			p.ClaimToHeaders = append(p.ClaimToHeaders, claimToHeader(o.GetClaimPath(), v.plan.outputHeader(outputOf(o), in)))
		}
		p.ForwardPayloadHeader = v.payloadHeader(in, r)
	}
	return p
}

// locate says where the tokens are: what Envoy can't read itself is in a header
// by now, where tokenScript has put it.
func (v *verification) locate(p *jwtv3.JwtProvider, pl place) {
	scripted := v.scripted(pl)
	for _, l := range tokenPlaces(pl.rule) {
		switch {
		case scripted:
			p.FromHeaders = append(p.FromHeaders, &jwtv3.JwtHeader{Name: v.plan.script.tokenHeader(l)})
		case l.kind == inHeader:
			p.FromHeaders = append(p.FromHeaders, &jwtv3.JwtHeader{Name: l.name, ValuePrefix: l.prefix})
		case l.kind == inParam:
			p.FromParams = append(p.FromParams, l.name)
		case l.kind == inCookie:
			p.FromCookies = append(p.FromCookies, l.name)
		}
	}
}

// clockSkew is in seconds; Envoy takes 0 for its default of 60.
func clockSkew(r *dataplanev1.TokenRule) uint32 {
	if !nativeTimes(r) {
		return noSkewCheck
	}
	return uint32(max(1, r.GetClockSkew().GetSeconds()))
}

// nativeTimes says whether Envoy looks at exp and nbf: it looks at both or at
// none.
func nativeTimes(r *dataplanev1.TokenRule) bool {
	return r.GetExpiration() != dataplanev1.TimeCheck_NOT_CHECKED && r.GetNotBefore() != dataplanev1.TimeCheck_NOT_CHECKED
}

// claimToHeader always gives the names one by one: `a.b` may be one claim or
// two names.
func claimToHeader(path []string, header string) *jwtv3.JwtClaimToHeader {
	c := &jwtv3.JwtClaimToHeader{HeaderName: header}
	for _, p := range path {
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

// The provider that always verifies, and its token. Whoever has its key can do
// nothing with it: the provider writes nothing, and its header is set by us.
const (
	passProvider = "watchword.pass"
	passHeader   = headerPrefix + "pass"
	passKey      = "this is no secret: see passProvider"
)

func passingProvider() *jwtv3.JwtProvider {
	return &jwtv3.JwtProvider{
		Issuer:              passProvider,
		JwksSourceSpecifier: passingKeys(),
		FromHeaders:         []*jwtv3.JwtHeader{{Name: passHeader}},
		Forward:             true, // to the next jwt_authn; watchword.identity removes it
		JwtCacheConfig:      &jwtv3.JwtCacheConfig{JwtCacheSize: 1, JwtMaxTokenSize: cachedTokenSize},
	}
}

func passingKeys() *jwtv3.JwtProvider_LocalJwks {
	return localJWKS([]*dataplanev1.Key{{Jwk: `{"kty":"oct","alg":"HS256","k":"` + base64.RawURLEncoding.EncodeToString([]byte(passKey)) + `"}`}})
}

// passingToken never expires.
var passingToken = func() string {
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"HS256"}`)) + "." + encode([]byte(`{"iss":"`+passProvider+`"}`))
	mac := hmac.New(sha256.New, []byte(passKey))
	mac.Write([]byte(text))
	return text + "." + encode(mac.Sum(nil))
}()
