// Package compile turns policies into rulesets: what the data planes of one
// service must enforce, with all defaults filled in and all names resolved.
// It is pure: equal input gives equal rulesets.
package compile

import (
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/internal/jose"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// What holds where a policy says nothing.
const (
	DefaultClockSkew          = time.Minute
	DefaultMaxLifetime        = time.Hour      // tokens of the built-in issuer
	DefaultForeignMaxLifetime = 24 * time.Hour // tokens of others
)

// Input is all that rulesets are made of.
type Input struct {
	State policy.State
	// Policies are those of State; nil has them looked up for each service.
	Policies *policy.Policies
	// Keys holds the verification keys of each issuer by name. An issuer
	// without keys verifies nothing: its rules are left out, and a route that
	// has no other refuses everything.
	Keys map[string][]jose.Key
	// Subject returns the `sub` of a service's tokens.
	Subject func(service string) string
}

// Ruleset compiles one service. It returns nil if there is no such Service.
func Ruleset(in Input, service string) *dataplanev1.Ruleset {
	spec := in.State.Service(service)
	if spec == nil {
		return nil
	}
	if in.Policies == nil {
		in.Policies = in.State.Policies()
	}
	c := &compiler{in: in, service: service, spec: spec, issuers: map[string]bool{}}
	rs := &dataplanev1.Ruleset{
		Service: service,
		Inbound: inbound(spec.GetInbound()),
		OwnSubjects: &dataplanev1.OwnSubjects{
			Prefix: in.Subject(""), Issuer: in.State.Issuer(policy.BuiltinIssuer).GetIssuer(),
		},
	}
	for _, r := range spec.GetRoutes() {
		rs.Routes = append(rs.Routes, c.route(r.GetName(), requests(r)))
	}
	rs.Routes = append(rs.Routes, c.route("", &dataplanev1.RequestMatch{}))
	rs.Issuers = c.usedIssuers()
	return rs
}

type compiler struct {
	in      Input
	service string
	spec    *policyv1.ServiceSpec
	issuers map[string]bool
}

func (c *compiler) route(name string, match *dataplanev1.RequestMatch) *dataplanev1.Route {
	r := &dataplanev1.Route{
		Name:           name,
		Match:          match,
		Authentication: c.authentication(name),
		Authorization:  c.authorization(name),
	}
	if r.Authentication.Mode != dataplanev1.Authentication_OFF && len(r.Authentication.Rules) == 0 {
		// No issuer has a usable key: nothing can be verified, nothing gets in.
		r.Authentication.Mode = dataplanev1.Authentication_OFF
		r.Authorization = &dataplanev1.Authorization{Restricted: true}
	}
	return r
}

// usedIssuers returns the issuers that some rule names, by name.
func (c *compiler) usedIssuers() []*dataplanev1.Issuer {
	var out []*dataplanev1.Issuer
	for name := range c.issuers {
		i := &dataplanev1.Issuer{Name: name, Issuer: c.in.State.Issuer(name).GetIssuer()}
		for _, k := range c.in.Keys[name] {
			i.Keys = append(i.Keys, &dataplanev1.Key{Kid: k.ID(), Algorithm: k.Algorithm(), Jwk: k.JWK(), Symmetric: k.Symmetric()})
		}
		slices.SortFunc(i.Keys, compareKeys)
		out = append(out, i)
	}
	slices.SortFunc(out, func(a, b *dataplanev1.Issuer) int { return compareStrings(a.GetName(), b.GetName()) })
	return out
}

func compareKeys(a, b *dataplanev1.Key) int {
	return compareStrings(a.GetKid(), b.GetKid(), a.GetAlgorithm(), b.GetAlgorithm(), a.GetJwk(), b.GetJwk())
}

// compareStrings compares pairs until one differs.
func compareStrings(pairs ...string) int {
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i] != pairs[i+1] {
			return map[bool]int{true: -1, false: 1}[pairs[i] < pairs[i+1]]
		}
	}
	return 0
}

func duration(d *durationpb.Duration, fallback time.Duration) *durationpb.Duration {
	if d == nil {
		return durationpb.New(fallback)
	}
	return d
}
