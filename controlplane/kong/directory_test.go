package kong

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// shown is all that a directory says, as text.
func (d *directory) shown() map[string][]string {
	out := map[string][]string{}
	say := func(what string, c *consumer) { out[what] = append(out[what], c.id+" of "+c.name()) }
	for _, c := range d.consumers {
		say("consumers", c)
	}
	for _, one := range d.credentials {
		out["credentials"] = append(out["credentials"], fmt.Sprint(one.id, " of ", one.name(), " ", one.index))
	}
	for i, index := range []map[string]*consumer{d.byName, d.consumerByID, d.byUsername, d.byCustomID} {
		for k, c := range index {
			say(fmt.Sprint(i, k), c)
		}
	}
	for i, index := range []map[string]*credential{d.credentialByID, d.byKey} {
		for k, one := range index {
			out[fmt.Sprint("credential", i, k)] = []string{fmt.Sprint(one.id, " of ", one.name(), " ", one.index)}
		}
	}
	return out
}

// drawConsumers is a state where what should be unique often is not.
func drawConsumers(t *rapid.T, label string, from policy.State) policy.State {
	s := policy.State{}
	value := func(what string) string {
		return rapid.SampledFrom([]string{"", "a", "B", "b"}).Draw(t, label+what)
	}
	for _, name := range []string{"k", "l", "m", "n"} {
		k := policy.Key{Kind: policy.KindConsumer, Name: name}
		switch rapid.IntRange(0, 2).Draw(t, label+name) {
		case 0: // as it was
			if from[k] != nil {
				s[k] = from[k]
			}
		case 1:
			spec := &policyv1.ConsumerSpec{Id: value("id"), Username: value("username"), CustomId: value("custom id")}
			for i := range rapid.IntRange(0, 2).Draw(t, label+"credentials") {
				spec.Credentials = append(spec.Credentials, &policyv1.Credential{Id: value("credential"), Key: fmt.Sprint(value("key"), i)})
			}
			s[k] = &policyv1.Resource{Metadata: &policyv1.Metadata{Name: name}, Spec: &policyv1.Resource_Consumer{Consumer: spec}}
		}
	}
	return s
}

// A directory that is made of an earlier one is the same as one that is made anew.
func TestDirectoryOfAnEarlierOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var d *directory
		var state policy.State
		for step := range 4 {
			state = drawConsumers(t, fmt.Sprint(step), state)
			d = newDirectory(state, d)
			if diff := cmp.Diff(newDirectory(state, nil).shown(), d.shown()); diff != "" {
				t.Fatalf("step %d: -anew +of the earlier one:\n%s", step, diff)
			}
		}
	})
}

// As long as the resources are the same, so is the directory, whatever the revision;
// what else changes leaves what is made of consumers.
func TestDirectoryIsKept(t *testing.T) {
	m := store(t, bob)
	h := New(config(m)).(*handler)
	first := h.directory()
	m.revision++
	if got := h.directory(); got != first {
		t.Error("a new revision of the same resources has another directory")
	}
	m.state = m.state.Clone()
	m.state[policy.Key{Kind: policy.KindService, Name: "s"}] = &policyv1.Resource{Metadata: &policyv1.Metadata{Name: "s"}, Spec: &policyv1.Resource_Service{Service: &policyv1.ServiceSpec{}}}
	second := h.directory()
	if second == first || second.consumers[0] != first.consumers[0] || second.state.Service("s") == nil {
		t.Errorf("with a service more the directory is %p of %v, before %p; want another, with the same consumer", second, second.state.Keys(), first)
	}
	m.state = policy.State{}
	if got := h.directory(); len(got.consumers)+len(got.byUsername) != 0 {
		t.Errorf("without resources there are still %v", got.shown())
	}
}
