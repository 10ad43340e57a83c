package envoy

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// Texts that can't be where they would go. Blanks at the ends are no part of the
// value of a header (RFC 9110 section 5.5): the service would be told of another
// caller than the rules have seen. Cookies: RFC 6265 section 4.1.1.
const (
	withControls   = `(?s).*[\x00-\x1f\x7f].*`
	unfitForHeader = `(?s)[ \t].*|.*[ \t]|.*[\x00-\x1f\x7f].*`
	unfitForCookie = `(?s).*[^\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e].*`
)

// claimsFilter refuses tokens that verify and still are not what the rule wants,
// or that would put into the request what can't be there. Envoy looks at the
// policies in the order of their names.
func claimsFilter(p *plan) *rbacv3.RBAC {
	c := &claimPolicies{policies: map[string]*rbacconfigv3.Policy{}}
	if v := p.enforced; v != nil {
		all := func(place) bool { return true }
		v.forgeries(c, all)
		v.limits(c, func(pl place) bool { return !v.authentications[pl.treatment].GetObserve() })
	}
	return &rbacv3.RBAC{Rules: c.rbac(), RulesStatPrefix: "watchword_claims_"}
}

// observedClaimsFilter records what it would have refused. Nil for nothing.
func observedClaimsFilter(p *plan) *rbacv3.RBAC {
	c := &claimPolicies{policies: map[string]*rbacconfigv3.Policy{}}
	if v := p.enforced; v != nil {
		v.limits(c, func(pl place) bool { return v.authentications[pl.treatment].GetObserve() })
	}
	if v := p.observed; v != nil {
		refusing := func(pl place) bool { return !v.permissive(pl) }
		v.forgeries(c, refusing)
		v.limits(c, refusing)
	}
	if len(c.policies) == 0 {
		return nil
	}
	return &rbacv3.RBAC{ShadowRules: c.rbac(), ShadowRulesStatPrefix: "watchword_observed_claims_"}
}

// claimPolicies are DENY policies about the claims of a token that was verified,
// with the reason as their name, and a number where there are several.
type claimPolicies struct {
	policies map[string]*rbacconfigv3.Policy
}

func (c *claimPolicies) add(word reason.Word, who *rbacconfigv3.Principal, when *expression) {
	if who == nil {
		return
	}
	p := policy(anything(), who)
	if when != nil {
		p.Condition = when.proto()
	}
	name := string(word)
	for n := 2; c.policies[name] != nil; n++ {
		name = fmt.Sprintf("%s#%d", word, n)
	}
	c.policies[name] = p
}

func (c *claimPolicies) rbac() *rbacconfigv3.RBAC {
	return &rbacconfigv3.RBAC{Action: rbacconfigv3.RBAC_DENY, Policies: c.policies}
}

// forgeries are what no mode lets in: it would lie to the service.
func (v *verification) forgeries(c *claimPolicies, of func(place) bool) {
	v.malformedOutputs(c, of)
	v.forgedSubjects(c, of)
	who := v.scope(v.placesWhere(of))
	c.add(reason.SubjectMalformed, both(who, v.claim(matchValue(matchRegex(unfitForHeader)), "sub")), nil)
	var critical []*rbacconfigv3.Principal
	for i := range v.marks {
		critical = append(critical, metadataPrincipal(metadata(jwtNamespace, present(), v.byKey(i), "crit")))
	}
	c.add(reason.TokenMalformed, both(who, anyPrincipal(critical)), nil)
	v.otherKeys(c, of)
}

// otherKeys refuses tokens that jwt_authn reads as naming another credential than
// the one that has verified them: what is not quite JSON can be read in two ways,
// by the script one and by Envoy the other, and so the holder of one credential
// would sign with the key claim of another.
func (v *verification) otherKeys(c *claimPolicies, of func(place) bool) {
	for _, in := range v.instances {
		var places []place
		for _, pl := range in.places {
			if in.lookup && of(pl) {
				places = append(places, pl)
			}
		}
		if len(places) == 0 {
			continue
		}
		kc, selected := places[0].rule.GetKeyClaim(), requestHeader(v.keyHeader(in))
		who := []*rbacconfigv3.Principal{v.scope(places)}
		for _, source := range kc.GetSources() { // the first that says something counts
			key := v.payloadKey()
			if source == dataplanev1.KeyClaim_HEADER {
				key = v.byKey(places[0].mark)
			}
			says := metadataPrincipal(metadata(jwtNamespace, matchValue(matchRegex("(?s).+")), key, kc.GetName()))
			c.add(reason.TokenMalformed, allPrincipals(append(slices.Clone(who), says)), call("_!=_", field(field(jwtMetadata(), key), kc.GetName()), selected))
			who = append(who, not(says))
		}
		c.add(reason.TokenMalformed, allPrincipals(who), nil)
	}
}

// limits are what the rule itself asks for.
func (v *verification) limits(c *claimPolicies, of func(place) bool) {
	v.missingClaims(c, of)
	v.lifetimes(c, of)
	v.times(c, of)
	v.types(c, of)
}

// grouped adds a policy for each distinct value that a rule has.
func grouped[K comparable](v *verification, of func(place) bool, value func(*dataplanev1.TokenRule) (K, bool), with func(K, *rbacconfigv3.Principal)) {
	var order []K
	groups := map[K][]place{}
	for _, pl := range v.placesWhere(of) {
		k, ok := value(pl.rule)
		if !ok {
			continue
		}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], pl)
	}
	for _, k := range order {
		with(k, v.scope(groups[k]))
	}
}

// malformedOutputs are claims that can't be where they would go: Envoy would
// answer 503 for a header, and a cookie could become two.
func (v *verification) malformedOutputs(c *claimPolicies, of func(place) bool) {
	type output struct{ path, unfit string }
	paths := map[string][]string{}
	add := func(places []place, o output) {
		c.add(reason.ClaimMalformed, both(v.scope(places), v.claim(matchValue(matchRegex(o.unfit)), paths[o.path]...)), nil)
	}
	var order []output
	groups := map[output][]place{}
	for _, pl := range v.placesWhere(of) {
		for _, oc := range pl.rule.GetOutputClaims() {
			o := output{fmt.Sprintf("%q", oc.GetClaimPath()), withControls}
			switch {
			case oc.GetHeader() != "":
				o.unfit = unfitForHeader
			case oc.GetCookie() != "":
				o.unfit = unfitForCookie
			}
			paths[o.path] = oc.GetClaimPath()
			if groups[o] == nil {
				order = append(order, o)
			}
			groups[o] = append(groups[o], pl)
		}
	}
	for _, o := range order {
		add(groups[o], o)
	}
	// IssuerHeader has it, and an issuer need not have a name.
	c.add(reason.ClaimMalformed, both(v.scope(v.placesWhere(of)), v.claim(matchValue(matchRegex(unfitForHeader)), "iss")), nil)
}

// forgedSubjects are those that another issuer alone may sign for.
func (v *verification) forgedSubjects(c *claimPolicies, of func(place) bool) {
	own := v.plan.rs.GetOwnSubjects()
	if own.GetPrefix() == "" {
		return
	}
	others := v.placesWhere(func(pl place) bool {
		owner := v.plan.issuers[pl.rule.GetIssuer()].GetIssuer() == own.GetIssuer() && pl.rule.GetIssuer() != ""
		service := slices.ContainsFunc(v.plan.credentials(pl.rule), func(c *dataplanev1.Credential) bool { return c.GetService() != "" })
		return of(pl) && !owner && !service
	})
	c.add(reason.SubjectForged, both(v.scope(others), v.claim(matchValue(matchPrefix(own.GetPrefix())), "sub")), nil)
	for _, pl := range v.placesWhere(of) {
		for _, cr := range v.plan.credentials(pl.rule) {
			if cr.GetService() != "" {
				c.add(reason.SubjectForged, both(v.signedWith(pl, cr), not(v.claim(equals(cr.GetSubject()), "sub"))), nil)
			}
		}
	}
}

// missingClaims: `exp` of 0 means "never" to Envoy, and so is none.
func (v *verification) missingClaims(c *claimPolicies, of func(place) bool) {
	required := func(t dataplanev1.TimeCheck) bool { return t == dataplanev1.TimeCheck_REQUIRED }
	grouped(v, of,
		func(r *dataplanev1.TokenRule) (bool, bool) { return true, required(expirationOf(r)) },
		func(_ bool, who *rbacconfigv3.Principal) {
			c.add(reason.ClaimMissing, both(who, not(v.claim(someTime(), "exp"))), nil)
		})
	grouped(v, of,
		func(r *dataplanev1.TokenRule) (bool, bool) { return true, required(r.GetNotBefore()) },
		func(_ bool, who *rbacconfigv3.Principal) {
			c.add(reason.ClaimMissing, both(who, not(v.exists("nbf"))), nil)
		})
	names := map[string]bool{}
	for _, pl := range v.placesWhere(of) {
		for _, name := range pl.rule.GetRequiredClaims() {
			names[name] = true
		}
	}
	for _, name := range sorted(names) {
		who := v.scope(v.placesWhere(func(pl place) bool { return of(pl) && slices.Contains(pl.rule.GetRequiredClaims(), name) }))
		c.add(reason.ClaimMissing, both(who, not(v.exists(name))), nil)
	}
}

// expirationOf is REQUIRED where a ruleset does not say.
func expirationOf(r *dataplanev1.TokenRule) dataplanev1.TimeCheck {
	if r.GetExpiration() == dataplanev1.TimeCheck_TIME_CHECK_UNSPECIFIED {
		return dataplanev1.TimeCheck_REQUIRED
	}
	return r.GetExpiration()
}

func sorted(set map[string]bool) []string {
	var out []string
	for s := range set {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

// longestLife is max_lifetime with the skew: a token that was signed a moment
// ago for the whole of it would else be refused wherever the clock is a little
// behind the issuer's.
func longestLife(r *dataplanev1.TokenRule) time.Duration {
	return r.GetMaxLifetime().AsDuration() + r.GetClockSkew().AsDuration()
}

// lifetimes: beside max_lifetime, an `exp` beyond what is exact in JSON (RFC
// 8259 section 6): Envoy's sum of it and the clock skew overflows.
func (v *verification) lifetimes(c *claimPolicies, of func(place) bool) {
	grouped(v, of,
		func(r *dataplanev1.TokenRule) (bool, bool) {
			return true, r.GetExpiration() != dataplanev1.TimeCheck_NOT_CHECKED || r.GetMaxLifetime() != nil
		},
		func(_ bool, who *rbacconfigv3.Principal) {
			endless := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_DoubleMatch{DoubleMatch: atLeast(1 << 53)}}
			c.add(reason.LifetimeExceeded, both(who, v.claim(endless, "exp")), nil)
		})
	grouped(v, of,
		func(r *dataplanev1.TokenRule) (time.Duration, bool) { return longestLife(r), r.GetMaxLifetime() != nil },
		func(d time.Duration, who *rbacconfigv3.Principal) {
			c.add(reason.LifetimeExceeded, who, v.later("exp", int64(d/time.Second)))
		})
	grouped(v, of,
		func(r *dataplanev1.TokenRule) (bool, bool) {
			return true, r.GetMaxLifetime() != nil && expirationOf(r) != dataplanev1.TimeCheck_REQUIRED
		},
		func(_ bool, who *rbacconfigv3.Principal) {
			c.add(reason.LifetimeExceeded, both(who, not(v.claim(someTime(), "exp"))), nil)
		})
}

// times are those that jwt_authn does not look at: `iat` always, and exp or nbf
// where it must look at the other one alone, or without a skew.
func (v *verification) times(c *claimPolicies, of func(place) bool) {
	skew := func(r *dataplanev1.TokenRule) int64 { return r.GetClockSkew().GetSeconds() }
	grouped(v, of,
		func(r *dataplanev1.TokenRule) (int64, bool) {
			return skew(r), r.GetExpiration() != dataplanev1.TimeCheck_NOT_CHECKED && (!nativeTimes(r) || skew(r) == 0)
		},
		func(s int64, who *rbacconfigv3.Principal) { c.add(reason.TokenExpired, who, v.earlier("exp", s)) })
	grouped(v, of,
		func(r *dataplanev1.TokenRule) (int64, bool) {
			return skew(r), r.GetNotBefore() != dataplanev1.TimeCheck_NOT_CHECKED && (!nativeTimes(r) || skew(r) == 0)
		},
		func(s int64, who *rbacconfigv3.Principal) { c.add(reason.TokenNotYetValid, who, v.later("nbf", s)) })
	grouped(v, of,
		func(r *dataplanev1.TokenRule) (int64, bool) {
			return skew(r), r.GetNotBefore() != dataplanev1.TimeCheck_NOT_CHECKED
		},
		func(s int64, who *rbacconfigv3.Principal) { c.add(reason.TokenNotYetValid, who, v.later("iat", s)) })
}

// types of the JOSE header, without case (RFC 7515 section 4.1.9).
func (v *verification) types(c *claimPolicies, of func(place) bool) {
	var order []string
	groups, re := map[string][]place{}, map[string]string{}
	for _, pl := range v.placesWhere(of) {
		if types := pl.rule.GetTypes(); len(types) > 0 {
			key := fmt.Sprintf("%q", types)
			if groups[key] == nil {
				order = append(order, key)
			}
			groups[key], re[key] = append(groups[key], pl), typesRegex(types)
		}
	}
	for _, key := range order {
		var fits []*rbacconfigv3.Principal
		for i := range v.marks {
			fits = append(fits, metadataPrincipal(metadata(jwtNamespace, matchValue(matchRegex(re[key])), v.byKey(i), "typ")))
		}
		c.add(reason.TypeNotAllowed, both(v.scope(groups[key]), not(anyPrincipal(fits))), nil)
	}
}

func someTime() *matcherv3.ValueMatcher {
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_DoubleMatch{DoubleMatch: atLeast(1)}}
}

func atLeast(n float64) *matcherv3.DoubleMatcher {
	return &matcherv3.DoubleMatcher{MatchPattern: &matcherv3.DoubleMatcher_Range{
		Range: &typev3.DoubleRange{Start: n, End: math.MaxFloat64},
	}}
}

func typesRegex(types []string) string {
	var list []string
	for _, t := range types {
		list = append(list, regexp.QuoteMeta(t))
	}
	return `(?i)(?:application/)?(?:` + strings.Join(list, "|") + `)`
}
