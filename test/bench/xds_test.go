package bench

import (
	"fmt"

	"google.golang.org/grpc"

	"github.com/watchword-mesh/watchword/controlplane/xds"
)

const ecdsType = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"

// ours is controlplane/xds alone: a change is one call of Publish. All services
// accept tokens of one issuer, so one changed key changes each of them.
type ours struct {
	xds      *xds.Server
	services int
	revision int64
}

func newXDS() (server, []grpc.ServerOption) {
	return &ours{xds: xds.New(xds.Config{})}, xds.ServerOptions()
}

func (o *ours) Start(g *grpc.Server, services int) error {
	o.services = services
	o.xds.Register(g)
	o.publish()
	return nil
}

func (o *ours) publish() {
	o.revision++
	u := xds.Update{Revision: o.revision, Services: make(map[string][]xds.Resource, o.services)}
	for i := range o.services {
		u.Services[serviceName(i)] = []xds.Resource{{TypeURL: ecdsType, Name: resourceName(i), Body: body(i, int(o.revision))}}
	}
	o.xds.Publish(u)
}

func (o *ours) Served(n int) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		o.wait(n)
	}()
	return done
}

// wait as "apply --wait" does.
func (o *ours) wait(n int) {
	for {
		p, change := o.xds.Progress(o.revision)
		if p.InSync == n && p.Total == n {
			return
		}
		<-change
	}
}

func (o *ours) Change(n int) error {
	o.publish()
	o.wait(n)
	return nil
}

func serviceName(i int) string  { return fmt.Sprintf("service-%d", i) }
func resourceName(i int) string { return "mesh.inbound/" + serviceName(i) }
