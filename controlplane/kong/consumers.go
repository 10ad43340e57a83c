package kong

import (
	"cmp"
	"strings"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

func (c *call) getConsumer() (answer, *problem) {
	one := c.named(c.directory())
	if one == nil {
		return answer{}, notFound()
	}
	return ok(one.view()), nil
}

// named is the consumer that the path names: by itself, or by a credential.
func (c *call) named(d *directory) *consumer {
	if c.consumer != "" {
		return d.consumer(c.consumer)
	}
	if one := d.credential(c.jwt); one != nil {
		return one.of
	}
	return nil
}

func (c *call) createConsumer() (answer, *problem) {
	in := readConsumer(c.body)
	return c.carryOut(func(d *directory) (change, *problem) {
		todo, p := c.newConsumer(d, in)
		todo.answer.status = created
		return todo, p
	})
}

func (c *call) putConsumer() (answer, *problem) {
	in := readConsumer(c.body)
	return c.carryOut(func(d *directory) (change, *problem) {
		found := c.named(d)
		if found == nil && c.consumer == "" {
			return change{}, notFound()
		}
		if c.consumer != "" && !isUUID(c.consumer) && (found == nil || found.spec().GetUsername() == c.consumer) {
			in.username = given[string]{there: true, value: c.consumer}
		}
		if found == nil {
			if isUUID(c.consumer) {
				in.fixID(strings.ToLower(c.consumer))
			}
			return c.newConsumer(d, in)
		}
		in.username.there, in.customID.there, in.tags.there, in.whole = true, true, true, true
		return c.updateConsumer(d, found, in)
	})
}

func (c *call) patchConsumer() (answer, *problem) {
	in := readConsumer(c.body)
	return c.carryOut(func(d *directory) (change, *problem) {
		found := c.named(d)
		switch {
		case found == nil && c.consumer == "":
			return change{}, notFound()
		case found == nil:
			return change{}, nothingToUpdate(c.consumer, "username")
		}
		return c.updateConsumer(d, found, in)
	})
}

// deleteConsumer takes the credentials along. What is not there is deleted.
func (c *call) deleteConsumer() (answer, *problem) {
	return c.carryOut(func(d *directory) (change, *problem) {
		todo := change{answer: noContent, credential: -1}
		if found := d.consumer(c.consumer); found != nil {
			todo.remove = []policy.Key{policy.KeyOf(found.resource)}
		}
		return todo, nil
	})
}

// newID checks the id of what is to be made. What manifests have made may have
// another one.
func (v *violations) newID(id given[string]) {
	if id.set() && !isUUID(id.value) {
		v.add("id", "expected a valid UUID")
	}
}

// fixID is for an id that the path says: the body may repeat it.
func (in *consumerInput) fixID(id string) {
	if in.id.set() && !strings.EqualFold(in.id.value, id) {
		in.add("id", immutable)
	}
	in.id = given[string]{there: true, value: id}
}

const immutable = "immutable field cannot be updated"

const namesNobody = "at least one of these fields must be non-empty: 'custom_id', 'username'"

func (c *call) newConsumer(d *directory, in consumerInput) (change, *problem) {
	if !in.username.set() && !in.customID.set() {
		in.addEntity(namesNobody)
	}
	in.newID(in.id)
	if p := in.problem(); p != nil {
		return change{}, p
	}
	if in.id.set() && d.consumerByID[in.id.value] != nil {
		return change{}, takenID(in.id.value)
	}
	id := in.id.value
	if id == "" {
		id = c.NewUID()
	}
	spec := &policyv1.ConsumerSpec{Id: id, Username: in.username.value, CustomId: in.customID.value, Tags: in.tags.value}
	if spec.CreatedAt = in.createdAt.value; spec.CreatedAt == 0 {
		spec.CreatedAt = c.Now().Unix()
	}
	name := d.resourceName(cmp.Or(spec.GetUsername(), spec.GetCustomId()), id)
	r := &policyv1.Resource{Metadata: &policyv1.Metadata{Name: name}, Spec: &policyv1.Resource_Consumer{Consumer: spec}}
	return c.putting(d, r, "")
}

func (c *call) updateConsumer(d *directory, found *consumer, in consumerInput) (change, *problem) {
	in.fixID(strings.ToLower(found.id))
	r := found.edit()
	spec := r.GetConsumer()
	named := spec.GetUsername() != "" || spec.GetCustomId() != ""
	if in.username.there {
		spec.Username = in.username.value
	}
	if in.customID.there {
		spec.CustomId = in.customID.value
	}
	if in.tags.there {
		spec.Tags = tagsOrNull(in.tags.value)
	}
	// A manifest may name a consumer by other things.
	if (named || in.whole) && spec.GetUsername() == "" && spec.GetCustomId() == "" {
		in.addEntity(namesNobody)
	}
	if p := in.problem(); p != nil {
		return change{}, p
	}
	return c.putting(d, r, found.id)
}

// putting is the change that stores a consumer, whose id was self before.
func (c *call) putting(d *directory, r *policyv1.Resource, self string) (change, *problem) {
	s := r.GetConsumer()
	if other := d.byUsername[s.GetUsername()]; other != nil && other.id != self {
		return change{}, taken("username", s.GetUsername())
	}
	if other := d.byCustomID[s.GetCustomId()]; other != nil && other.id != self {
		return change{}, taken("custom_id", s.GetCustomId())
	}
	return change{put: []*policyv1.Resource{r}, credential: -1, answer: ok(newConsumer(r).view())}, nil
}
