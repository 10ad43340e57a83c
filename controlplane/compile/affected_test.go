package compile

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/internal/jose"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// world is a state with the keys of its issuers, small enough that everything
// has to do with everything. It is not checked: names may lead nowhere.
type world struct {
	state policy.State
	keys  map[string][]jose.Key
}

var (
	services  = []string{"a", "b", "c"}
	routes    = []string{"r", "s"}
	issuers   = []string{policy.BuiltinIssuer, "i", "j"}
	consumers = []string{"m", "n", "o"}
	tags      = []string{"x", "y"}
)

// After any change every service whose ruleset, or outbound side, is now another one
// is among the affected: the dumb twin compiles everything before and after. uses is what
// the loop says: everything if some issuer got its first key or lost its last,
// else by the rulesets before the change.
func TestAffected(t *testing.T) {
	pool := keysOf(t, policy.State{})[policy.BuiltinIssuer]
	rapid.Check(t, func(t *rapid.T) {
		before := randomWorld(t, "before", pool)
		after := changedWorld(t, before, randomWorld(t, "after", pool))
		old, now := before.rulesets(), after.rulesets()
		called, calls := before.outbounds(), after.outbounds()
		changed, all := difference(before, after)
		uses := func(service, issuer string) bool {
			rs, known := old[service]
			return all || !known || Uses(rs, issuer, before.state.Issuer(issuer).GetIssuer())
		}
		got := Affected(before.state, after.state, changed, uses)
		if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
			t.Fatalf("Affected = %v, which is not sorted or has doubles", got)
		}
		for _, s := range services {
			if !proto.Equal(old[s], now[s]) && !slices.Contains(got, s) {
				t.Fatalf("after a change of %v the ruleset of %s is another one, but Affected = %v\nbefore %v\nafter  %v", changed, s, got, old[s], now[s])
			}
			if !proto.Equal(called[s], calls[s]) && !slices.Contains(got, s) {
				t.Fatalf("after a change of %v the outbound side of %s is another one, but Affected = %v\nbefore %v\nafter  %v", changed, s, got, called[s], calls[s])
			}
		}
	})
}

// A change costs what it touches: a policy of one service affects that one, and
// so does an issuer that only it uses.
func TestAffectedIsNarrow(t *testing.T) {
	state := policy.State{}
	for _, s := range services {
		state[policy.Key{Kind: policy.KindService, Name: s}] = &policyv1.Resource{Spec: &policyv1.Resource_Service{Service: &policyv1.ServiceSpec{}}}
	}
	k := policy.Key{Kind: policy.KindAuthorizationPolicy, Name: "p"}
	after := state.Clone()
	after[k] = &policyv1.Resource{Spec: &policyv1.Resource_AuthorizationPolicy{AuthorizationPolicy: &policyv1.AuthorizationPolicySpec{
		Target: &policyv1.Target{Services: []string{"b"}}}}}
	b := policy.Key{Kind: policy.KindService, Name: "b"}
	onlyC := func(service, _ string) bool { return service == "c" }
	for _, tt := range []struct {
		before, after policy.State
		changed       policy.Key
		want          []string
	}{
		{state, after, k, []string{"b"}},
		{after, state, k, []string{"b"}},
		{state, state, policy.Key{Kind: policy.KindIssuer, Name: "i"}, []string{"c"}},
		{state, state, policy.Key{Kind: policy.KindService, Name: "gone"}, []string{"gone"}},
		{roleState(), state, policy.Key{Kind: policy.KindRoleBinding, Name: "r"}, nil},
		{state, roleState(), policy.Key{Kind: policy.KindRoleBinding, Name: "r"}, nil},
		{consumerState("none"), consumerState("new"), policy.Key{Kind: policy.KindConsumer, Name: "new"}, []string{"a"}},
		{consumerState("new"), consumerState("none"), policy.Key{Kind: policy.KindConsumer, Name: "new"}, []string{"a"}},
		{consumerState("new"), consumerState("new"), policy.Key{Kind: policy.KindConsumer, Name: "stranger"}, nil},
		{consumerState("new"), consumerState("new"), policy.Key{Kind: policy.KindConsumer, Name: "matched"}, []string{"b"}},
		{consumerState("new"), consumerState("new"), policy.Key{Kind: policy.KindConsumer, Name: "guest"}, []string{"b"}},
		{consumerState("new"), consumerState("new"), policy.Key{Kind: policy.KindConsumer, Name: "denied"}, []string{"c"}},
		{state, selfIssuingState(), policy.Key{Kind: policy.KindService, Name: "a"}, []string{"a", "b"}},
		{selfIssuingState(), state, policy.Key{Kind: policy.KindService, Name: "a"}, []string{"a", "b"}},
		{state, state, policy.Key{Kind: policy.KindIssuer, Name: policy.BuiltinIssuer}, []string{"a", "b", "c"}},
		{calledState(&policyv1.ServiceSpec{}), calledState(&policyv1.ServiceSpec{Hosts: []string{"h"}}), b, []string{"a", "b"}},
		{calledState(&policyv1.ServiceSpec{}), calledState(&policyv1.ServiceSpec{Endpoints: []string{"h:1"}}), b, []string{"a", "b"}},
		{calledState(&policyv1.ServiceSpec{}), calledState(&policyv1.ServiceSpec{Audiences: []string{"x"}}), b, []string{"a", "b"}},
		{calledState(&policyv1.ServiceSpec{}), calledState(&policyv1.ServiceSpec{Inbound: &policyv1.Inbound{Tls: policyv1.Inbound_MESH}}), b, []string{"a", "b"}},
		{calledState(nil), calledState(&policyv1.ServiceSpec{}), b, []string{"a", "b"}},
		{calledState(&policyv1.ServiceSpec{}), calledState(nil), b, []string{"a", "b"}},
		// What callers are not told.
		{calledState(&policyv1.ServiceSpec{}), calledState(&policyv1.ServiceSpec{Inbound: &policyv1.Inbound{Port: 1}}), b, []string{"b"}},
		{calledState(&policyv1.ServiceSpec{}), calledState(&policyv1.ServiceSpec{Routes: []*policyv1.Route{{Name: "r"}}, Hosts: []string{"b"}, Audiences: []string{"b", "x"}}), b, []string{"b"}},
	} {
		if got := Affected(tt.before, tt.after, []policy.Key{tt.changed}, onlyC); !slices.Equal(got, tt.want) {
			t.Errorf("Affected by %s = %v, want %v", tt.changed, got, tt.want)
		}
	}
}

// calledState is a state in which a calls b, if that is there.
func calledState(called *policyv1.ServiceSpec) policy.State {
	s := policy.State{{Kind: policy.KindService, Name: "a"}: {Spec: &policyv1.Resource_Service{Service: &policyv1.ServiceSpec{Calls: []*policyv1.Call{{Service: "b"}}}}}}
	if called != nil {
		s[policy.Key{Kind: policy.KindService, Name: "b"}] = &policyv1.Resource{Spec: &policyv1.Resource_Service{Service: called}}
	}
	return s
}

// roleState is a state in which a service has a role, which is no concern of data
// planes.
func roleState() policy.State {
	s := consumerState("none")
	s[policy.Key{Kind: policy.KindRoleBinding, Name: "r"}] = &policyv1.Resource{Spec: &policyv1.Resource_RoleBinding{RoleBinding: &policyv1.RoleBindingSpec{
		Role: policyv1.RoleBindingSpec_SERVICE_OWNER, Services: []string{"a"}, Subjects: []*policyv1.RoleSubject{{Service: "b"}}}}}
	return s
}

// consumerState is a state in which the service a selects consumers by a tag that
// one has, b matches one of an issuer and has an anonymous one, and c denies one.
func consumerState(name string) policy.State {
	s := policy.State{}
	put := func(kind policy.Kind, name string, r *policyv1.Resource) { s[policy.Key{Kind: kind, Name: name}] = r }
	consumer := func(name string, c *policyv1.ConsumerSpec) {
		put(policy.KindConsumer, name, &policyv1.Resource{Spec: &policyv1.Resource_Consumer{Consumer: c}})
	}
	authentication := func(service string, rule *policyv1.JwtRule, anonymous string) {
		put(policy.KindAuthenticationPolicy, service, &policyv1.Resource{Spec: &policyv1.Resource_AuthenticationPolicy{AuthenticationPolicy: &policyv1.AuthenticationPolicySpec{
			Target: &policyv1.Target{Services: []string{service}}, JwtRules: []*policyv1.JwtRule{rule}, AnonymousConsumer: anonymous}}})
	}
	for _, name := range services {
		put(policy.KindService, name, &policyv1.Resource{Spec: &policyv1.Resource_Service{Service: &policyv1.ServiceSpec{}}})
	}
	consumer(name, &policyv1.ConsumerSpec{Tags: []string{"x", "y"}})
	consumer("stranger", &policyv1.ConsumerSpec{Tags: []string{"y"}, Match: &policyv1.ConsumerMatch{Issuer: "j"}})
	consumer("matched", &policyv1.ConsumerSpec{Match: &policyv1.ConsumerMatch{Issuer: "i"}})
	authentication("a", &policyv1.JwtRule{Consumers: &policyv1.ConsumerSelector{MatchTags: []string{"x"}}}, "")
	authentication("b", &policyv1.JwtRule{Issuer: "i"}, "guest")
	put(policy.KindAuthorizationPolicy, "c", &policyv1.Resource{Spec: &policyv1.Resource_AuthorizationPolicy{AuthorizationPolicy: &policyv1.AuthorizationPolicySpec{
		Target: &policyv1.Target{Services: []string{"c"}}, Rules: []*policyv1.AuthorizationRule{{From: &policyv1.Source{Consumers: []string{"denied"}}}}}}})
	return s
}

// selfIssuingState is a state in which a signs for itself, and calls b.
func selfIssuingState() policy.State {
	s := consumerState("none")
	s[policy.Key{Kind: policy.KindService, Name: "a"}] = &policyv1.Resource{Spec: &policyv1.Resource_Service{Service: &policyv1.ServiceSpec{
		SelfIssued: &policyv1.SelfIssued{}, Calls: []*policyv1.Call{{Service: "b"}}}}}
	return s
}

func (w world) rulesets() map[string]*dataplanev1.Ruleset {
	out := map[string]*dataplanev1.Ruleset{}
	for _, s := range w.state.Services() {
		out[s] = Ruleset(Input{State: w.state, Keys: w.keys, Subject: subject}, s)
	}
	return out
}

func (w world) outbounds() map[string]*dataplanev1.Outbound {
	out := map[string]*dataplanev1.Outbound{}
	for _, s := range w.state.Services() {
		out[s] = Outbound(Input{State: w.state, Keys: w.keys, Subject: subject}, s)
	}
	return out
}

// difference is what the store and the loop would find: the resources that
// differ, an issuer also if its keys do.
func difference(a, b world) (changed []policy.Key, all bool) {
	both := a.state.Clone()
	maps.Copy(both, b.state)
	for _, k := range both.Keys() {
		keys := slices.EqualFunc(a.keys[k.Name], b.keys[k.Name], jose.Key.Equal)
		if !proto.Equal(a.state[k], b.state[k]) || (k.Kind == policy.KindIssuer && !keys) {
			changed = append(changed, k)
			all = all || (k.Kind == policy.KindIssuer && (len(a.keys[k.Name]) == 0) != (len(b.keys[k.Name]) == 0))
		}
	}
	return changed, all
}

// changedWorld takes some resources from another world, the rest from the first.
func changedWorld(t *rapid.T, from, other world) world {
	w := world{policy.State{}, map[string][]jose.Key{}}
	both := from.state.Clone()
	maps.Copy(both, other.state)
	for _, k := range both.Keys() {
		source := from
		if rapid.IntRange(0, 3).Draw(t, "change "+k.String()) == 0 {
			source = other
		}
		if r := source.state[k]; r != nil {
			w.state[k] = r
			if keys := source.keys[k.Name]; k.Kind == policy.KindIssuer && len(keys) > 0 {
				w.keys[k.Name] = keys
			}
		}
	}
	return w
}

func randomWorld(t *rapid.T, label string, pool []jose.Key) world {
	w := world{policy.State{}, map[string][]jose.Key{}}
	some := func(what string) bool { return rapid.IntRange(0, 3).Draw(t, label+" "+what+"?") > 0 }
	put := func(kind policy.Kind, name string, r *policyv1.Resource) {
		r.Metadata = &policyv1.Metadata{Name: name}
		w.state[policy.Key{Kind: kind, Name: name}] = r
	}
	for _, name := range services {
		if some(name) {
			put(policy.KindService, name, &policyv1.Resource{Spec: &policyv1.Resource_Service{Service: randomService(t, label+name)}})
		}
	}
	for _, name := range issuers {
		if some(name) {
			iss := rapid.SampledFrom([]string{"I", "J", "K"}).Draw(t, label+" iss of "+name)
			put(policy.KindIssuer, name, &policyv1.Resource{Spec: &policyv1.Resource_Issuer{Issuer: &policyv1.IssuerSpec{Issuer: iss}}})
			if n := rapid.IntRange(0, len(pool)).Draw(t, label+" keys of "+name); n > 0 {
				w.keys[name] = pool[:n]
			}
		}
	}
	for _, name := range consumers {
		if some(name) {
			put(policy.KindConsumer, name, &policyv1.Resource{Spec: &policyv1.Resource_Consumer{Consumer: randomConsumer(t, label+name)}})
		}
	}
	for i := range rapid.IntRange(0, 3).Draw(t, label+" authentication") {
		name := fmt.Sprintf("n%d", i)
		put(policy.KindAuthenticationPolicy, name, &policyv1.Resource{Spec: &policyv1.Resource_AuthenticationPolicy{AuthenticationPolicy: randomAuthentication(t, label+name)}})
	}
	for i := range rapid.IntRange(0, 3).Draw(t, label+" authorization") {
		name := fmt.Sprintf("z%d", i)
		put(policy.KindAuthorizationPolicy, name, &policyv1.Resource{Spec: &policyv1.Resource_AuthorizationPolicy{AuthorizationPolicy: randomAuthorization(t, label+name)}})
	}
	return w
}

func someOf(t *rapid.T, label string, from []string) []string {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(from), 0, 2, rapid.ID).Draw(t, label)
}

func randomService(t *rapid.T, label string) *policyv1.ServiceSpec {
	s := &policyv1.ServiceSpec{Audiences: someOf(t, label+" audiences", []string{"x", "y"})}
	s.Hosts, s.Endpoints = someOf(t, label+" hosts", []string{"h", "i"}), someOf(t, label+" endpoints", []string{"h:1", "i:2"})
	if rapid.Bool().Draw(t, label+" TLS") {
		s.Inbound = &policyv1.Inbound{Port: 1, LocalAddress: "127.0.0.1:2", Tls: policyv1.Inbound_MESH}
	}
	for _, r := range someOf(t, label+" routes", routes) {
		s.Routes = append(s.Routes, &policyv1.Route{Name: r, Paths: []string{"/" + r}})
	}
	for _, name := range someOf(t, label+" calls", services) {
		s.Calls = append(s.Calls, &policyv1.Call{Service: name})
	}
	if rapid.Bool().Draw(t, label+" self-issued") {
		iss := rapid.SampledFrom([]string{"", "S"}).Draw(t, label+" iss")
		s.SelfIssued = &policyv1.SelfIssued{Issuer: iss, KeySet: &policyv1.KeySet{Source: &policyv1.KeySet_Jwks{Jwks: builtinKeys}}}
	}
	return s
}

func randomConsumer(t *rapid.T, label string) *policyv1.ConsumerSpec {
	c := &policyv1.ConsumerSpec{Username: rapid.SampledFrom([]string{"", "u", "v"}).Draw(t, label+" username"), Tags: someOf(t, label+" tags", tags)}
	for _, key := range someOf(t, label+" credentials", []string{"k", "l"}) {
		d := &policyv1.Credential{Key: key}
		if secret := rapid.SampledFrom([]string{"", "1", "2"}).Draw(t, label+" secret"); secret != "" {
			d.KeySet = &policyv1.KeySet{AllowWeakKeys: true, Source: &policyv1.KeySet_Secret{Secret: &policyv1.SecretKeys{Keys: []*policyv1.SecretKey{{Secret: secret}}}}}
		}
		c.Credentials = append(c.Credentials, d)
	}
	if rapid.Bool().Draw(t, label+" match") {
		claim := rapid.SampledFrom([]string{"a", "b"}).Draw(t, label+" claim")
		c.Match = &policyv1.ConsumerMatch{Issuer: rapid.SampledFrom(issuers).Draw(t, label+" issuer"),
			Claims: []*policyv1.Condition{{ClaimPath: []string{claim}, Op: policyv1.Condition_EXISTS}}}
	}
	return c
}

func randomTarget(t *rapid.T, label string) *policyv1.Target {
	return &policyv1.Target{Services: someOf(t, label+" services", services), Routes: someOf(t, label+" routes", routes)}
}

func randomEnforcement(t *rapid.T, label string) policyv1.Enforcement {
	return policyv1.Enforcement(rapid.IntRange(0, 2).Draw(t, label+" enforcement"))
}

func randomAuthentication(t *rapid.T, label string) *policyv1.AuthenticationPolicySpec {
	p := &policyv1.AuthenticationPolicySpec{
		Target:      randomTarget(t, label),
		Mode:        policyv1.AuthenticationPolicySpec_Mode(rapid.IntRange(0, 4).Draw(t, label+" mode")),
		Enforcement: randomEnforcement(t, label),
	}
	if rapid.Bool().Draw(t, label+" preflight") {
		p.RunOnPreflight = proto.Bool(false)
	}
	if rapid.Bool().Draw(t, label+" anonymous") {
		p.AnonymousConsumer = rapid.SampledFrom(consumers).Draw(t, label+" guest")
	}
	for _, i := range someOf(t, label+" rules", issuers) {
		p.JwtRules = append(p.JwtRules, &policyv1.JwtRule{Issuer: i})
	}
	for _, what := range someOf(t, label+" signers", []string{"all", "names", "tags", "services"}) {
		r := &policyv1.JwtRule{}
		switch what {
		case "all":
			r.Consumers = &policyv1.ConsumerSelector{All: true}
		case "names":
			r.Consumers = &policyv1.ConsumerSelector{Names: someOf(t, label+" names", consumers)}
		case "tags":
			r.Consumers = &policyv1.ConsumerSelector{MatchTags: someOf(t, label+" tags", tags)}
		default:
			r.Services = &policyv1.SelfIssuedTokens{}
		}
		p.JwtRules = append(p.JwtRules, r)
	}
	return p
}

func randomAuthorization(t *rapid.T, label string) *policyv1.AuthorizationPolicySpec {
	p := &policyv1.AuthorizationPolicySpec{
		Target:      randomTarget(t, label),
		Action:      policyv1.AuthorizationPolicySpec_Action(rapid.IntRange(1, 2).Draw(t, label+" action")),
		Enforcement: randomEnforcement(t, label),
	}
	for range rapid.IntRange(0, 2).Draw(t, label+" rules") {
		from := &policyv1.Source{
			Services: someOf(t, label+" from", services), NotServices: someOf(t, label+" not from", services),
			Issuers: someOf(t, label+" issuers", issuers), Consumers: someOf(t, label+" consumers", consumers),
		}
		for _, i := range someOf(t, label+" subjects", issuers) {
			from.Subjects = append(from.Subjects, &policyv1.Subject{Issuer: i, Subject: "s"})
		}
		p.Rules = append(p.Rules, &policyv1.AuthorizationRule{From: from})
	}
	return p
}
