package controlplane

import (
	"cmp"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/compile"
	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/controlplane/revocation"
	"github.com/watchword-mesh/watchword/controlplane/xds"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// translation is one service, compiled and translated. Without a ruleset the
// service is not there. It doesn't change.
type translation struct {
	service  string
	ruleset  *dataplanev1.Ruleset
	outbound *dataplanev1.Outbound
	// lease is how long its data planes go on without us; 0: as long as it takes.
	lease time.Duration
	// resources are all that data planes of the service can ask for; nil if nothing
	// differs from the last translation, or err says why there are none.
	resources []xds.Resource
	// forEnvoy are those that the ruleset alone is translated to, and outForEnvoy those
	// of the outbound side.
	forEnvoy, outForEnvoy []xds.Resource
	// forGo are the ruleset and the outbound side as they are.
	forGo []xds.Resource
	err   error

	// accepted is whose tokens the ruleset accepts, and revoked what of those is refused,
	// for Envoy and as it is: a revocation makes only these anew.
	accepted    revocation.Accepted
	revocations *dataplanev1.Revocations
	revoked     []xds.Resource
}

// translator compiles and translates services, on all cores: it is the one
// part of a change that costs what the policies cost. It remembers what a
// preview has translated, since the same comes again when that was written.
type translator struct {
	// lease replaces the length of every lease, if it is not 0.
	lease time.Duration

	mu         sync.Mutex
	candidates map[string]translation
}

// each compiles the services in order, and translates those whose rulesets or
// outbound sides differ from the last ones.
func (t *translator) each(in compile.Input, revoked map[string]revocation.Entry, services []string, last map[string]translation) []translation {
	out := make([]translation, len(services))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, name := range services {
		g.Go(func() error {
			now := translation{service: name, ruleset: compile.Ruleset(in, name), outbound: compile.Outbound(in, name)}
			if spec := in.State.Service(name); spec.GetLease() != nil {
				now.lease = cmp.Or(t.lease, spec.GetLease().AsDuration())
			}
			if now.ruleset != nil && !now.equal(last[name]) {
				now = t.translate(now, last[name])
			}
			if now.resources != nil {
				now = now.revoking(revoked)
			}
			out[i] = now
			return nil
		})
	}
	_ = g.Wait() // no function above fails
	return out
}

// equal says whether both are translated to the same.
func (t translation) equal(o translation) bool {
	return t.lease == o.lease && proto.Equal(t.ruleset, o.ruleset) && proto.Equal(t.outbound, o.outbound)
}

// translate takes what a preview has left, if that is of an equal service, and as
// much of the last translation as it can.
func (t *translator) translate(now, last translation) translation {
	t.mu.Lock()
	candidate, ok := t.candidates[now.service]
	t.mu.Unlock()
	if ok && now.equal(candidate) {
		return candidate
	}
	switch {
	case last.resources != nil && proto.Equal(now.ruleset, last.ruleset):
		now.forEnvoy = last.forEnvoy
	case !now.ruleset.GetWithoutEnvoy():
		if now.forEnvoy, now.err = withoutRevoked(resourcesOf(now.ruleset)); now.err != nil {
			return now
		}
	}
	switch {
	case last.resources != nil && proto.Equal(now.outbound, last.outbound) && now.ruleset.GetWithoutEnvoy() == last.ruleset.GetWithoutEnvoy():
		now.outForEnvoy = last.outForEnvoy
	case !now.ruleset.GetWithoutEnvoy():
		if now.outForEnvoy, now.err = forEnvoy(envoy.OutboundResources(now.outbound)); now.err != nil {
			return now
		}
	}
	now.accepted = revocation.AcceptedBy(now.ruleset)
	now.forGo, now.err = now.published()
	now.resources = now.forGo // revoking adds the rest
	return now
}

func resourcesOf(rs *dataplanev1.Ruleset) (service string, list []xds.Resource, err error) {
	list, err = forEnvoy(envoy.Resources(rs))
	return rs.GetService(), list, err
}

func forEnvoy(list []envoy.Resource, err error) ([]xds.Resource, error) {
	var out []xds.Resource
	for _, r := range list {
		out = append(out, xds.Resource(r))
	}
	return out, err
}

// withoutRevoked leaves mesh.revoked to revoking.
func withoutRevoked(service string, list []xds.Resource, err error) ([]xds.Resource, error) {
	return slices.DeleteFunc(list, func(r xds.Resource) bool {
		return r.TypeURL == envoy.ExtensionConfigType && r.Name == envoy.RevokedName(service)
	}), err
}

// published adds the messages that Go data planes ask for, as they are. Equal ones
// have equal bytes.
func (t translation) published() ([]xds.Resource, error) {
	for _, r := range []struct {
		typeURL string
		message proto.Message
	}{{xds.RulesetType, t.ruleset}, {xds.OutboundType, t.outbound}} {
		message, err := asItIs(r.typeURL, t.service, r.message)
		if err != nil {
			return nil, err
		}
		t.forGo = append(t.forGo, message)
	}
	return t.forGo, nil
}

func asItIs(typeURL, service string, m proto.Message) (xds.Resource, error) {
	body, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return xds.Resource{}, fmt.Errorf("service %q: encoding a %s: %w", service, m.ProtoReflect().Descriptor().Name(), err)
	}
	return xds.Resource{TypeURL: typeURL, Name: service, Body: body}, nil
}

// revoking takes over what is revoked; all else stays as it is. The error is of a list
// that can't be sent, with which the service keeps what it has.
func (t translation) revoking(entries map[string]revocation.Entry) translation {
	now := revocation.Compile(t.accepted, maps.Values(entries))
	if t.revocations != nil && proto.Equal(now, t.revocations) {
		return t
	}
	var revoked []xds.Resource
	if !t.ruleset.GetWithoutEnvoy() {
		filter, err := envoy.Revoked(t.service, now)
		if err != nil {
			t.resources, t.err = nil, err
			return t
		}
		revoked = append(revoked, xds.Resource(filter))
	}
	message, err := asItIs(xds.RevocationsType, t.service, now)
	if err != nil {
		t.resources, t.err = nil, err
		return t
	}
	t.revocations, t.revoked = now, append(revoked, message)
	t.resources = slices.Concat(t.forEnvoy, t.outForEnvoy, t.forGo, t.revoked)
	return t
}

// leases are those of the services that get something.
func (l *loop) leases(resources map[string][]xds.Resource) map[string]time.Duration {
	out := map[string]time.Duration{}
	for name := range resources {
		if lease := l.last[name].lease; lease > 0 {
			out[name] = lease
		}
	}
	return out
}

// remember keeps the translations of a preview, in place of those of the last.
func (t *translator) remember(list []translation) {
	candidates := make(map[string]translation, len(list))
	for _, c := range list {
		if c.resources != nil {
			candidates[c.service] = c
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.candidates = candidates
}
