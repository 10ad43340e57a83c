package kong

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// consumer is a Consumer as Kong sees it.
type consumer struct {
	id       string
	resource *policyv1.Resource
	// In the order of their ids.
	credentials []*credential
}

func (c *consumer) spec() *policyv1.ConsumerSpec { return c.resource.GetConsumer() }

// credential is one of a consumer's.
type credential struct {
	id string
	of *consumer
	// index in the resource.
	index int
	*policyv1.Credential
}

// directory finds what a state holds by what Kong names it. Lists are in the
// order of their ids; what manifests give twice is found once, by the name of
// its resource.
type directory struct {
	state       policy.State
	revision    int64
	consumers   []*consumer
	credentials []*credential

	consumerByID, byUsername, byCustomID map[string]*consumer
	credentialByID, byKey                map[string]*credential
}

func newDirectory(state policy.State, revision int64) *directory {
	d := &directory{state: state, revision: revision,
		consumerByID: map[string]*consumer{}, byUsername: map[string]*consumer{}, byCustomID: map[string]*consumer{},
		credentialByID: map[string]*credential{}, byKey: map[string]*credential{}}
	for _, k := range state.Keys() {
		if k.Kind == policy.KindConsumer {
			d.add(newConsumer(state[k]))
		}
	}
	slices.SortFunc(d.consumers, func(a, b *consumer) int { return strings.Compare(a.place(), b.place()) })
	slices.SortFunc(d.credentials, func(a, b *credential) int { return strings.Compare(a.place(), b.place()) })
	return d
}

func newConsumer(r *policyv1.Resource) *consumer {
	c := &consumer{resource: r, id: cmp.Or(r.GetConsumer().GetId(), r.GetMetadata().GetUid(), derivedID(r.GetMetadata().GetName()))}
	for i, stored := range r.GetConsumer().GetCredentials() {
		id := cmp.Or(stored.GetId(), derivedID(c.id, stored.GetKey()))
		c.credentials = append(c.credentials, &credential{id: id, of: c, index: i, Credential: stored})
	}
	slices.SortFunc(c.credentials, func(a, b *credential) int { return strings.Compare(a.place(), b.place()) })
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

func (d *directory) add(c *consumer) {
	d.consumers = append(d.consumers, c)
	first(d.consumerByID, strings.ToLower(c.id), c)
	first(d.byUsername, c.spec().GetUsername(), c)
	first(d.byCustomID, c.spec().GetCustomId(), c)
	for _, credential := range c.credentials {
		d.credentials = append(d.credentials, credential)
		first(d.credentialByID, strings.ToLower(credential.id), credential)
		first(d.byKey, credential.GetKey(), credential)
	}
}

func first[T any](index map[string]*T, key string, item *T) {
	if key != "" && index[key] == nil {
		index[key] = item
	}
}

// place orders lists, and is where a page ends.
func (c *consumer) place() string   { return c.id + "\x00" + c.resource.GetMetadata().GetName() }
func (c *credential) place() string { return c.id + "\x00" + c.of.resource.GetMetadata().GetName() }

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

var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)

// resourceName is the name of a new Consumer: the username where that is one and
// free, else one that holds what can be kept of it and tells others of like
// spelling apart.
func (d *directory) resourceName(username, id string) string {
	free := func(name string) bool { return d.state[policy.Key{Kind: policy.KindConsumer, Name: name}] == nil }
	if dnsLabel.MatchString(username) && free(username) {
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
