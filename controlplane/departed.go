package controlplane

import (
	"sync"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/controlplane/xds"
)

// farewell is how long data planes of a service that was deleted keep their
// streams, to be told that there is nothing for them any more: an Envoy that is cut
// off goes on with what it has.
const farewell = 5 * time.Second

// farewells is when the streams of an instance end.
type farewells struct {
	timer *time.Timer
	until time.Time
}

// departures ends the streams of instances that are not enrolled any more. Only
// the loop's goroutine calls it; whoever asks for an instance reads left.
type departures struct {
	xds *xds.Server
	// ending are those of deleted services, by SERVICE/ID.
	ending map[string]farewells
	// left are those that the current snapshot may still have, by SERVICE/ID.
	left sync.Map
}

// settled is when the current snapshot has none of those that left.
func (d *departures) settled() { d.left.Clear() }

// cut ends the streams of those that left by an event, and of those that were
// leaving a service that is there again: what it gets now is none of theirs. It comes
// before the event is published, so that nothing of that is sent to them; until the
// event's snapshot is the current one, left keeps them from coming back.
func (d *departures) cut(e store.Event) {
	for key, last := range d.ending {
		service, instance := instanceName(key)
		switch {
		case e.Snapshot.Config.Service(service) != nil:
			last.timer.Stop()
			d.xds.Disconnect(service, instance)
		case time.Now().Before(last.until):
			continue
		}
		delete(d.ending, key)
	}
	for _, key := range e.Instances {
		if _, enrolled := e.Snapshot.Instances.Get(key); !enrolled {
			d.left.Store(key, true)
			d.leave(key, e)
		}
	}
}

func (d *departures) leave(key string, e store.Event) {
	service, instance := instanceName(key)
	if e.Snapshot.Config.Service(service) != nil {
		d.xds.Disconnect(service, instance)
		return
	}
	if d.ending == nil {
		d.ending = map[string]farewells{}
	}
	if last, begun := d.ending[key]; begun {
		last.timer.Stop()
	}
	d.ending[key] = farewells{time.AfterFunc(farewell, func() { d.xds.Disconnect(service, instance) }), time.Now().Add(farewell)}
}
