package xds

import (
	"fmt"
	"sync"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// follower is a data plane that accepts all it gets, and ends its stream after a
// few responses to come again, with what it holds or without.
type follower struct {
	id    string
	names []string
	holds map[string]string
	stop  chan struct{}
	last  func() // called when its last stream begins
}

// run follows the server until stop, over as many streams as it takes. Streams
// of it are made one after another, as Envoy makes them.
func (w *follower) run(t tb, f *fixture, lives int) {
	for life := 0; ; life++ {
		if life%2 == 0 {
			w.holds = map[string]string{}
		}
		p := f.connect(t, &core.Node{Id: w.id, Cluster: "s", UserAgentName: "envoy"})
		p.send(&discovery.DeltaDiscoveryRequest{TypeUrl: ecdsType, ResourceNamesSubscribe: w.names, InitialResourceVersions: w.holds})
		if life == lives {
			w.last()
		}
		again := w.listen(p, life < lives)
		_ = p.close()
		if !again {
			return
		}
	}
}

// listen returns true if the stream is to be made again.
func (w *follower) listen(p *plane, mortal bool) bool {
	for n := 0; !mortal || n < 3; n++ {
		select {
		case <-w.stop:
			return false
		case r := <-p.in:
			for _, res := range r.GetResources() {
				w.holds[res.GetName()] = res.GetVersion()
			}
			for _, name := range r.GetRemovedResources() {
				delete(w.holds, name)
			}
			p.ack(r)
		case <-time.After(time.Millisecond): // nothing is due, so it comes again
		}
	}
	return true
}

// bare hides Cleanup, which would keep each stream until the end of the test.
type bare struct{ tb }

// Data planes come and go while the first publication is made, while content
// changes and while the service is forgotten and made again. None may miss a
// wake-up: in the end all hold the last content, though nobody asks again.
func TestNobodyIsLeftBehind(t *testing.T) {
	for round := range 20 {
		converge(t, round)
	}
}

func converge(t *testing.T, round int) {
	f, stop := launch(bare{t}, Config{})
	defer stop()
	names := []string{"mesh.inbound/s", "mesh.revoked/s", "mesh.lease"}
	var running, restless sync.WaitGroup
	restless.Add(4)
	all := make([]*follower, 4)
	end := make(chan struct{})
	for i := range all {
		all[i] = &follower{id: fmt.Sprint("n", i), names: names, stop: end, last: restless.Done}
		running.Go(func() { all[i].run(bare{t}, f, 5) })
	}
	revision := int64(0)
	publish := func(version int) {
		revision++
		var resources []Resource
		for i, name := range names {
			if (version>>i)%2 == 1 {
				resources = append(resources, filter(name, fmt.Sprint("content ", version)))
			}
		}
		f.publish(revision, "s", resources...)
	}
	settled := make(chan struct{})
	go func() { restless.Wait(); close(settled) }()
	for version, churn := 1, true; churn; version++ {
		publish(version * 3 % 8)
		publish(0)
		select {
		case <-settled:
			churn = false
		default:
		}
	}
	publish(round)
	want := map[string]string{}
	for i, name := range names {
		if (round>>i)%2 == 1 {
			want[name] = version(testKey, filter(name, fmt.Sprint("content ", round)))
		}
	}
	f.until(bare{t}, fmt.Sprintf("round %d: all hold %v", round, want), func() bool { return f.allHold(len(all), want) })
	close(end)
	running.Wait()
}

// allHold says whether n data planes are in sync, each with just these versions.
func (f *fixture) allHold(n int, want map[string]string) bool {
	planes := f.DataPlanes("s")
	for _, dp := range planes {
		_, sent, _ := f.Sent(dp.Node)
		if !dp.InSync || len(sent) != 3 {
			return false
		}
		for _, r := range sent {
			if r.AckedVersion != want[r.Name] {
				return false
			}
		}
	}
	return len(planes) == n
}
