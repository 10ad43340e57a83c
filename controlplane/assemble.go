package controlplane

import (
	"context"
	"time"

	"github.com/google/uuid"

	"github.com/watchword-mesh/watchword/controlplane/access"
	"github.com/watchword-mesh/watchword/controlplane/accesslog"
	"github.com/watchword-mesh/watchword/controlplane/api"
	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/bundle"
	"github.com/watchword-mesh/watchword/controlplane/enrolment"
	"github.com/watchword-mesh/watchword/controlplane/kong"
	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/controlplane/xds"
	"github.com/watchword-mesh/watchword/internal/failures"
	"github.com/watchword-mesh/watchword/issuer/sts"
)

// assemble makes the parts from each other. Nothing runs yet.
func (r *replica) assemble(pepper []byte) {
	r.loop = newLoop(r.Logger.Named("loop"), newLoopMetrics(r.registry))
	who := identities{loop: r.loop}
	r.members.register(r.registry)
	r.records = &records{loop: r.loop, members: r.members, keks: func() []string { return r.store.Keyring().IDs() }, log: r.Logger.Named("replica"), now: time.Now}
	at := moments{loop: r.loop, cluster: r.cluster, now: time.Now}
	r.loop.bounds, r.loop.rebound = r.Bounds, r.rebound
	r.stepper = &stepper{moments: at, store: r.store, log: r.Logger.Named("keys")}
	r.signingKeys = &signingKeys{moments: at, store: r.store}
	r.overload = newOverload(r.registry)
	r.refused = audit.NewRefusals(refusalsPerMinute, r.noteRefusal)
	minter := &outboundTokens{now: time.Now}
	r.xds = xds.New(xds.Config{Bounds: r.Bounds, Identify: who.ofStream, VersionKey: versionKey(pepper), Tokens: minter, Lease: encodeLease, Authority: r.members.mayPromise, Logger: r.Logger.Named("xds"), Registerer: r.registry})
	r.records.claims, r.records.claimed, r.records.leases = r.xds.Claims, r.xds.ClaimsChanged(), r.xds
	r.revocations = &revocations{store: r.store, loop: r.loop, now: time.Now}
	r.sts = sts.New(sts.Config{Revoker: r.revocations, Logger: r.Logger.Named("sts"), Registerer: r.registry, Pepper: pepper, Instances: r.loop, MaySign: r.members.maySign, Audit: r.auditTokens()})
	minter.sts = r.sts
	r.loop.translator.lease = r.LeaseForTests
	r.loop.xds, r.loop.sts, r.loop.departures.xds = r.xds, r.sts, r.xds
	r.assembleDataPlanes(who, pepper)
	r.kek = newKeyEncryption(r.store, r.Config)
	r.diagnosis = &diagnosis{config: r.Config, store: r.store, loop: r.loop, members: r.members, cluster: r.cluster, now: time.Now}
	r.assembleAPI(who, pepper)
	r.mountKong()
}

func (r *replica) dataPlanes() dataPlanes {
	return dataPlanes{xds: r.xds, cluster: r.cluster, self: func() string { return r.members.current().ID }, now: time.Now}
}

// rebound takes over what the built-in issuer says of the times that replicas count on.
func (r *replica) rebound(b ledger.Bounds) {
	r.cluster.observe(func(o *ledger.Observer) { o.SetBounds(b) })
	r.xds.SetBounds(b)
	r.members.setSigning(b.Signing)
}

// assembleDataPlanes makes what data planes are served by, besides ADS.
func (r *replica) assembleDataPlanes(who identities, pepper []byte) {
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
}

func (r *replica) assembleAPI(who identities, pepper []byte) {
	r.api = api.New(api.Config{
		Configuration: configuration{loop: r.loop, store: r.store},
		DataPlanes:    r.dataPlanes(),
		Issuer:        &tokens{store: r.store, loop: r.loop, sts: r.sts, pepper: pepper},
		Identify:      (&admission{loop: r.loop, identities: who, pepper: pepper, log: r.Logger.Named("api"), now: time.Now, noise: failures.New()}).identify,
		Refused:       r.refused.Note,
		Enrolments:    &enrolments{store: r.store, loop: r.loop, xds: r.xds, pepper: pepper},
		Revocations:   r.revocations,
		Secrets:       &clientSecrets{store: r.store, loop: r.loop},
		AuditLog:      auditLog{store: r.store},
		KEK:           r.kek,
		SigningKeys:   r.signingKeys,
		AdminTokens:   &adminTokens{store: r.store, loop: r.loop, dir: r.DataDir, pepper: pepper},
		Diagnosis:     r.diagnosis,
		Preview:       preview{loop: r.loop},
		KeySets:       keySets{fetcher: r.fetcher},
		Refusals:      refusals{log: r.refusals},
		Explainer:     explainer{rulesets: &r.loop.published, dataPlanes: r.dataPlanes(), now: time.Now},
		NewUID:        uuid.NewString,
		NewSecret:     api.NewSecret,
		Logger:        r.Logger.Named("api"),
	})
}

func (r *replica) mountKong() {
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
