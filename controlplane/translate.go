package controlplane

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/compile"
	"github.com/watchword-mesh/watchword/controlplane/envoy"
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
	err                   error
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
func (t *translator) each(in compile.Input, services []string, last map[string]translation) []translation {
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
		if now.forEnvoy, now.err = forEnvoy(envoy.Resources(now.ruleset)); now.err != nil {
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
	now.resources, now.err = now.published()
	return now
}

func forEnvoy(list []envoy.Resource, err error) ([]xds.Resource, error) {
	var out []xds.Resource
	for _, r := range list {
		out = append(out, xds.Resource(r))
	}
	return out, err
}

// published adds the messages that Go data planes ask for, as they are. Equal ones
// have equal bytes.
func (t translation) published() ([]xds.Resource, error) {
	out := slices.Concat(t.forEnvoy, t.outForEnvoy)
	for _, r := range []struct {
		typeURL string
		message proto.Message
	}{{xds.RulesetType, t.ruleset}, {xds.OutboundType, t.outbound}} {
		body, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.message)
		if err != nil {
			return nil, fmt.Errorf("service %q: encoding a %s: %w", t.service, r.message.ProtoReflect().Descriptor().Name(), err)
		}
		out = append(out, xds.Resource{TypeURL: r.typeURL, Name: t.service, Body: body})
	}
	return out, nil
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
