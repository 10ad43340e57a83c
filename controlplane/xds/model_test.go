package xds

import (
	"fmt"
	"slices"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"
)

// twin is a dumb data plane, and what the server must know of it. It remembers
// all that it was told.
type twin struct {
	*plane
	id         string
	subscribed map[string]bool
	leaving    map[string]bool   // unsubscribed, but the server may not know yet
	holds      map[string]string // name to version; gone names are not in it
	refused    map[string]string // name to the version refused last
	flight     *discovery.DeltaDiscoveryResponse
}

// reply answers the response in flight, if there is one.
func (w *twin) reply(t *rapid.T, accept bool) {
	if w.flight == nil {
		return
	}
	r := w.flight
	w.flight = nil
	name, version := w.only(t, r)
	accept = accept || version == absent
	if accept {
		w.ack(r)
	} else {
		w.nack(r, "no")
	}
	// A response that crossed the unsubscribe is answered, but neither side keeps
	// the answer: who subscribes again wants the resource again, refused or not.
	if w.subscribed[name] {
		w.book(name, version, accept)
	}
}

func (w *twin) book(name, version string, accept bool) {
	if !accept {
		w.refused[name] = version
		return
	}
	delete(w.refused, name)
	if version == absent {
		delete(w.holds, name)
		return
	}
	w.holds[name] = version
}

// only returns the one resource of a response.
func (w *twin) only(t *rapid.T, r *discovery.DeltaDiscoveryResponse) (name, version string) {
	rs, gone := r.GetResources(), r.GetRemovedResources()
	if n := len(rs) + len(gone); n != 1 {
		t.Fatalf("%s got %d resources in one response: %v", w.id, n, r)
	}
	if len(gone) == 1 {
		return gone[0], absent
	}
	return rs[0].GetName(), rs[0].GetVersion()
}

// poll takes a response that came.
func (w *twin) poll(t *rapid.T) {
	for {
		select {
		case r := <-w.in:
			if r.GetTypeUrl() == markType {
				t.Fatalf("%s got a mark out of turn: %v", w.id, r)
			}
			w.take(t, r)
		default:
			return
		}
	}
}

// take fails if a response came before the answer to the one before, repeats what
// was refused, or is of a name that the twin does not ask for.
func (w *twin) take(t *rapid.T, r *discovery.DeltaDiscoveryResponse) {
	if w.flight != nil {
		t.Fatalf("%s got %v before it answered %v", w.id, r, w.flight)
	}
	name, version := w.only(t, r)
	if w.refused[name] == version {
		t.Fatalf("%s got %s again at version %s, which it refused", w.id, name, version)
	}
	if !w.subscribed[name] && !w.leaving[name] {
		t.Fatalf("%s got %s at version %s, which it does not ask for", w.id, name, version)
	}
	w.flight = r
}

// sync returns when the server has dealt with all that the twin said: it asks
// for a mark, and takes what comes before it.
func (w *twin) sync(t *rapid.T) {
	w.marks++
	mark := fmt.Sprintf("mark-%d", w.marks)
	w.subscribe(markType, mark)
	for {
		r := w.recv()
		if r.GetTypeUrl() == markType {
			w.send(&discovery.DeltaDiscoveryRequest{TypeUrl: markType, ResponseNonce: r.GetNonce(), ResourceNamesUnsubscribe: []string{mark}})
			clear(w.leaving)
			return
		}
		w.take(t, r)
	}
}

// Random publications, subscriptions, ACKs, NACKs and reconnects: a dumb model
// knows what each stream must hold in the end, what it may never be sent, and
// whether the ledger may call it in sync.
func TestAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, stop := launch(t, Config{})
		defer stop()
		names := []string{"mesh.inbound/s", "mesh.revoked/s", "mesh.lease", "mesh.inbound/other"}
		current := map[string]Resource{}
		revision := int64(0)
		publish := func() {
			revision++
			var all []Resource
			for _, name := range names {
				if r, ok := current[name]; ok {
					all = append(all, r)
				}
			}
			f.publish(revision, "s", all...)
		}
		publish()
		belongs := &structpb.Struct{Fields: map[string]*structpb.Value{"watchword.service": structpb.NewStringValue("s")}}
		twins := make([]*twin, 3)
		connect := func(i int) {
			id := fmt.Sprintf("n%d", i)
			old := twins[i]
			w := &twin{id: id, subscribed: map[string]bool{}, leaving: map[string]bool{}, holds: map[string]string{}, refused: map[string]string{},
				plane: f.connect(t, &core.Node{Id: id, UserAgentName: "envoy", Metadata: belongs})}
			if old != nil { // as Envoy: it keeps what it holds, and claims it
				w.subscribed, w.holds = old.subscribed, old.holds
			}
			twins[i] = w
			if len(w.subscribed) > 0 {
				var subscribe []string
				for name := range w.subscribed {
					subscribe = append(subscribe, name)
				}
				slices.Sort(subscribe)
				w.send(&discovery.DeltaDiscoveryRequest{TypeUrl: ecdsType, ResourceNamesSubscribe: subscribe, InitialResourceVersions: w.holds})
			}
		}
		for i := range twins {
			connect(i)
		}
		defer func() {
			for _, w := range twins {
				w.stop()
				_ = w.ended()
			}
		}()
		pick := func(t *rapid.T) *twin { return twins[rapid.IntRange(0, len(twins)-1).Draw(t, "twin")] }
		t.Repeat(map[string]func(*rapid.T){
			"publish": func(t *rapid.T) {
				name := rapid.SampledFrom(names[:3]).Draw(t, "name")
				if v := rapid.IntRange(0, 3).Draw(t, "content"); v == 0 {
					delete(current, name)
				} else {
					current[name] = filter(name, fmt.Sprint("content ", v))
				}
				publish()
			},
			"subscribe": func(t *rapid.T) {
				w := pick(t)
				name := rapid.SampledFrom(names).Draw(t, "name")
				if !w.subscribed[name] {
					w.subscribed[name] = true
					w.subscribe(ecdsType, name)
				}
			},
			"unsubscribe": func(t *rapid.T) {
				w := pick(t)
				name := rapid.SampledFrom(names).Draw(t, "name")
				if !w.subscribed[name] {
					return
				}
				w.sync(t)
				for w.flight != nil { // else the answer would be to nothing
					w.reply(t, true)
					w.sync(t)
				}
				delete(w.subscribed, name)
				w.leaving[name] = true
				delete(w.holds, name)
				delete(w.refused, name)
				w.send(&discovery.DeltaDiscoveryRequest{TypeUrl: ecdsType, ResourceNamesUnsubscribe: []string{name}})
			},
			"ack":   func(t *rapid.T) { w := pick(t); w.poll(t); w.reply(t, true) },
			"nack":  func(t *rapid.T) { w := pick(t); w.poll(t); w.reply(t, false) },
			"sync":  func(t *rapid.T) { pick(t).sync(t) },
			"stale": func(t *rapid.T) { pick(t).ack(&discovery.DeltaDiscoveryResponse{TypeUrl: ecdsType, Nonce: "12345"}) },
			"reconnect": func(t *rapid.T) {
				i := rapid.IntRange(0, len(twins)-1).Draw(t, "twin")
				twins[i].stop()
				_ = twins[i].ended()
				f.until(t, "the old stream is gone", func() bool { _, _, ok := f.Sent(twins[i].id); return !ok || len(twins[i].subscribed) == 0 })
				connect(i)
			},
		})
		// Let everybody answer until nothing comes any more, then compare.
		for _, w := range twins {
			for w.sync(t); w.flight != nil; w.sync(t) {
				w.reply(t, true)
			}
			inSync := len(w.subscribed) > 0
			for name := range w.subscribed {
				want := ""
				if r, ok := current[name]; ok && name != "mesh.inbound/other" {
					want = version(testKey, r)
				}
				if w.refused[name] != "" && w.refused[name] == want {
					inSync = false
					continue
				}
				if w.holds[name] != want {
					t.Fatalf("%s holds %s at %q, want %q", w.id, name, w.holds[name], want)
				}
			}
			for name := range current {
				// Without leases the last one lets everything through.
				inSync = inSync && (w.subscribed[name] || name == "mesh.lease")
			}
			w.check(t, f, inSync)
		}
	})
}

// check compares the ledger's row with the model.
func (w *twin) check(t *rapid.T, f *fixture, inSync bool) {
	f.until(t, fmt.Sprintf("%s has in sync = %v", w.id, inSync), func() bool {
		dp, _, ok := f.Sent(w.id)
		return ok && dp.InSync == inSync && (dp.Revision == f.Published() || !inSync)
	})
}
