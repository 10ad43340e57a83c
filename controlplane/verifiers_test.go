package controlplane

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/rotation"
	"github.com/watchword-mesh/watchword/controlplane/store"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// calledBy is a Service with audiences of its own.
func calledBy(name string, audiences ...string) *policyv1.Resource {
	return &policyv1.Resource{Metadata: &policyv1.Metadata{Name: name}, Spec: &policyv1.Resource_Service{Service: &policyv1.ServiceSpec{Audiences: audiences}}}
}

// stateOfServices has some services.
func stateOfServices(list ...*policyv1.Resource) policy.State {
	state := policy.State{}
	for _, r := range list {
		state[policy.Key{Kind: policy.KindService, Name: r.GetMetadata().GetName()}] = r
	}
	return state
}

func builtinRule(skew time.Duration, audiences ...string) *dataplanev1.TokenRule {
	return &dataplanev1.TokenRule{Issuer: policy.BuiltinIssuer, Audiences: audiences, ClockSkew: durationpb.New(skew)}
}

func enforcing(rules ...*dataplanev1.TokenRule) *dataplanev1.Ruleset {
	return &dataplanev1.Ruleset{Routes: []*dataplanev1.Route{{Authentication: &dataplanev1.Authentication{Mode: dataplanev1.Authentication_STRICT, Rules: rules}}}}
}

// Who verifies an audience is every service that accepts its tokens, whoever it is of;
// what nobody has an instance for is verified elsewhere.
func TestVerifiers(t *testing.T) {
	state := stateOfServices(calledBy("a"), calledBy("b", "https://b.example/", "b2"), calledBy("c"), calledBy("off"))
	unchecked := builtinRule(time.Minute)
	unchecked.AudienceUnchecked = true
	observed := enforcing()
	observed.Routes[0].ObservedAuthentication = enforcing(builtinRule(0, "a")).GetRoutes()[0].GetAuthentication()
	off := enforcing(builtinRule(time.Hour, "a"))
	off.Routes[0].Authentication.Mode = dataplanev1.Authentication_OFF
	foreign := &dataplanev1.TokenRule{Issuer: "idp", Audiences: []string{"a"}, ClockSkew: durationpb.New(time.Hour)}

	v := newVerifiers()
	v.published(state, map[string]*dataplanev1.Ruleset{
		"a":   enforcing(builtinRule(90*time.Second, "a", policy.AdminAudience)),
		"b":   enforcing(foreign, builtinRule(time.Second, "b.example")), // as Envoy compares them
		"c":   observed,
		"off": off,
	})
	v.enrolled(store.InstancesOf(store.Instance{Service: "a", ID: "i"}), []string{"a/i", "c/gone"})
	got, skew := v.mesh()
	want := map[string]rotation.Verifiers{
		"a":                  {Services: []string{"a", "c"}},
		"https://b.example/": {Services: []string{"b"}, Elsewhere: true},
		"b2":                 {Elsewhere: true},
		"c":                  {Elsewhere: true},
		"off":                {Elsewhere: true},
		policy.AdminAudience: {Services: []string{"a"}},
	}
	if diff := cmp.Diff(want, got); diff != "" || skew != 90*time.Second {
		t.Errorf("skew %s, want 1m30s; audiences -want +got:\n%s", skew, diff)
	}

	// A service that accepts everything is asked for every audience; one that is gone,
	// and tokens of which are issued no more, for none.
	before := got
	v.published(stateOfServices(calledBy("c")), map[string]*dataplanev1.Ruleset{"a": nil, "b": nil, "off": nil, "c": enforcing(unchecked)})
	got, skew = v.mesh()
	want = map[string]rotation.Verifiers{"c": {Services: []string{"c"}, Elsewhere: true}, policy.AdminAudience: {Services: []string{"c"}}}
	if diff := cmp.Diff(want, got); diff != "" || skew != time.Minute {
		t.Errorf("skew %s, want 1m0s, the least where others verify; audiences -want +got:\n%s", skew, diff)
	}

	// Where data planes alone verify, what their rules allow is all.
	v.published(stateOfServices(calledBy("c")), map[string]*dataplanev1.Ruleset{"c": enforcing(builtinRule(time.Second, "c"))})
	v.enrolled(store.InstancesOf(store.Instance{Service: "c", ID: "i"}), []string{"c/i"})
	if got, skew = v.mesh(); skew != time.Second {
		t.Errorf("skew %s, want 1s; audiences: %v", skew, got)
	}
	if len(before) != 6 {
		t.Errorf("what was handed out was changed: %v", before)
	}
}

// What is kept up change by change is what would be found by looking at everything.
func TestVerifiersKeepUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SampledFrom([]string{"a", "b", "c"})
		audiences := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "x", "http://x/", policy.AdminAudience}), 0, 3, rapid.ID[string])
		state, rulesets := policy.State{}, map[string]*dataplanev1.Ruleset{}
		enrolled := map[string]store.Instance{}
		v := newVerifiers()
		for range rapid.IntRange(1, 12).Draw(t, "changes") {
			name := names.Draw(t, "service")
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				state = maps.Clone(state)
				for _, r := range stateOfServices(calledBy(name, audiences.Draw(t, "audiences")...)) {
					state[policy.Key{Kind: policy.KindService, Name: name}] = r
				}
				rule := builtinRule(time.Duration(rapid.IntRange(0, 120).Draw(t, "skew"))*time.Second, audiences.Draw(t, "accepts")...)
				rule.AudienceUnchecked = rapid.IntRange(0, 5).Draw(t, "unchecked") == 0
				rulesets[name] = enforcing(rule)
				v.published(state, map[string]*dataplanev1.Ruleset{name: rulesets[name]})
			case 1:
				state = maps.Clone(state)
				delete(state, policy.Key{Kind: policy.KindService, Name: name})
				delete(rulesets, name)
				v.published(state, map[string]*dataplanev1.Ruleset{name: nil})
			default:
				key := name + "/i"
				if _, there := enrolled[key]; there {
					delete(enrolled, key)
				} else {
					enrolled[key] = store.Instance{Service: name, ID: "i"}
				}
				v.enrolled(store.InstancesOf(slices.Collect(maps.Values(enrolled))...), []string{key})
			}
			if rapid.Bool().Draw(t, "looked at") {
				v.mesh()
			}
		}
		fresh := newVerifiers()
		fresh.published(state, rulesets)
		fresh.enrolled(store.InstancesOf(slices.Collect(maps.Values(enrolled))...), slices.Collect(maps.Keys(enrolled)))
		got, skew := v.mesh()
		want, wantSkew := fresh.mesh()
		if diff := cmp.Diff(want, got); diff != "" || skew != wantSkew {
			t.Errorf("skew %s, want %s; audiences -want +got:\n%s", skew, wantSkew, diff)
		}
	})
}

// What is handed out is the same map while nothing is another.
func TestVerifiersAreShared(t *testing.T) {
	v, state, rulesets := newVerifiers(), policy.State{}, map[string]*dataplanev1.Ruleset{}
	for i := range 100 {
		name := fmt.Sprint("s", i)
		maps.Copy(state, stateOfServices(calledBy(name)))
		rulesets[name] = enforcing(builtinRule(time.Second, name))
	}
	v.published(state, rulesets)
	first, _ := v.mesh()
	v.published(state, rulesets)
	v.enrolled(store.Instances{}, []string{"s1/none"})
	again, _ := v.mesh()
	if len(first) != 101 || reflect.ValueOf(first).Pointer() != reflect.ValueOf(again).Pointer() {
		t.Errorf("%d audiences, and after no change another map", len(first))
	}
}
