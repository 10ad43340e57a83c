package controlplane

import (
	"maps"
	"slices"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/compile"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/rotation"
	"github.com/watchword-mesh/watchword/controlplane/store"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// verifiers knows which services verify the tokens of the built-in issuer for which
// audience. What it costs to keep it up is what has changed. It has no lock: the
// loop's goroutine has it, and hands out what [verifiers.mesh] returns.
type verifiers struct {
	services map[string]*verifier
	// issued are the services that each audience is of: tokens are issued for it.
	// accepting are those whose data planes accept tokens for it. In both, audiences
	// are as policy.SameAudience folds them. everything are services that accept any.
	issued, accepting map[string]map[string]bool
	everything        map[string]bool
	// skews counts the services by their largest clock skew.
	skews map[time.Duration]int
	// audiences is handed out, and replaced, never changed. spelled are those in it, by
	// how they are folded, and touched the folded ones to look at again.
	audiences map[string]rotation.Verifiers
	spelled   map[string][]string
	touched   map[string]bool
	// elsewhere: tokens of some audience are verified by others than data planes.
	elsewhere bool
}

// verifier is what counts of one service.
type verifier struct {
	// audiences that it is called by; nil if there is no such service.
	audiences []string
	// ruleset is what its data planes were last given.
	ruleset accepted
	// instances are those that are enrolled, by SERVICE/ID.
	instances map[string]bool
}

// accepted is what a ruleset accepts of the built-in issuer.
type accepted struct {
	// audiences, folded, without doubles and in order.
	audiences  []string
	everything bool
	// skew is the largest of a rule; 0 without one.
	skew time.Duration
}

func newVerifiers() *verifiers {
	return &verifiers{
		services: map[string]*verifier{}, issued: map[string]map[string]bool{},
		accepting: map[string]map[string]bool{}, everything: map[string]bool{}, skews: map[time.Duration]int{},
		audiences: map[string]rotation.Verifiers{}, spelled: map[string][]string{},
		touched: map[string]bool{policy.AdminAudience: true},
	}
}

// published takes over the rulesets of some services, as their data planes were given
// them; nil is for a service that is gone. One that could not be translated is not
// among them: its data planes keep what they have.
func (v *verifiers) published(state policy.State, rulesets map[string]*dataplanev1.Ruleset) {
	for service, rs := range rulesets {
		v.take(state, service, rs)
	}
}

// take is published for one service.
func (v *verifiers) take(state policy.State, service string, rs *dataplanev1.Ruleset) {
	now := acceptedBy(rs)
	v.change(service, func(s *verifier) { s.ruleset = now })
	v.named(state, service)
}

// named takes over what a service is called by.
func (v *verifiers) named(state policy.State, service string) {
	var audiences []string
	if spec := state.Service(service); spec != nil {
		audiences = policy.Audiences(service, spec)
	}
	v.change(service, func(s *verifier) { s.audiences = audiences })
}

// enrolled takes over instances, by SERVICE/ID, that came, were renewed or went.
func (v *verifiers) enrolled(all store.Instances, keys []string) {
	for _, key := range keys {
		service, _ := instanceName(key)
		_, there := all.Get(key)
		v.change(service, func(s *verifier) {
			if there {
				s.instances[key] = true
			} else {
				delete(s.instances, key)
			}
		})
	}
}

// change lets a service be another, and keeps the indexes.
func (v *verifiers) change(service string, to func(*verifier)) {
	s := v.services[service]
	if s == nil {
		s = &verifier{instances: map[string]bool{}}
		v.services[service] = s
	}
	was, had := *s, len(s.instances) > 0
	to(s)
	if slices.Equal(was.audiences, s.audiences) && was.ruleset.equal(s.ruleset) && had == (len(s.instances) > 0) {
		v.forget(service)
		return
	}
	v.index(service, was, false)
	v.index(service, *s, true)
	if was.ruleset.everything != s.ruleset.everything {
		v.touched[policy.AdminAudience] = true
		for audience := range v.issued {
			v.touched[audience] = true
		}
	}
	v.forget(service)
}

func (v *verifiers) forget(service string) {
	if s := v.services[service]; s.audiences == nil && s.ruleset.equal(accepted{}) && len(s.instances) == 0 {
		delete(v.services, service)
	}
}

// index enters a service, or takes it out.
func (v *verifiers) index(service string, s verifier, in bool) {
	for _, audience := range s.audiences {
		v.enter(v.issued, policy.SameAudience(audience), service, in)
	}
	for _, audience := range s.ruleset.audiences {
		v.enter(v.accepting, audience, service, in)
	}
	switch {
	case !in:
		delete(v.everything, service)
	case s.ruleset.everything:
		v.everything[service] = true
	}
	if skew := s.ruleset.skew; in {
		v.skews[skew]++
	} else if v.skews[skew]--; v.skews[skew] <= 0 {
		delete(v.skews, skew)
	}
}

func (v *verifiers) enter(index map[string]map[string]bool, audience, service string, in bool) {
	v.touched[audience] = true
	switch set := index[audience]; {
	case !in:
		if delete(set, service); len(set) == 0 {
			delete(index, audience)
		}
	case set == nil:
		index[audience] = map[string]bool{service: true}
	default:
		set[service] = true
	}
}

func (a accepted) equal(b accepted) bool {
	return a.everything == b.everything && a.skew == b.skew && slices.Equal(a.audiences, b.audiences)
}

// acceptedBy looks through the rules that are enforced, and those that are observed:
// a refusal that would be wrong must not be counted either.
func acceptedBy(rs *dataplanev1.Ruleset) accepted {
	var a accepted
	audiences := map[string]bool{}
	for _, route := range rs.GetRoutes() {
		for _, auth := range []*dataplanev1.Authentication{route.GetAuthentication(), route.GetObservedAuthentication()} {
			if auth.GetMode() == dataplanev1.Authentication_OFF {
				continue
			}
			for _, rule := range auth.GetRules() {
				if rule.GetIssuer() == policy.BuiltinIssuer {
					a.take(rule, audiences)
				}
			}
		}
	}
	a.audiences = slices.Sorted(maps.Keys(audiences))
	return a
}

func (a *accepted) take(rule *dataplanev1.TokenRule, audiences map[string]bool) {
	a.skew = max(a.skew, rule.GetClockSkew().AsDuration())
	a.everything = a.everything || rule.GetAudienceUnchecked()
	for _, audience := range rule.GetAudiences() {
		audiences[policy.SameAudience(audience)] = true
	}
}

// mesh says who verifies the tokens of which audience: all that tokens may be issued
// for. The map is not changed any more, and the same until something is another.
func (v *verifiers) mesh() (audiences map[string]rotation.Verifiers, skew time.Duration) {
	if len(v.touched) > 0 {
		v.audiences = maps.Clone(v.audiences)
		for folded := range v.touched {
			v.look(folded)
		}
		clear(v.touched)
		v.elsewhere = false
		for _, audience := range v.audiences {
			v.elsewhere = v.elsewhere || audience.Elsewhere
		}
	}
	if v.elsewhere {
		skew = compile.DefaultClockSkew // nobody knows how much those allow
	}
	for s := range v.skews {
		skew = max(skew, s)
	}
	return v.audiences, skew
}

// look finds who verifies tokens for an audience, however it is spelled.
func (v *verifiers) look(folded string) {
	for _, audience := range v.spelled[folded] {
		delete(v.audiences, audience)
	}
	delete(v.spelled, folded)
	found := rotation.Verifiers{Services: v.accept(folded)}
	if folded == policy.AdminAudience {
		// The replicas themselves verify what comes to the admin API.
		v.audiences[folded] = found
		return
	}
	for service := range v.issued[folded] {
		// Where there is no instance, only others can be who verifies.
		found.Elsewhere = found.Elsewhere || len(v.services[service].instances) == 0
	}
	for service := range v.issued[folded] {
		for _, audience := range v.services[service].audiences {
			if policy.SameAudience(audience) == folded {
				v.audiences[audience] = found
				v.spelled[folded] = append(v.spelled[folded], audience)
			}
		}
	}
}

// accept are the services whose data planes accept tokens for an audience, in order.
func (v *verifiers) accept(folded string) []string {
	all := maps.Clone(v.everything)
	maps.Copy(all, v.accepting[folded])
	return slices.Sorted(maps.Keys(all))
}
