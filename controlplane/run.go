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
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/watchword-mesh/watchword/controlplane/accesslog"
	"github.com/watchword-mesh/watchword/controlplane/api"
	"github.com/watchword-mesh/watchword/controlplane/bundle"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/controlplane/xds"
	"github.com/watchword-mesh/watchword/issuer/keyset"
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
	if c.IssuerURL == "" {
		c.IssuerURL = "http://" + l.sts.Addr().String()
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
	err = r.serve(ctx, l)
	if cause := context.Cause(ctx); err == nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// replica is what runs, put together.
type replica struct {
	Config
	store    *store.Store
	lost     <-chan struct{}
	release  func()
	registry *prometheus.Registry
	loop     *loop
	fetcher  *bundle.Manager
	xds      *xds.Server
	sts      *sts.Server
	refusals *accesslog.Server
	api      *api.Server
}

// openReplica prepares the store and everything that is made from it.
func openReplica(ctx context.Context, c Config, fatal func(error)) (_ *replica, err error) {
	r := &replica{Config: c, registry: prometheus.NewRegistry(), release: func() {}}
	token, err := adminToken(c.DataDir)
	if err != nil {
		return nil, err
	}
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
	r.assemble(token, pepper)
	snap, err := r.store.Load(ctx)
	if err != nil {
		return nil, err
	}
	r.loop.start(snap)
	return r, nil
}

// prepare writes what the first start writes: the built-in issuer and its key.
func (r *replica) prepare(ctx context.Context) ([]byte, error) {
	initialized, err := r.store.Initialized(ctx)
	if err != nil {
		return nil, err
	}
	ring, err := r.keyring(!initialized)
	if err != nil {
		return nil, err
	}
	r.store.UseKeyring(ring)
	now := time.Now().UTC()
	pepper, first, err := r.store.Init(ctx, store.Setup{Issuer: builtinIssuer(r.IssuerURL, r.TrustDomain), Created: now})
	if err != nil {
		return nil, err
	}
	key, err := keyset.First("ES256", now)
	if err != nil {
		return nil, err
	}
	added, err := r.store.AddFirstKey(ctx, key)
	if err != nil {
		return nil, err
	}
	if first {
		r.Logger.Info("first start", "issuer", r.IssuerURL, "trust_domain", r.TrustDomain, "admin_token", filepath.Join(r.DataDir, adminTokenFile))
	}
	if added {
		r.Logger.Info("signing key made", "kid", key.KeyID, "alg", key.Algorithm)
	}
	return pepper, nil
}

func (r *replica) assemble(token string, pepper []byte) {
	r.xds = xds.New(xds.Config{Logger: r.Logger.Named("xds"), Registerer: r.registry, VersionKey: versionKey(pepper)})
	r.sts = sts.New(sts.Config{Logger: r.Logger.Named("sts"), Registerer: r.registry, Pepper: pepper, Audit: r.auditTokens()})
	r.loop = newLoop(r.Logger.Named("loop"), r.xds, r.sts, newLoopMetrics(r.registry))
	r.fetcher = bundle.New(bundle.Config{Keeper: r.store, Logger: r.Logger.Named("bundle"), Registerer: r.registry})
	r.loop.fetcher = r.fetcher
	r.refusals = accesslog.New(accesslog.Config{
		Logger:     r.Logger.Named("accesslog"),
		Registerer: r.registry,
		Known:      r.loop.hasService,
		RouteName:  r.loop.routes.name,
		KeyUnknown: r.loop.keyUnknown,
	})
	r.loop.refusals = r.refusals
	r.api = api.New(api.Config{
		Configuration: configuration{loop: r.loop, store: r.store},
		DataPlanes:    dataPlanes{xds: r.xds},
		Issuer:        &credentials{store: r.store, loop: r.loop, sts: r.sts, pepper: pepper},
		Identify:      identify(token, r.loop),
		Preview:       preview{loop: r.loop},
		KeySets:       keySets{fetcher: r.fetcher},
		Refusals:      refusals{log: r.refusals},
		Explainer:     explainer{rulesets: &r.loop.published, dataPlanes: dataPlanes{xds: r.xds}, now: time.Now},
		NewUID:        uuid.NewString,
		NewSecret:     api.NewSecret,
		Logger:        r.Logger.Named("api"),
	})
}

// serve runs everything until the first fault or the end of ctx.
func (r *replica) serve(ctx context.Context, l *listeners) error {
	if err := l.openAdminSocket(r.Config); err != nil {
		return err
	}
	admin, stopAdmin, err := r.api.Handler()
	if err != nil {
		return err
	}
	defer stopAdmin()
	g, ctx := errgroup.WithContext(ctx)
	ads := grpc.NewServer(xds.ServerOptions()...)
	r.xds.Register(ads)
	r.refusals.Register(ads)
	g.Go(func() error { return r.loop.run(ctx) })
	g.Go(func() error { return r.store.Watch(ctx, r.loop.current.Load(), r.loop.mailbox.put) })
	g.Go(func() error { return r.fetcher.Run(ctx) })
	g.Go(func() error { return r.keepPlace(ctx) })
	g.Go(func() error {
		if err := ads.Serve(l.xds); !errors.Is(err, grpc.ErrServerStopped) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-ctx.Done()
		r.xds.Close()
		ads.Stop()
		r.refusals.Wait()
		return nil
	})
	serveHTTP(ctx, g, admin, l.admin, l.socket)
	serveHTTP(ctx, g, r.sts.Handler(), l.sts)
	serveHTTP(ctx, g, r.opsHandler(), l.ops)
	r.announce(l)
	err = g.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
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
	r.release()
	if err := r.store.Close(); err != nil {
		r.Logger.Warn("closing the store", "error", err)
	}
}

// adminToken reads the admin credential; the first start makes it.
func adminToken(dir string) (string, error) {
	path := filepath.Join(dir, adminTokenFile)
	text, err := store.ReadSecret(path)
	if errors.Is(err, os.ErrNotExist) {
		text = []byte("wwat_" + rand.Text() + rand.Text())
		err = store.WriteSecret(path, string(text)+"\n")
	}
	if err != nil {
		return "", fmt.Errorf("the admin token: %w", err)
	}
	if token := strings.TrimSpace(string(text)); len(token) >= 32 {
		return token, nil
	}
	return "", fmt.Errorf("the admin token in %s is empty or too short: delete the file, the next start makes a new one", path)
}
