package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/watchword-mesh/watchword/controlplane/audit"
)

// Instance is an enrolled instance of a service.
type Instance struct {
	// Service and ID name it; the ID is made from its public key.
	Service, ID string
	// Node is what it called itself: a label for people.
	Node string
	// PublicJWK is the canonical JSON of its public key.
	PublicJWK string
	// AttestedBy is what it proved itself with: "join-token/ID",
	// "kubernetes/ISSUER".
	AttestedBy string
	// Enrolled, Renewed and Expires are in UTC.
	Enrolled, Renewed, Expires time.Time
	// Revision is that of the last write.
	Revision int64
}

func (i Instance) key() string { return i.Service + "/" + i.ID }

func (i Instance) same(o Instance) bool {
	times := i.Enrolled.Equal(o.Enrolled) && i.Renewed.Equal(o.Renewed) && i.Expires.Equal(o.Expires)
	i.Enrolled, i.Renewed, i.Expires = o.Enrolled, o.Renewed, o.Expires
	return times && i == o
}

// instanceRecord is the stored form of an Instance. It holds no secret.
type instanceRecord struct {
	Service    string    `json:"service"`
	ID         string    `json:"id"`
	Node       string    `json:"node,omitempty"`
	PublicJWK  string    `json:"jwk"`
	AttestedBy string    `json:"attested_by"`
	Enrolled   time.Time `json:"enrolled"`
	Renewed    time.Time `json:"renewed"`
	Expires    time.Time `json:"expires"`
}

func decodeInstance(name string, kv *mvccpb.KeyValue) (Instance, error) {
	var r instanceRecord
	if err := json.Unmarshal(kv.Value, &r); err != nil {
		return Instance{}, err
	}
	i := Instance{Service: r.Service, ID: r.ID, Node: r.Node, PublicJWK: r.PublicJWK, AttestedBy: r.AttestedBy,
		Enrolled: r.Enrolled, Renewed: r.Renewed, Expires: r.Expires, Revision: kv.ModRevision}
	if name != instancesPrefix+i.key() {
		return Instance{}, fmt.Errorf("it holds %s%s", instancesPrefix, i.key())
	}
	return i, nil
}

func (s *Store) putInstance(i Instance) (clientv3.Op, error) {
	value, err := encodeJSON(instanceRecord{Service: i.Service, ID: i.ID, Node: i.Node, PublicJWK: i.PublicJWK, AttestedBy: i.AttestedBy,
		Enrolled: i.Enrolled, Renewed: i.Renewed, Expires: i.Expires})
	return clientv3.OpPut(s.prefix+instancesPrefix+i.key(), value), err
}

// Errors of enrolments, beside ErrConflict and ErrNoService.
var (
	// ErrUsedUp means that a join token has no uses left.
	ErrUsedUp = errors.New("the join token is used up")
	// ErrRevoked means that the instance was revoked by name. It comes back with
	// another key only.
	ErrRevoked = errors.New("the instance was revoked")
	// ErrOtherKey means that an instance of that ID has another public key,
	// which only happens if the caller makes IDs from something else.
	ErrOtherKey = errors.New("an instance of that name has another key")
)

// Enrol stores an instance, and that it has used a join token, in one
// transaction. An instance that is there with the same key is renewed, with its
// time of enrolment as it was, and uses nothing.
//
// It goes through only if what the caller judged by still holds: the token is as
// it was at use.Revision, and with i.Revision, which is that of the snapshot of a
// caller without a token, the service was neither made anew nor its enrolments
// revoked since. Otherwise it is ErrConflict: read and judge again. Without the
// service it is ErrNoService.
func (s *Store) Enrol(ctx context.Context, i Instance, use *JoinToken, entry audit.Entry) (Instance, error) {
	if use != nil && use.Service != i.Service {
		return Instance{}, fmt.Errorf("a join token of the service %s is not for %s", use.Service, i.Service)
	}
	there, found, err := s.readInstance(ctx, i.Service, i.ID)
	if err != nil {
		return Instance{}, err
	}
	conditions := s.enrollable(i)
	var ops []clientv3.Op
	switch {
	case found && there.PublicJWK != i.PublicJWK:
		return Instance{}, ErrOtherKey
	case found:
		i.Enrolled = there.Enrolled
		if use != nil {
			conditions = append(conditions, exists(s.joinTokenKey(use.Service, use.ID)))
		}
	case use != nil && (len(use.Instances) >= use.Uses || slices.Contains(use.Instances, i.ID)): // the latter was revoked since
		return Instance{}, ErrUsedUp
	case use != nil:
		used := *use
		used.Instances = append(slices.Clone(use.Instances), i.ID)
		put, err := s.putJoinToken(used)
		if err != nil {
			return Instance{}, err
		}
		ops = append(ops, put)
		conditions = append(conditions, unchanged(s.joinTokenKey(use.Service, use.ID), use.Revision))
	}
	put, err := s.putInstance(i)
	if err != nil {
		return Instance{}, err
	}
	if kv, err := s.get(ctx, revokedPrefix+i.key()); err != nil || kv != nil {
		return Instance{}, errors.Join(err, ErrRevoked)
	}
	conditions = append(conditions, unchanged(s.revokedKey(i.Service, i.ID), 0))
	// A key that is not there has the revision 0.
	conditions = append(conditions, unchanged(s.prefix+instancesPrefix+i.key(), there.Revision))
	i.Revision, err = s.write(ctx, entry, conditions, append(ops, put)...)
	if errors.Is(err, ErrConflict) {
		return Instance{}, s.orNoService(ctx, i.Service, err)
	}
	return i, err
}

// enrollable is what must hold of the service.
func (s *Store) enrollable(i Instance) []clientv3.Cmp {
	service := s.serviceKey(i.Service)
	conditions := []clientv3.Cmp{exists(service)}
	if i.Revision > 0 {
		conditions = append(conditions,
			clientv3.Compare(clientv3.CreateRevision(service), "<", i.Revision+1),
			clientv3.Compare(clientv3.ModRevision(s.prefix+enrolmentsPrefix+i.Service), "<", i.Revision+1))
	}
	return conditions
}

// Instance reads one from etcd. ErrUnknown means that there is none.
func (s *Store) Instance(ctx context.Context, service, id string) (Instance, error) {
	i, found, err := s.readInstance(ctx, service, id)
	if err == nil && !found {
		err = ErrUnknown
	}
	return i, err
}

func (s *Store) readInstance(ctx context.Context, service, id string) (Instance, bool, error) {
	name := instancesPrefix + service + "/" + id
	kv, err := s.get(ctx, name)
	if kv == nil || err != nil {
		return Instance{}, false, err
	}
	i, err := decodeInstance(name, kv)
	if err != nil {
		return Instance{}, false, unreadable(kv, err)
	}
	return i, true, nil
}

// Renew stores the new times of an instance if it is still as it was at
// i.Revision. ErrConflict means that it was written since, ErrUnknown that it is
// gone.
func (s *Store) Renew(ctx context.Context, i Instance) error {
	put, err := s.putInstance(i)
	if err != nil {
		return err
	}
	key := s.prefix + instancesPrefix + i.key()
	_, err = s.write(ctx, audit.Entry{}, []clientv3.Cmp{exists(key), unchanged(key, i.Revision)}, put)
	if errors.Is(err, ErrConflict) {
		if _, found, readErr := s.readInstance(ctx, i.Service, i.ID); readErr == nil && !found {
			return ErrUnknown
		}
	}
	return err
}
