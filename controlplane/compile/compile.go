// Package compile turns policies into rulesets: what the data planes of one
// service must enforce, with all defaults filled in and all names resolved. And
// it says what each service calls others with.
// It is pure: equal input gives equal output.
package compile

import (
	"maps"
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
	DefaultMaxLifetime        = time.Hour      // tokens of the mesh: of the built-in issuer, and self-issued
	DefaultForeignMaxLifetime = 24 * time.Hour // tokens of others, if they must have an exp
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
	// ConsumerKeys holds the keys of the credentials of each Consumer by its
	// name, in their order. Those of one that is not in it are parsed for each
	// service.
	ConsumerKeys map[string][][]jose.Key
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
	c := &compiler{
		in: in, service: service, spec: spec,
		issuers: map[string]bool{}, consumers: map[string]bool{}, stripped: map[string]bool{}, sets: map[string]*dataplanev1.CredentialSet{},
	}
	rs := &dataplanev1.Ruleset{
		Service: service,
		Inbound: inbound(spec.GetInbound()),
		OwnSubjects: &dataplanev1.OwnSubjects{
			Prefix: in.Subject(""), Issuer: in.State.Issuer(policy.BuiltinIssuer).GetIssuer(),
		},
	}
	for _, r := range spec.GetRoutes() {
		rs.Routes = append(rs.Routes, c.routes(r.GetName(), requests(r))...)
	}
	rs.Routes = append(rs.Routes, c.routes("", &dataplanev1.RequestMatch{})...)
	rs.Issuers = c.usedIssuers()
	rs.CredentialSets = c.usedSets()
	rs.Consumers = c.usedConsumers()
	rs.Leased = spec.GetLease() != nil
	rs.WithoutEnvoy = !policy.ByEnvoy(spec)
	rs.StrippedHeaders = slices.Sorted(maps.Keys(c.stripped))
	return rs
}

type compiler struct {
	in      Input
	service string
	spec    *policyv1.ServiceSpec
	// What the routes so far name.
	issuers, consumers, stripped map[string]bool
	sets                         map[string]*dataplanev1.CredentialSet
}

// usedIssuers returns the issuers that some rule names, by name.
func (c *compiler) usedIssuers() []*dataplanev1.Issuer {
	var out []*dataplanev1.Issuer
	for _, name := range slices.Sorted(maps.Keys(c.issuers)) {
		out = append(out, &dataplanev1.Issuer{Name: name, Issuer: c.in.State.Issuer(name).GetIssuer(), Keys: keys(c.in.Keys[name])})
	}
	return out
}

// usedConsumers returns what services may be told of the consumers that some
// rule can find, by name.
func (c *compiler) usedConsumers() []*dataplanev1.Consumer {
	var out []*dataplanev1.Consumer
	for _, name := range slices.Sorted(maps.Keys(c.consumers)) {
		spec := c.in.State.Consumer(name)
		out = append(out, &dataplanev1.Consumer{Name: name, Id: spec.GetId(), Username: spec.GetUsername(), CustomId: spec.GetCustomId()})
	}
	return out
}

// keys turns keys into their form on the wire, in the order of a ruleset.
func keys(list []jose.Key) []*dataplanev1.Key {
	var out []*dataplanev1.Key
	for _, k := range list {
		out = append(out, &dataplanev1.Key{Kid: k.ID(), Algorithm: k.Algorithm(), Jwk: k.JWK(), Symmetric: k.Symmetric()})
	}
	slices.SortFunc(out, compareKeys)
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
