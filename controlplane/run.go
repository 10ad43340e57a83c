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
	"net/http"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/accesslog"
	"github.com/watchword-mesh/watchword/controlplane/api"
	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/bundle"
	"github.com/watchword-mesh/watchword/controlplane/enrolment"
	"github.com/watchword-mesh/watchword/controlplane/kong"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/controlplane/transport"
	"github.com/watchword-mesh/watchword/controlplane/xds"
	"github.com/watchword-mesh/watchword/internal/failures"
	"github.com/watchword-mesh/watchword/issuer/ca"
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
	store    *store.Store
	lost     <-chan struct{}
	release  func()
	registry *prometheus.Registry
	loop     *loop
	fetcher  *bundle.Manager
	xds      *xds.Server
	sts      *sts.Server
	refusals *accesslog.Server
	enrol    *enrolment.Server
	api      *api.Server
	kek      *keyEncryption // nil until it is assembled
	doors    *doors
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

// prepare writes what the first start writes: the built-in issuer and its key.
func (r *replica) prepare(ctx context.Context) ([]byte, error) {
	initialized, err := r.store.Initialized(ctx)
	if err != nil {
		return nil, err
	}
	ring, err := r.openKeyring(ctx, !initialized)
	if err != nil {
		return nil, err
	}
	r.store.UseKeyring(ring)
	now := time.Now().UTC()
	if !initialized {
		if err := r.checkFirst(now); err != nil {
			return nil, &ConfigError{err}
		}
	}
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
	if err := r.firstCA(ctx, now); err != nil {
		return nil, err
	}
	return pepper, (&adminTokens{store: r.store, dir: r.DataDir, pepper: pepper}).first(ctx)
}

// checkFirst looks at what the first start fixes for ever, before it does.
func (r *replica) checkFirst(now time.Time) error {
	if r.IssuerURL == "" {
		return fmt.Errorf("--sts-listen %s is no address that callers can have: give theirs with --issuer-url, such as https://tokens.example:7402", r.STSListen)
	}
	if _, err := ca.First(r.TrustDomain, now); err != nil {
		return fmt.Errorf("--trust-domain %s: %w", r.TrustDomain, err)
	}
	issuer := builtinIssuer(r.IssuerURL, r.TrustDomain)
	for _, f := range policy.Check(policy.State{policy.KeyOf(issuer): issuer}) {
		return fmt.Errorf("--issuer-url %s, --trust-domain %s: %s: %s", r.IssuerURL, r.TrustDomain, f.Field, f.Message)
	}
	return nil
}

// openKeyring finds the key-encryption key.
func (r *replica) openKeyring(ctx context.Context, create bool) (store.Keyring, error) {
	if r.KEKExec == "" {
		return r.keyring(create)
	}
	return r.pluginKeyring(ctx, r.store)
}

// firstCA makes the CA of the mesh, in the trust domain that the first start has
// fixed.
func (r *replica) firstCA(ctx context.Context, now time.Time) error {
	snap, err := r.store.Load(ctx)
	if err != nil || len(snap.CAs) > 0 {
		return err
	}
	authority, err := ca.First(trustDomain(snap.Config), now)
	if err != nil {
		return fmt.Errorf("making the CA of the mesh: %w; an earlier version took this trust domain, so begin anew on empty data or another --etcd-prefix", err)
	}
	added, err := r.store.AddFirstCA(ctx, authority)
	if added {
		r.Logger.Info("CA of the mesh made; join tokens pin it", "id", authority.ID)
	}
	return err
}

func (r *replica) assemble(pepper []byte) {
	r.loop = newLoop(r.Logger.Named("loop"), newLoopMetrics(r.registry))
	who := identities{loop: r.loop}
	r.overload = newOverload(r.registry)
	r.refused = audit.NewRefusals(refusalsPerMinute, r.noteRefusal)
	r.xds = xds.New(xds.Config{Identify: who.ofStream, VersionKey: versionKey(pepper), Logger: r.Logger.Named("xds"), Registerer: r.registry})
	r.sts = sts.New(sts.Config{Logger: r.Logger.Named("sts"), Registerer: r.registry, Pepper: pepper, Instances: r.loop, Audit: r.auditTokens()})
	r.loop.xds, r.loop.sts, r.loop.departures.xds = r.xds, r.sts, r.xds
	r.fetcher = bundle.New(bundle.Config{Keeper: r.store, Logger: r.Logger.Named("bundle"), Registerer: r.registry})
	r.loop.fetcher = r.fetcher
	r.refusals = accesslog.New(accesslog.Config{
		Identify:   who.ofReport,
		Logger:     r.Logger.Named("accesslog"),
		Registerer: r.registry,
		Known:      r.loop.hasService,
		RouteName:  r.loop.routes.name,
		KeyUnknown: r.loop.keyUnknown,
	})
	r.loop.refusals = r.refusals
	r.enrol = enrolment.New(enrolment.Config{
		Records:    r.store,
		Mesh:       mesh{loop: r.loop},
		Assertions: r.sts,
		Pepper:     pepper,
		Identify:   who.ofCall,
		Refused:    r.refused.Note,
		Logger:     r.Logger.Named("enrolment"),
		Registerer: r.registry,

		CertificateLifetime: r.CertificateLifetime,
	})
	r.kek = newKeyEncryption(r.store, r.Config)
	r.diagnosis = &diagnosis{config: r.Config, store: r.store, loop: r.loop, now: time.Now}
	r.api = api.New(api.Config{
		Configuration: configuration{loop: r.loop, store: r.store},
		DataPlanes:    dataPlanes{xds: r.xds},
		Issuer:        &tokens{store: r.store, loop: r.loop, sts: r.sts, pepper: pepper},
		Identify:      (&admission{loop: r.loop, identities: who, pepper: pepper, log: r.Logger.Named("api"), now: time.Now, noise: failures.New()}).identify,
		Refused:       r.refused.Note,
		Enrolments:    &enrolments{store: r.store, loop: r.loop, xds: r.xds, pepper: pepper},
		Secrets:       &clientSecrets{store: r.store, loop: r.loop},
		AuditLog:      auditLog{store: r.store},
		KEK:           r.kek,
		AdminTokens:   &adminTokens{store: r.store, loop: r.loop, dir: r.DataDir, pepper: pepper},
		Diagnosis:     r.diagnosis,
		Preview:       preview{loop: r.loop},
		KeySets:       keySets{fetcher: r.fetcher},
		Refusals:      refusals{log: r.refusals},
		Explainer:     explainer{rulesets: &r.loop.published, dataPlanes: dataPlanes{xds: r.xds}, now: time.Now},
		NewUID:        uuid.NewString,
		NewSecret:     api.NewSecret,
		Logger:        r.Logger.Named("api"),
	})
	r.api.Mount("/kong/", kong.New(kong.Config{
		Resources:      consumers{configuration{loop: r.loop, store: r.store}, r.api},
		MayRead:        func(ctx context.Context) bool { return access.From(ctx).Meets(access.KongRead) == nil },
		MayReadSecrets: func(ctx context.Context) bool { return access.From(ctx).MayReadSecrets() },
		Refused:        r.api.NoteRefused,
		SecretIsBase64: r.KongSecretIsBase64,
		NewUID:         uuid.NewString,
		NewSecret:      api.NewSecret,
		Now:            time.Now,
		Logger:         r.Logger.Named("kong"),
	}))
}

// consumers implements kong.Resources.
type consumers struct {
	configuration
	*api.Server
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
	defer context.AfterFunc(ctx, r.kek.end)()
	limits := r.limits()
	gate := newGate(identities{loop: r.loop}, limits.xds, r.registry, r.full("ads_peer"))
	ads := grpc.NewServer(append(xds.ServerOptions(), grpc.Creds(gate.credentials(r.doors.dataPlanes())), grpc.StreamInterceptor(gate.stream), grpc.ConnectionTimeout(headerTimeout))...)
	r.xds.Register(transport.UnreadUnary(ads, gate.stream))
	r.refusals.Register(transport.UnreadUnary(ads, gate.stream))
	r.enrol.Register(transport.UnreadUnary(ads, gate.stream))
	g.Go(func() error { return r.loop.run(ctx) })
	g.Go(func() error { return r.store.Watch(ctx, r.loop.current.Load(), r.loop.mailbox.put) })
	g.Go(func() error { return r.fetcher.Run(ctx) })
	g.Go(func() error { return r.keepPlace(ctx) })
	g.Go(func() error { return r.sweep(ctx) })
	g.Go(func() error { r.refused.Run(ctx); return nil })
	context.AfterFunc(ctx, func() { now := time.Now(); r.stopping.Store(&now) })
	g.Go(func() error {
		if err := ads.Serve(transport.Limit(l.xds, limits.xds, r.full("ads"))); !errors.Is(err, grpc.ErrServerStopped) {
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
	serveHTTP(ctx, g, r.Logger.Named("http"), admin, 0, l.admin.guarded(limits.admin, r.doors.admin(), r.full("admin")), transport.Limit(l.socket, limits.socket, r.full("admin_socket")))
	serveHTTP(ctx, g, r.Logger.Named("http"), r.sts.Handler(), answerTimeout, l.sts.guarded(limits.sts, r.doors.public(), r.full("sts")))
	serveHTTP(ctx, g, r.Logger.Named("http"), r.opsHandler(), answerTimeout, l.ops.guarded(limits.ops, r.doors.public(), r.full("ops")))
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
	if r.kek != nil {
		r.kek.close() // it writes
	}
	r.release()
	if err := r.store.Close(); err != nil {
		r.Logger.Warn("closing the store", "error", err)
	}
}
