package controlplane

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/controlplane/store"
)

// leadership runs work while this replica leads, until ctx ends. The context of the work
// ends with the authority; what it writes is fenced besides, by the ID of the leader.
func (m *membership) leadership(ctx context.Context, work func(ctx context.Context, leader string)) error {
	for ctx.Err() == nil {
		place := m.current()
		if _, holds := m.holds(); !holds {
			sleep(ctx, m.bounds.Authority/10)
			continue
		}
		if err := m.campaign(ctx, place); err != nil {
			if ctx.Err() == nil && !errors.Is(err, store.ErrLost) && !errors.Is(err, context.Canceled) {
				m.log.Debug("the lead could not be asked for", "error", err)
			}
			sleep(ctx, min(time.Second, m.bounds.Authority/10))
			continue
		}
		m.log.Info("leads the replicas", "member", place.ID)
		m.whileHeld(ctx, place, func(ctx context.Context) { work(ctx, place.ID) })
		if ctx.Err() == nil {
			m.log.Info("leads no more", "member", place.ID)
		}
	}
	return nil
}

// campaign waits for the lead, but not beyond the place.
func (m *membership) campaign(ctx context.Context, place *store.Place) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-place.Lost():
			cancel()
		case <-ctx.Done():
		}
	}()
	return place.Campaign(ctx)
}

// whileHeld runs work, and ends its context when the authority does.
func (m *membership) whileHeld(ctx context.Context, place *store.Place, work func(context.Context)) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		defer cancel()
		for ctx.Err() == nil && m.current() == place {
			until, holds := m.holds()
			if !holds {
				return
			}
			select {
			case <-ctx.Done():
			case <-place.Lost():
				return
			case <-time.After(time.Until(until)):
			}
		}
	}()
	work(ctx)
	cancel()
	<-watched
}

// lead is the work of the leader: it changes the signing keys, and forgets who is gone.
func (r *replica) lead(ctx context.Context, leader string) {
	var g errgroup.Group
	g.Go(func() error { r.stepper.lead(ctx, leader); return nil })
	g.Go(func() error { r.forget(ctx, leader); return nil })
	_ = g.Wait()
}

// forgetEvery is how often it is looked whether departed members can be forgotten.
const forgetEvery = time.Minute

// forget removes departed members of which nothing is waited for any more, until ctx
// ends. It is work of the leader.
func (r *replica) forget(ctx context.Context, leader string) {
	for ctx.Err() == nil {
		var ids []string
		r.cluster.observe(func(o *ledger.Observer) { ids = o.Forgettable(time.Now()) })
		for _, id := range ids {
			err := r.store.Forget(ctx, leader, id)
			if err == nil {
				r.Logger.Info("a departed replica is forgotten; nothing is waited for of it any more", "member", id)
			} else if ctx.Err() == nil && !errors.Is(err, store.ErrConflict) {
				r.Logger.Warn("a departed replica could not be forgotten; trying again later", "member", id, "error", err)
			}
		}
		sleep(ctx, forgetEvery)
	}
}
