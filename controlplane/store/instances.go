package store

import (
	"hash/maphash"
	"iter"
	"maps"
)

// instanceShards bounds what one enrolment copies: with one map, ten thousand
// instances that enrol at once would copy it ten thousand times.
const instanceShards = 256

// Instances are the enrolled instances at one revision. They don't change and
// may be shared: the next revision has its own, which shares what is the same.
type Instances struct {
	shards *[instanceShards]map[string]*Instance
}

var instanceSeed = maphash.MakeSeed()

func instanceShard(key string) uint64 { return maphash.String(instanceSeed, key) % instanceShards }

// Get returns the instance under SERVICE/ID.
func (all Instances) Get(key string) (Instance, bool) {
	if all.shards == nil {
		return Instance{}, false
	}
	i, ok := all.shards[instanceShard(key)][key]
	if !ok {
		return Instance{}, false
	}
	return *i, true
}

// Len is how many there are.
func (all Instances) Len() int {
	n := 0
	if all.shards != nil {
		for _, shard := range all.shards {
			n += len(shard)
		}
	}
	return n
}

// All are the instances, in no order.
func (all Instances) All() iter.Seq[Instance] {
	return func(yield func(Instance) bool) {
		if all.shards == nil {
			return
		}
		for _, shard := range all.shards {
			for _, i := range shard {
				if !yield(*i) {
					return
				}
			}
		}
	}
}

// InstancesOf are some instances.
func InstancesOf(list ...Instance) Instances {
	var all Instances
	for _, i := range list {
		all.set(i)
	}
	return all
}

// Names are SERVICE/ID of all, in no order.
func (all Instances) Names() []string {
	names := make([]string, 0, all.Len())
	for i := range all.All() {
		names = append(names, i.key())
	}
	return names
}

// Equal says whether both hold the same.
func (all Instances) Equal(other Instances) bool {
	for i := range all.All() {
		if o, ok := other.Get(i.key()); !ok || !o.same(i) {
			return false
		}
	}
	return all.Len() == other.Len()
}

// set is only for who makes the first snapshot, before anybody shares it.
func (all *Instances) set(i Instance) {
	if all.shards == nil {
		all.shards = &[instanceShards]map[string]*Instance{}
	}
	shard := &all.shards[instanceShard(i.key())]
	if *shard == nil {
		*shard = map[string]*Instance{}
	}
	(*shard)[i.key()] = &i
}

// merged are these and others, which win.
func (all Instances) merged(others Instances) Instances {
	if all.shards == nil || others.shards == nil {
		if others.shards == nil {
			return all
		}
		return others
	}
	shards := *all.shards
	for n, more := range others.shards {
		if len(more) > 0 {
			shards[n] = mergedShard(shards[n], more)
		}
	}
	return Instances{shards: &shards}
}

func mergedShard(shard, more map[string]*Instance) map[string]*Instance {
	out := make(map[string]*Instance, len(shard)+len(more))
	maps.Copy(out, shard)
	maps.Copy(out, more)
	return out
}

// without are these without some. Each shard is copied once, however many of it
// go.
func (all Instances) without(keys []string) Instances {
	if all.shards == nil || len(keys) == 0 {
		return all
	}
	shards := *all.shards
	var copied [instanceShards]bool
	for _, key := range keys {
		n := instanceShard(key)
		if _, there := shards[n][key]; !there {
			continue
		}
		if !copied[n] {
			shards[n], copied[n] = maps.Clone(shards[n]), true
		}
		delete(shards[n], key)
	}
	return Instances{shards: &shards}
}
