package controlplane

import (
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/controlplane/compile"
	"github.com/watchword-mesh/watchword/controlplane/envoy"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// translation is one service, compiled and translated. Without a ruleset the
// service is not there.
type translation struct {
	service   string
	ruleset   *dataplanev1.Ruleset
	resources []envoy.Resource
	err       error
}

// translator compiles and translates services, on all cores: it is the one
// part of a change that costs what the policies cost. It remembers what a
// preview has translated, since the same comes again when that was written.
type translator struct {
	mu         sync.Mutex
	candidates map[string]translation
}

// each compiles the services in order, and translates those whose rulesets
// differ from the last one.
func (t *translator) each(in compile.Input, services []string, last map[string]*dataplanev1.Ruleset) []translation {
	out := make([]translation, len(services))
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for i, name := range services {
		g.Go(func() error {
			rs := compile.Ruleset(in, name)
			out[i] = translation{service: name, ruleset: rs}
			if rs != nil && !proto.Equal(rs, last[name]) {
				out[i] = t.translate(rs)
			}
			return nil
		})
	}
	_ = g.Wait() // no function above fails
	return out
}

// translate takes what a preview has left, if that is of an equal ruleset.
func (t *translator) translate(rs *dataplanev1.Ruleset) translation {
	t.mu.Lock()
	c, ok := t.candidates[rs.GetService()]
	t.mu.Unlock()
	if ok && proto.Equal(c.ruleset, rs) {
		return c
	}
	c = translation{service: rs.GetService(), ruleset: rs, resources: []envoy.Resource{}}
	if !rs.GetWithoutEnvoy() {
		c.resources, c.err = envoy.Resources(rs)
	}
	return c
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
