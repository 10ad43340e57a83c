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
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/watchword-mesh/watchword/controlplane/accesslog"
	"github.com/watchword-mesh/watchword/controlplane/api"
	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/bundle"
	"github.com/watchword-mesh/watchword/controlplane/enrolment"
	"github.com/watchword-mesh/watchword/controlplane/ledger"
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
	r, err := openReplica(ctx, c, l.advertised(c), cancel)
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
	members     *membership
	cluster     *cluster
	records     *records // nil until it is assembled
	registry    *prometheus.Registry
	loop        *loop
	fetcher     *bundle.Manager
	xds         *xds.Server
	sts         *sts.Server
	refusals    *accesslog.Server
	enrol       *enrolment.Server
	revocations *revocations
	stepper     *stepper
	signingKeys *signingKeys
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

// openReplica joins the replicas, and prepares the store and everything that is made
// from it. What is served is read after the join, so that it is no older.
func openReplica(ctx context.Context, c Config, address string, fatal func(error)) (_ *replica, err error) {
	r := &replica{Config: c, registry: prometheus.NewRegistry()}
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
	r.members, r.cluster = newMembership(r.store, c, address), newCluster(c.Bounds, c.Logger.Named("replica"))
	if err := r.members.join(ctx); err != nil {
		return nil, err
	}
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
	r.members.applied = r.loop.applied
	r.members.tell()
	return r, nil
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
	r.leave()
	if err := r.store.Close(); err != nil {
		r.Logger.Warn("closing the store", "error", err)
	}
}

// leave ends the membership, if there is one.
func (r *replica) leave() {
	if r.members == nil {
		return
	}
	var last ledger.Record
	if r.records != nil && r.loop.current.Load() != nil {
		last, _ = r.records.record()
	}
	r.members.leave(last)
}
