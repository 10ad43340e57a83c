package controlplane

import (
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/watchword-mesh/watchword/controlplane/accesslog"
	"github.com/watchword-mesh/watchword/controlplane/bundle"
	"github.com/watchword-mesh/watchword/controlplane/compile"
	"github.com/watchword-mesh/watchword/controlplane/ledger"
	"github.com/watchword-mesh/watchword/controlplane/policy"
	"github.com/watchword-mesh/watchword/controlplane/revocation"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/controlplane/xds"
	"github.com/watchword-mesh/watchword/internal/jose"
	"github.com/watchword-mesh/watchword/issuer/ca"
	"github.com/watchword-mesh/watchword/issuer/keyset"
	"github.com/watchword-mesh/watchword/issuer/sts"
	"github.com/watchword-mesh/watchword/issuer/token"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// loop is the one writer of everything that is derived from the store. What
// can happen to it is one thing: a new state of the store. It then finds the
// services that the change touches, compiles and translates those, publishes
// them to the data planes, and hands the issuer what it needs.
//
// The first change goes out at once; what arrives while it is being published
// is gathered and goes out together.
type loop struct {
	log     hclog.Logger
	xds     *xds.Server
	sts     *sts.Server
	metrics *loopMetrics
	mailbox *mailbox
	// translator is shared with preview.
	translator translator
	// fetcher is told of key sets at URIs; nil in tests without any.
	fetcher *bundle.Manager
	// refusals is told of services that are gone; nil in tests without any.
	refusals *accesslog.Server
	// verifiedBy has the names of the issuers that data planes of a service
	// have keys of ([]string), for keyUnknown.
	verifiedBy sync.Map
	routes     routeNames
	// bounds are those that no resource says.
	bounds ledger.Bounds
	// rebound is told of those that hold when they change; nil in tests without replicas.
	rebound func(ledger.Bounds)
	// keyState is what the signing keys are stepped by.
	keyState atomic.Pointer[keyState]
	// published is for Explain.
	published publishedRulesets
	enforced  enforcedServices

	// Only the loop's goroutine touches these.
	keys verificationKeys // replaced, never changed
	// last has what was published of each service.
	last      map[string]translation
	signing   *keyset.Set
	verifiers *verifiers
	// departures knows who is about to be cut off.
	departures departures

	// instanceKeys has the parsed keys of instances (jose.Key), by SERVICE/ID.
	instanceKeys sync.Map

	ca        atomic.Pointer[ca.Authority]
	current   atomic.Pointer[store.Snapshot]
	verifying atomic.Pointer[verificationKeys] // keys, for preview
	mu        sync.Mutex
	moved     chan struct{} // closed when current has moved on
	// patience is how long a call waits for what it wrote to be in force.
	patience time.Duration
}

// verificationKeys are the keys of Issuers, and those of the credentials of
// Consumers, each by name: parsed once.
type verificationKeys struct {
	issuers   map[string][]jose.Key
	consumers map[string][][]jose.Key
}

func (k verificationKeys) clone() verificationKeys {
	return verificationKeys{issuers: maps.Clone(k.issuers), consumers: maps.Clone(k.consumers)}
}

// input is what rulesets of a state are compiled from with the keys.
func (k verificationKeys) input(state policy.State) compile.Input {
	return compile.Input{State: state, Policies: state.Policies(), Keys: k.issuers, ConsumerKeys: k.consumers, Subject: subjects(state)}
}

// newLoop makes a loop that still needs its servers, which ask it in turn.
func newLoop(log hclog.Logger, m *loopMetrics) *loop {
	l := &loop{
		log: log, metrics: m,
		mailbox:   newMailbox(),
		keys:      verificationKeys{issuers: map[string][]jose.Key{}, consumers: map[string][][]jose.Key{}},
		last:      map[string]translation{},
		verifiers: newVerifiers(),
		moved:     make(chan struct{}),
		patience:  30 * time.Second,
	}
	none := l.keys
	l.verifying.Store(&none)
	return l
}

// run takes events from the mailbox until ctx ends.
func (l *loop) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.mailbox.full:
			if e := l.mailbox.take(); e != nil {
				l.apply(*e)
			}
		}
	}
}

// start applies the first snapshot as a change of everything.
func (l *loop) start(snap *store.Snapshot) {
	l.apply(store.Event{Snapshot: snap, Changed: snap.Config.Keys(), SigningKeys: true, ClientSecrets: true, Instances: snap.Instances.Names()})
}

// renewAuthority takes over the CAs of a snapshot.
func (l *loop) renewAuthority(snap *store.Snapshot) error {
	authority, err := ca.NewAuthority(slices.Collect(maps.Values(snap.CAs)))
	if err != nil {
		return err
	}
	l.ca.Store(authority)
	return nil
}

// apply makes the event's snapshot the current one, after the data planes and
// the issuer were given what follows from it.
func (l *loop) apply(e store.Event) {
	began := time.Now()
	before, revoked := policy.State{}, map[string]revocation.Entry(nil)
	if s := l.current.Load(); s != nil {
		before, revoked = s.Config, s.Revocations
	}
	if e.CAs {
		if err := l.renewAuthority(e.Snapshot); err != nil {
			l.log.Error("the CAs can't be used; going on with the last ones", "revision", e.Snapshot.Revision, "error", err)
		}
	}
	signing := l.signingKeys(e)
	rekeyed, all := l.refreshKeys(e, signing)
	changed := append(l.changed(e), rekeyed...)
	services := compile.Affected(before, e.Snapshot.Config, changed, l.uses(e.Snapshot.Config, all))
	l.departures.cut(e)
	for _, key := range e.Instances {
		l.instanceKeys.Delete(key)
	}
	resources := l.translate(e.Snapshot, services)
	l.revoke(e, revoked, resources)
	if len(resources) > 0 {
		_, most := l.enforced.largest()
		l.metrics.revocations.Set(float64(most))
	}
	l.xds.SetFloor(e.Snapshot.Floor)
	l.xds.Publish(xds.Update{Revision: e.Snapshot.Revision, Services: resources, Leases: l.leases(resources)})
	l.tellIssuer(e, signing)
	l.renewTokens(services)
	l.tellFetcher(e)
	l.noteKeys(e, services)
	l.current.Store(e.Snapshot)
	l.departures.settled()
	l.forgetRefusals(e.Snapshot.Config, services)
	l.mu.Lock()
	close(l.moved)
	l.moved = make(chan struct{})
	l.mu.Unlock()
	l.metrics.applied(e.Snapshot.Revision, time.Since(began), len(services))
	l.log.Debug("published", "revision", e.Snapshot.Revision, "services", len(services), "took", time.Since(began))
}

// changed adds the built-in issuer when its keys have changed.
func (l *loop) changed(e store.Event) []policy.Key {
	builtin := policy.Key{Kind: policy.KindIssuer, Name: policy.BuiltinIssuer}
	if !e.SigningKeys || slices.Contains(e.Changed, builtin) {
		return slices.Clip(e.Changed) // the rest is the sender's
	}
	return append(slices.Clone(e.Changed), builtin)
}

// signingKeys parses the keys of the built-in issuer when they have changed; a
// set that can't be used leaves the last one in force.
func (l *loop) signingKeys(e store.Event) *keyset.Set {
	if !e.SigningKeys {
		return nil
	}
	set, err := keyset.NewSet(keyset.Keys{Records: e.Snapshot.Keys, Open: e.Snapshot.Open})
	if err != nil {
		l.log.Error("the signing keys can't be used; going on with the last ones", "revision", e.Snapshot.Revision, "error", err)
		return nil
	}
	return set
}

// refreshKeys parses the keys of the issuers and consumers that changed, and returns the
// issuers whose fetched sets gave other keys: a set that is equal is no change. An
// issuer that gets its first usable key, or loses its last, changes which rules
// of others can match; it then asks for everything to be compiled again.
func (l *loop) refreshKeys(e store.Event, signing *keyset.Set) (rekeyed []policy.Key, all bool) {
	if signing == nil && len(e.Changed) == 0 && len(e.Bundles) == 0 {
		return nil, false
	}
	l.keys = l.keys.clone()
	set := func(name string, keys []jose.Key) (differs bool) {
		differs = !slices.EqualFunc(keys, l.keys.issuers[name], jose.Key.Equal)
		all = all || (len(keys) == 0) != (len(l.keys.issuers[name]) == 0)
		if l.keys.issuers[name] = keys; len(keys) == 0 {
			delete(l.keys.issuers, name)
		}
		return differs
	}
	defer func() { keys := l.keys; l.verifying.Store(&keys) }()
	if signing != nil {
		set(policy.BuiltinIssuer, signing.Keys())
	}
	for _, k := range e.Changed {
		switch k.Kind {
		case policy.KindConsumer:
			l.refreshConsumer(k, e.Snapshot.Config.Consumer(k.Name))
		case policy.KindIssuer:
			l.refreshIssuer(e.Snapshot, k, set)
		}
	}
	for _, name := range e.Bundles {
		if k := (policy.Key{Kind: policy.KindIssuer, Name: name}); l.refreshIssuer(e.Snapshot, k, set) {
			rekeyed = append(rekeyed, k)
		}
	}
	return rekeyed, all
}

func (l *loop) refreshIssuer(snap *store.Snapshot, k policy.Key, set func(string, []jose.Key) bool) (differs bool) {
	if k.Name == policy.BuiltinIssuer {
		return false
	}
	keys, faults := issuerKeys(k.Name, snap.Config.Issuer(k.Name), snap.Bundles)
	l.leftOut(k, faults)
	return set(k.Name, keys)
}

func (l *loop) refreshConsumer(k policy.Key, spec *policyv1.ConsumerSpec) {
	if spec == nil {
		delete(l.keys.consumers, k.Name)
		return
	}
	keys, faults := policy.ConsumerKeys(spec)
	l.leftOut(k, faults)
	l.keys.consumers[k.Name] = keys
}

// leftOut tells of keys that can't be used, which is only possible if an older
// version, or other options, accepted them.
func (l *loop) leftOut(k policy.Key, faults []policy.Fault) {
	for _, f := range faults {
		l.log.Error("a key is left out", "resource", k.String(), "field", f.Field, "fault", f.Message)
	}
}

// uses tells compile.Affected what the last rulesets depend on; all counts
// every service as depending on each issuer that changed.
func (l *loop) uses(after policy.State, all bool) func(service, issuer string) bool {
	return func(service, issuer string) bool {
		last, known := l.last[service]
		iss := after.Issuer(issuer).GetIssuer()
		if s := l.current.Load(); s != nil {
			iss = s.Config.Issuer(issuer).GetIssuer()
		}
		return all || !known || compile.Uses(last.ruleset, issuer, iss)
	}
}

// translate compiles services to what their data planes get. A service that
// can't be translated keeps what it has.
func (l *loop) translate(snap *store.Snapshot, services []string) map[string][]xds.Resource {
	out := map[string][]xds.Resource{}
	if len(services) == 0 {
		return out // not even the policies are looked through: instances enrol by the thousand
	}
	in := l.keys.input(snap.Config)
	for _, t := range l.translator.each(in, snap.Revocations, services, l.last) {
		switch {
		case t.err != nil:
			l.metrics.failures.Inc()
			delete(l.last, t.service) // try again when an issuer changes, and when it is affected
			l.log.Error("a service can't be translated for its data planes; they keep what they have", "service", t.service, "error", t.err)
		case t.ruleset == nil:
			delete(l.last, t.service)
			l.verifiedBy.Delete(t.service)
			l.routes.set(t.service, nil)
			l.published.set(t.service, nil, nil)
			l.enforced.forget(t.service)
			out[t.service] = nil
		case t.resources != nil:
			l.last[t.service] = t
			l.verifiedBy.Store(t.service, issuerNames(t.ruleset))
			l.routes.set(t.service, t.ruleset.GetRoutes())
			l.enforce(t)
			out[t.service] = t.resources
		}
	}
	l.translator.remember(nil)
	return out
}

func subjects(state policy.State) func(string) string {
	domain := trustDomain(state)
	return func(service string) string { return token.SubjectOf(domain, service) }
}
