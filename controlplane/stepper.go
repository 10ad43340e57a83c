package controlplane

import (
	"context"
	"errors"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/rotation"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/issuer/keyset"
	"github.com/watchword-mesh/watchword/issuer/sts"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// keyState is what the steps of the signing keys go by, all of one snapshot. It doesn't
// change.
type keyState struct {
	keys   keyset.Keys
	mesh   rotation.Mesh
	bounds ledger.Bounds
}

// noteKeys keeps what the steps of the keys go by, after a snapshot was published.
func (l *loop) noteKeys(e store.Event, services []string) {
	state := e.Snapshot.Config
	for _, name := range services {
		last, there := l.last[name]
		switch {
		case there:
			l.verifiers.take(state, name, last.ruleset)
		case state.Service(name) == nil:
			l.verifiers.take(state, name, nil)
		default:
			l.verifiers.named(state, name) // its data planes keep what they have
		}
	}
	l.verifiers.enrolled(e.Snapshot.Instances, e.Instances)
	spec := builtinKeys(state)
	k := &keyState{keys: keyset.Keys{Records: e.Snapshot.Keys, Open: e.Snapshot.Open}, bounds: boundsOf(l.bounds, spec)}
	k.mesh.Audiences, k.mesh.Skew = l.verifiers.mesh()
	k.mesh.Every, k.mesh.Algorithm = scheduleOf(spec)
	if last := l.keyState.Swap(k); l.rebound != nil && (last == nil || last.bounds != k.bounds) {
		l.rebound(k.bounds)
	}
}

func builtinKeys(state policy.State) *policyv1.BuiltinKeys {
	return state.Issuer(policy.BuiltinIssuer).GetKeySet().GetBuiltin()
}

// moments gives what is known at one time of keys, mesh and replicas.
type moments struct {
	loop    *loop
	cluster *cluster
	now     func() time.Time
}

// now asks with what is known now. The moment is good until ask returns.
func (m moments) at(ask func(rotation.Moment)) {
	m.cluster.observe(func(o *ledger.Observer) {
		k := m.loop.keyState.Load()
		ask(rotation.Moment{Now: m.now(), Keys: k.keys, Mesh: k.mesh, Observer: o, Bounds: k.bounds, MaxAge: sts.KeySetMaxAge})
	})
}

// stepper changes the signing keys while this replica leads: what rotation.Step says,
// in one transaction, and then it looks again.
type stepper struct {
	moments
	store keyStore
	log   hclog.Logger
}

// keyStore is the store, as far as the signing keys need it.
type keyStore interface {
	CommitKeys(context.Context, store.KeyChange) (revision int64, err error)
}

// lookAgain is how often it is looked what time alone has made due; what people and
// data planes do wakes the stepper at once.
const lookAgain = time.Second

// lead steps until ctx ends, which is when another replica may lead.
func (s *stepper) lead(ctx context.Context, leader string) {
	for ctx.Err() == nil {
		moved, told := s.loop.moves(), s.cluster.change()
		if err := s.turn(ctx, leader); err != nil && ctx.Err() == nil {
			s.log.Warn("the signing keys could not be changed; trying again", "error", err)
			sleep(ctx, lookAgain)
		}
		wait(ctx, lookAgain, moved, told, nil)
	}
}

// turn writes until nothing more is due.
func (s *stepper) turn(ctx context.Context, leader string) error {
	for ctx.Err() == nil {
		change, basis := s.next()
		if change.Empty() {
			return nil
		}
		revision, err := s.commit(ctx, leader, change, basis)
		if errors.Is(err, store.ErrConflict) {
			return nil // what is newer is on its way here, and wakes us
		}
		if err != nil {
			return err
		}
		if err := s.loop.reached(ctx, revision); err != nil {
			return err
		}
	}
	return nil
}

// next is what is due, and what must still hold when it is written.
func (s *stepper) next() (change keyset.Change, basis store.KeyChange) {
	s.at(func(m rotation.Moment) {
		change = rotation.Step(m)
		basis = fence(m.Keys)
		basis.Joined = m.Observer.Cluster().Joined
	})
	return change, basis
}

// fence is that no key has changed since.
func fence(k keyset.Keys) store.KeyChange {
	c := store.KeyChange{Read: map[string]int64{}, OpenRevision: k.Open.Revision}
	for kid, r := range k.Records {
		c.Read[kid] = r.Revision
	}
	return c
}

func (s *stepper) commit(ctx context.Context, leader string, change keyset.Change, c store.KeyChange) (int64, error) {
	c.Leader, c.Put, c.Delete, c.Open, c.Floor = leader, change.Put, change.Delete, change.Open, change.Removes
	if change.Publish != "" {
		next, err := keyset.New(change.Publish, s.now())
		if err != nil {
			return 0, err
		}
		c.Put = append(c.Put, next)
	}
	revision, err := s.store.CommitKeys(ctx, c)
	if err != nil {
		return 0, err
	}
	for _, k := range c.Put {
		s.log.Info("signing key", "kid", k.KeyID, "alg", k.Algorithm, "state", k.State, "revision", revision)
	}
	for _, kid := range c.Delete {
		s.log.Info("signing key is gone", "kid", kid, "revision", revision)
	}
	if c.Open != nil && len(c.Open.Except) > 0 {
		s.log.Info("data planes of some audiences have not confirmed the new signing key; an older one goes on signing for those (`watchword key status`)", "audiences", len(c.Open.Except), "revision", revision)
	}
	return revision, nil
}
