package kong

import (
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

func (c *call) getCredential() (answer, *problem) {
	one := c.directory().credential(c.jwt)
	if one == nil {
		return answer{}, notFound()
	}
	return ok(one.view(c.showSecrets())), nil
}

func (c *call) getOwn() (answer, *problem) {
	_, one, p := c.own(c.directory())
	if p != nil {
		return answer{}, p
	}
	return ok(one.view(c.showSecrets())), nil
}

// own finds the consumer and the credential that the path names.
func (c *call) own(d *directory) (*consumer, *credential, *problem) {
	of := d.consumer(c.consumer)
	if of == nil {
		return nil, nil, notFound()
	}
	one := of.own(c.jwt)
	if one == nil {
		return nil, nil, notFound()
	}
	return of, one, nil
}

func (c *call) createOwn() (answer, *problem) {
	in := readCredential(c.body)
	return c.carryOut(func(d *directory) (change, *problem) {
		of := d.consumer(c.consumer)
		if of == nil {
			return change{}, notFound()
		}
		return c.newCredential(d, of, in)
	})
}

func (c *call) createCredential() (answer, *problem) {
	in := readCredential(c.body)
	return c.carryOut(func(d *directory) (change, *problem) {
		of, p := in.target(d, nil, true)
		if p != nil {
			return change{}, p
		}
		return c.newCredential(d, of, in)
	})
}

// putOwn makes a credential of the consumer or changes one, also that of another
// consumer, which then is this one's.
func (c *call) putOwn() (answer, *problem) {
	in := readCredential(c.body)
	return c.carryOut(func(d *directory) (change, *problem) {
		of := d.consumer(c.consumer)
		if of == nil {
			return change{}, notFound()
		}
		found := of.own(c.jwt)
		if found == nil {
			found = d.credential(c.jwt)
		}
		return c.upsert(d, of, found, in)
	})
}

func (c *call) putCredential() (answer, *problem) {
	in := readCredential(c.body)
	return c.carryOut(func(d *directory) (change, *problem) {
		of, p := in.target(d, nil, true)
		if p != nil {
			return change{}, p
		}
		return c.upsert(d, of, d.credential(c.jwt), in)
	})
}

func (c *call) upsert(d *directory, of *consumer, found *credential, in credentialInput) (change, *problem) {
	if !isUUID(c.jwt) && (found == nil || found.GetKey() == c.jwt) {
		in.key = given[string]{there: true, value: c.jwt}
	}
	if found != nil {
		in.tags.there = true
		return c.updateCredential(d, found, of, in)
	}
	if isUUID(c.jwt) {
		in.fixID(strings.ToLower(c.jwt))
	}
	todo, p := c.newCredential(d, of, in)
	todo.answer.status = ok(nil).status
	return todo, p
}

func (c *call) patchOwn() (answer, *problem) {
	in := readCredential(c.body)
	return c.carryOut(func(d *directory) (change, *problem) {
		of, found, p := c.own(d)
		if p != nil {
			return change{}, p
		}
		if of, p = in.target(d, of, false); p != nil {
			return change{}, p
		}
		return c.updateCredential(d, found, of, in)
	})
}

func (c *call) patchCredential() (answer, *problem) {
	in := readCredential(c.body)
	return c.carryOut(func(d *directory) (change, *problem) {
		found := d.credential(c.jwt)
		if found == nil {
			return change{}, nothingToUpdate(c.jwt, "key")
		}
		of, p := in.target(d, found.of, false)
		if p != nil {
			return change{}, p
		}
		return c.updateCredential(d, found, of, in)
	})
}

func (c *call) deleteOwn() (answer, *problem) {
	return c.carryOut(func(d *directory) (change, *problem) {
		_, found, p := c.own(d)
		if p != nil {
			return change{}, p
		}
		return change{put: []*policyv1.Resource{without(found)}, credential: -1, answer: noContent}, nil
	})
}

// deleteCredential has nothing against what is not there, as in Kong, unlike the
// same below a consumer.
func (c *call) deleteCredential() (answer, *problem) {
	return c.carryOut(func(d *directory) (change, *problem) {
		todo := change{credential: -1, answer: noContent}
		if found := d.credential(c.jwt); found != nil {
			todo.put = []*policyv1.Resource{without(found)}
		}
		return todo, nil
	})
}

// without is the consumer of a credential when it has it no more.
func without(found *credential) *policyv1.Resource {
	r := found.of.edit()
	r.GetConsumer().Credentials = slices.Delete(r.GetConsumer().GetCredentials(), found.index, found.index+1)
	return r
}

func (in *credentialInput) fixID(id string) {
	if in.id.set() && !strings.EqualFold(in.id.value, id) {
		in.add("id", immutable)
	}
	in.id = given[string]{there: true, value: id}
}

// target is the consumer that the body names, or the present one.
func (in *credentialInput) target(d *directory, present *consumer, required bool) (*consumer, *problem) {
	if !in.consumer.set() {
		if required || in.consumer.there {
			in.add("consumer", "required field missing")
		}
		return present, in.problem()
	}
	ref := in.consumer.value
	found := d.byUsername[ref.value]
	if ref.field == "id" {
		found = d.consumerByID[strings.ToLower(ref.value)]
	}
	if found == nil {
		if p := in.problem(); p != nil {
			return nil, p
		}
		return nil, noConsumer(ref.field, ref.value)
	}
	return found, nil
}

func (c *call) newCredential(d *directory, of *consumer, in credentialInput) (change, *problem) {
	made := &policyv1.Credential{Id: in.id.value, Key: in.key.value, Tags: tagsOrNull(in.tags.value), CreatedAt: in.createdAt.value}
	if made.Id == "" {
		made.Id = c.NewUID()
	}
	if made.Key == "" {
		made.Key = c.NewSecret(32)
	}
	if made.CreatedAt == 0 {
		made.CreatedAt = c.Now().Unix()
	}
	c.setKeys(made, &in)
	in.newID(in.id)
	if p := in.problem(); p != nil {
		return change{}, p
	}
	if d.credentialByID[made.Id] != nil {
		return change{}, takenID(made.Id)
	}
	if d.byKey[made.Key] != nil {
		return change{}, taken("key", made.Key)
	}
	r := of.edit()
	r.GetConsumer().Credentials = append(r.GetConsumer().Credentials, made)
	todo := showing(r, made, true)
	todo.answer.status = created
	return todo, nil
}

// updateCredential changes one, and moves it if its consumer is to be another.
func (c *call) updateCredential(d *directory, found *credential, of *consumer, in credentialInput) (change, *problem) {
	in.fixID(strings.ToLower(found.id))
	next := proto.CloneOf(found.Credential)
	next.Id = found.id // stays, also where it was derived
	if in.key.set() {
		next.Key = in.key.value
	}
	if in.tags.there {
		next.Tags = tagsOrNull(in.tags.value)
	}
	told := c.setKeys(next, &in)
	if p := in.problem(); p != nil {
		return change{}, p
	}
	if other := d.byKey[next.GetKey()]; other != nil && other != found && next.GetKey() != found.GetKey() {
		return change{}, taken("key", next.GetKey())
	}
	told = told || c.showSecrets()
	if of == found.of {
		r := of.edit()
		r.GetConsumer().Credentials[found.index] = next
		return showing(r, next, told), nil
	}
	r := of.edit()
	r.GetConsumer().Credentials = append(r.GetConsumer().Credentials, next)
	todo := showing(r, next, told)
	todo.put = append(todo.put, without(found))
	return todo, nil
}

// showing is the change that stores a consumer and answers with one of its
// credentials.
func showing(r *policyv1.Resource, one *policyv1.Credential, secrets bool) change {
	index := slices.Index(r.GetConsumer().GetCredentials(), one)
	shown := &credential{id: one.GetId(), of: newConsumer(r), index: index, Credential: one}
	return change{put: []*policyv1.Resource{r}, credential: index, answer: ok(shown.view(secrets))}
}
