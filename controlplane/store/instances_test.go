package store

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Whatever comes and goes, Instances hold what a plain map would, and those of
// earlier revisions stay as they were.
func TestInstancesAreAMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	model := map[string]Instance{}
	var all Instances
	type state struct {
		all   Instances
		model map[string]Instance
	}
	var states []state
	for range 300 {
		var come Instances
		var gone []string
		for range r.IntN(5) {
			i := instance("s", fmt.Sprint(r.IntN(200)))
			i.Revision = r.Int64()
			come.set(i)
			model[i.key()] = i
		}
		for range r.IntN(3) {
			if key := "s/" + fmt.Sprint(r.IntN(200)); !holds(come, key) {
				gone = append(gone, key)
				delete(model, key)
			}
		}
		all = all.without(gone).merged(come)
		states = append(states, state{all, maps.Clone(model)})
	}
	for n, s := range states {
		got := map[string]Instance{}
		for i := range s.all.All() {
			got[i.key()] = i
		}
		if d := cmp.Diff(s.model, got); d != "" || s.all.Len() != len(s.model) {
			t.Fatalf("after step %d: %d (-want +got):\n%s", n, s.all.Len(), d)
		}
		if same := InstancesOf(slices.Collect(maps.Values(s.model))...); !same.Equal(s.all) || !s.all.Equal(same) {
			t.Fatalf("after step %d: not Equal to the same ones", n)
		}
	}
	if first, last := states[0].all, states[299].all; first.Equal(last) || last.Equal(first) {
		t.Error("the first and the last are Equal")
	}
}

func holds(all Instances, key string) bool {
	_, ok := all.Get(key)
	return ok
}

// One enrolment after the other, each an event with a snapshot of its own: the
// time of one may hardly depend on how many there are. The metric is the time of
// one at 10,000 by that at 1,000; a map that is copied for each has 10.
func BenchmarkEnrolEvents(b *testing.B) {
	enrol := func(n int) (perEvent float64) {
		s := &Store{prefix: "/p/"}
		events := make([]*clientv3.Event, n)
		for i := range events {
			put, err := s.putInstance(instance("s", fmt.Sprint(i)))
			if err != nil {
				b.Fatal(err)
			}
			events[i] = &clientv3.Event{Type: clientv3.EventTypePut, Kv: &mvccpb.KeyValue{Key: put.KeyBytes(), Value: put.ValueBytes(), ModRevision: int64(i + 1)}}
		}
		began := b.Elapsed()
		state := newSnapshot(0)
		for i := range events {
			state = s.advance(state, events[i:i+1]).Snapshot
		}
		if state.Instances.Len() != n {
			b.Fatalf("%d instances, want %d", state.Instances.Len(), n)
		}
		return float64(b.Elapsed()-began) / float64(n)
	}
	var small, large float64
	for b.Loop() {
		small += enrol(1000)
		large += enrol(10000)
	}
	b.ReportMetric(large/small, "x-at-10000")
	b.ReportMetric(large/float64(b.N)/1000, "us/event")
}
