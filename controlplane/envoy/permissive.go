package envoy

import (
	_ "embed"
	"slices"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
)

const permissiveStatPrefix = "watchword_permissive_"

//go:embed permissive.lua
var permissiveLua string

// permissive are the filters that make a token count as none, where the mode lets
// everything in: one that is not as the rule wants it, and one of several of
// which not all verify. The first finds out, the second takes back what jwt_authn
// has said. Should the script fail, watchword.verify and watchword.claims refuse
// what it has left. None if no treatment is PERMISSIVE.
func permissive(p *plan) []filter {
	v := p.enforced
	places := v.placesWhere(func(pl place) bool { return v.permissive(pl) })
	if len(places) == 0 {
		return nil
	}
	c := &claimPolicies{policies: map[string]*rbacconfigv3.Policy{}}
	v.forgeries(c, v.permissive)
	v.limits(c, v.permissive)
	treatments := luaTable{}
	for n, t := range p.treatments {
		var list []string
		for _, pl := range places {
			if pl.treatment == n {
				list = append(list, luaTable{{"by", luaString(v.byKey(pl.mark))}, {"failed", luaString(v.failedKey(pl.position))}}.String())
			}
		}
		if len(list) > 0 {
			treatments = append(treatments, luaEntry{t.id, luaList(list)})
		}
	}
	return []filter{
		{"watchword.permissive.claims", &rbacv3.RBAC{ShadowRules: c.rbac(), ShadowRulesStatPrefix: permissiveStatPrefix}},
		{"watchword.permissive", luaFilter(
			"local TREATMENT = "+luaString(p.treatmentMetadata()),
			"local RESULT = "+luaString(permissiveStatPrefix+shadowResult),
			"local PAYLOAD = "+luaString(v.payloadKey()),
			"local PLACES = "+treatments.String(),
			"local HEADERS = "+luaStrings(p.writtenByJWT()),
			permissiveLua)},
	}
}

// writtenByJWT are the headers that jwt_authn fills with claims.
func (p *plan) writtenByJWT() []string {
	var out []string
	for _, o := range p.outputs {
		if p.direct(o) {
			out = append(out, o.name)
		} else {
			out = append(out, p.waiting(o)...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
