// Package controlplane is one replica: the store, the loop that turns its
// state into configuration, and the servers around it.
//
//	admin API -> store (etcd) -> watch -> loop: compile -> translate -> xds -> data planes
//	                                        |                             |
//	                                        +-> token service             +-> ledger -> admin API
//
// A change goes through in one direction; only what data planes confirmed
// comes back, as data.
package controlplane

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-mesh/watchword/controlplane/accesslog"
	"github.com/watchword-mesh/watchword/controlplane/api"
	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/bundle"
	"github.com/watchword-mesh/watchword/controlplane/enrolment"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/controlplane/xds"
	"github.com/watchword-mesh/watchword/issuer/sts"
)

// Run serves until ctx ends or something fails that it can't go on without.
// It returns nil after an orderly stop.
func Run(ctx context.Context, c Config) error {
	given := c
	c = c.withDefaults()
	if err := c.check(); err != nil {
		return &ConfigError{err}
	}
	unlock, err := c.prepareDataDir()
	if err != nil {
		return err
	}
	defer unlock()
	l, err := listen(c)
	if err != nil {
		return err
	}
	defer l.close()
	if c.IssuerURL == "" && !l.sts.open() {
		c.IssuerURL = l.sts.url()
	}
	if c.TrustDomain == "" {
		c.TrustDomain = DefaultTrustDomain
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, err := openReplica(ctx, c, cancel)
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.fits(given); err != nil {
		return err
	}
	if err := r.openDoors(l); err != nil {
		return err
	}
	err = r.serve(ctx, l)
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// replica is what runs, put together.
type replica struct {
	Config
	store       *store.Store
	lost        <-chan struct{}
	release     func()
	registry    *prometheus.Registry
	loop        *loop
	fetcher     *bundle.Manager
	xds         *xds.Server
	sts         *sts.Server
	refusals    *accesslog.Server
	enrol       *enrolment.Server
	revocations *revocations
	api         *api.Server
	kek         *keyEncryption // nil until it is assembled
	doors       *doors
	// diagnosis knows of doors and listeners once there are.
	diagnosis *diagnosis
	refused   *audit.Refusals
	// stopping is when the end began.
	stopping atomic.Pointer[time.Time]
	overload *prometheus.CounterVec
}

// openReplica prepares the store and everything that is made from it.
func openReplica(ctx context.Context, c Config, fatal func(error)) (_ *replica, err error) {
	r := &replica{Config: c, registry: prometheus.NewRegistry(), release: func() {}}
	sc, err := c.store(fatal)
	if err != nil {
		return nil, err
	}
	if r.store, err = store.Open(ctx, sc); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	lost, release, err := r.store.Claim(ctx, self())
	if err != nil {
		return nil, err
	}
	r.lost, r.release = lost, release
	pepper, err := r.prepare(ctx)
	if err != nil {
		return nil, err
	}
	r.assemble(pepper)
	snap, err := r.store.Load(ctx)
	if err != nil {
		return nil, err
	}
	if err := r.loop.renewAuthority(snap); err != nil {
		return nil, err
	}
	r.loop.start(snap)
	return r, nil
}

// keepPlace takes the replica's place again when the lease was lost, such as
// by an outage of etcd, and ends the replica only if another has it: tokens are
// signed and data planes served all the while from what is in memory.
func (r *replica) keepPlace(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.lost:
		}
		r.Logger.Warn("the lease in etcd was lost (etcd not reachable, or this process stood still); taking it again")
		lost, release, err := r.store.Claim(ctx, self())
		switch {
		case errors.Is(err, store.ErrTaken):
			return fmt.Errorf("stopping: %w", err)
		case err == nil:
			r.lost, r.release = lost, release
			r.Logger.Info("the lease in etcd is ours again")
		case ctx.Err() == nil:
			r.Logger.Warn("the lease can't be taken yet", "error", err)
			sleep(ctx, time.Second)
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (r *replica) close() {
	if r.kek != nil {
		r.kek.close() // it writes
	}
	r.release()
	if err := r.store.Close(); err != nil {
		r.Logger.Warn("closing the store", "error", err)
	}
}
