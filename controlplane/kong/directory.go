package kong

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"reflect"
	"slices"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/internal/identity"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// consumer is a Consumer as Kong sees it.
type consumer struct {
	id       string
	resource *policyv1.Resource
	// In the order of their ids.
	credentials []*credential
	// at orders lists, and is where a page ends.
	at string
}

func (c *consumer) spec() *policyv1.ConsumerSpec { return c.resource.GetConsumer() }
func (c *consumer) name() string                 { return c.resource.GetMetadata().GetName() }
func (c *consumer) place() string                { return c.at }

// credential is one of a consumer's.
type credential struct {
	id string
	of *consumer
	// index in the resource.
	index int
	at    string
	*policyv1.Credential
}

func (c *credential) name() string  { return c.of.name() }
func (c *credential) place() string { return c.at }

// directory finds what a state holds by what Kong names it. Lists are in the
// order of their ids; what manifests give twice is found once, by the name of
// its resource.
type directory struct {
	state       policy.State
	byName      map[string]*consumer
	consumers   []*consumer
	credentials []*credential

	consumerByID, byUsername, byCustomID map[string]*consumer
	credentialByID, byKey                map[string]*credential
}

// isOf says whether the directory is of a state: the very same one, since a state is
// not changed once it is shared, and many revisions share one.
func (d *directory) isOf(state policy.State) bool {
	return d != nil && reflect.ValueOf(d.state).UnsafePointer() == reflect.ValueOf(state).UnsafePointer()
}

// newDirectory makes the directory of a state. Of an earlier one, which may be nil,
// it keeps what is made of resources that are still the same.
func newDirectory(state policy.State, since *directory) *directory {
	if since == nil {
		since = &directory{}
	}
	d := &directory{state: state, byName: make(map[string]*consumer, len(since.byName)+1)}
	var fresh []*consumer
	for k, r := range state {
		if k.Kind != policy.KindConsumer {
			continue
		}
		one := since.byName[k.Name]
		if one == nil || one.resource != r {
			one = newConsumer(r)
			fresh = append(fresh, one)
		}
		d.byName[k.Name] = one
	}
	if len(fresh) == 0 && len(d.byName) == len(since.byName) {
		same := *since
		same.state = state
		return &same
	}
	d.list(since, fresh)
	d.index()
	return d
}

// list makes the sorted lists: the earlier ones without what is gone, and with what
// is fresh.
func (d *directory) list(since *directory, fresh []*consumer) {
	var credentials []*credential
	for _, one := range fresh {
		credentials = append(credentials, one.credentials...)
	}
	d.consumers = merged(since.consumers, fresh, func(one *consumer) bool { return d.byName[one.name()] == one })
	d.credentials = merged(since.credentials, credentials, func(one *credential) bool { return d.byName[one.name()] == one.of })
}

// merged is what is kept of a sorted list, and more, in order.
func merged[T interface{ place() string }](list, more []T, keep func(T) bool) []T {
	slices.SortStableFunc(more, byPlace)
	out := make([]T, 0, len(list)+len(more))
	for _, one := range list {
		for len(more) > 0 && byPlace(more[0], one) < 0 {
			out, more = append(out, more[0]), more[1:]
		}
		if keep(one) {
			out = append(out, one)
		}
	}
	return append(out, more...)
}

func byPlace[T interface{ place() string }](a, b T) int { return strings.Compare(a.place(), b.place()) }

func newConsumer(r *policyv1.Resource) *consumer {
	c := &consumer{resource: r, id: cmp.Or(r.GetConsumer().GetId(), r.GetMetadata().GetUid(), derivedID(r.GetMetadata().GetName()))}
	c.at = c.id + "\x00" + c.name()
	for i, stored := range r.GetConsumer().GetCredentials() {
		id := cmp.Or(stored.GetId(), derivedID(c.id, stored.GetKey()))
		c.credentials = append(c.credentials, &credential{id: id, of: c, index: i, at: id + "\x00" + c.name(), Credential: stored})
	}
	slices.SortStableFunc(c.credentials, byPlace)
	return c
}

// edit is a copy of the resource to change, with the ids that were derived, so
// that they stay.
func (c *consumer) edit() *policyv1.Resource {
	r := proto.CloneOf(c.resource)
	r.GetConsumer().Id = c.id
	for _, one := range c.credentials {
		r.GetConsumer().Credentials[one.index].Id = one.id
	}
	return r
}

// derivedID is the same UUID for the same names.
func derivedID(names ...string) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte("watchword:"+strings.Join(names, "\x00"))).String()
}

// index makes the maps.
func (d *directory) index() {
	n, m := len(d.consumers), len(d.credentials)
	d.consumerByID, d.byUsername, d.byCustomID = make(map[string]*consumer, n), make(map[string]*consumer, n), make(map[string]*consumer, n)
	d.credentialByID, d.byKey = make(map[string]*credential, m), make(map[string]*credential, m)
	for _, c := range d.consumers {
		first(d.consumerByID, strings.ToLower(c.id), c)
		first(d.byUsername, c.spec().GetUsername(), c)
		first(d.byCustomID, c.spec().GetCustomId(), c)
		for _, one := range c.credentials {
			first(d.credentialByID, strings.ToLower(one.id), one)
			first(d.byKey, one.GetKey(), one)
		}
	}
}

// first keeps the one whose resource is the first by name.
func first[T interface {
	comparable
	name() string
}](index map[string]T, key string, item T) {
	if key == "" {
		return
	}
	if other, there := index[key]; !there || item.name() < other.name() {
		index[key] = item
	}
}

// consumer finds one by id or username; nil if there is none. What looks like an
// id is one, as in Kong.
func (d *directory) consumer(ref string) *consumer {
	id := d.consumerByID[strings.ToLower(ref)]
	if isUUID(ref) {
		return id
	}
	return cmp.Or(d.byUsername[ref], id)
}

// credential finds one by id or key.
func (d *directory) credential(ref string) *credential {
	id := d.credentialByID[strings.ToLower(ref)]
	if isUUID(ref) {
		return id
	}
	return cmp.Or(d.byKey[ref], id)
}

// own finds a credential of one consumer.
func (c *consumer) own(ref string) *credential {
	var byID *credential
	for _, credential := range c.credentials {
		if !isUUID(ref) && credential.GetKey() == ref {
			return credential
		}
		if byID == nil && strings.EqualFold(credential.id, ref) {
			byID = credential
		}
	}
	return byID
}

// resourceName is the name of a new Consumer: the username where that is one and
// free, else one that holds what can be kept of it and tells others of like
// spelling apart.
func (d *directory) resourceName(username, id string) string {
	free := func(name string) bool { return d.state[policy.Key{Kind: policy.KindConsumer, Name: name}] == nil }
	if identity.IsName(username) && free(username) {
		return username
	}
	kept := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(username))
	kept = strings.Trim(kept[:min(len(kept), 40)], "-")
	sum := sha256.Sum256([]byte(id))
	digest := hex.EncodeToString(sum[:])
	for length := 8; ; length++ {
		name := strings.TrimPrefix(kept+"-"+digest[:length], "-")
		if free(name) || length == 22 {
			return name
		}
	}
}
