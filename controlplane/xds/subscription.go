package xds

import (
	"maps"
	"slices"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

// item is what one stream was told about one name, and what it said to that.
// Versions are hashes, absent, or empty for "nothing yet".
type item struct {
	name string
	// explicit: subscribed by name, not only through the wildcard.
	explicit bool
	// queued: its name is in the subscription's queue.
	queued bool
	// synced: what it holds is the content of today; kept by settle.
	synced bool
	// warned: it was logged that this name is not there for this stream.
	warned bool

	want  string // version of the content of today
	entry *entry // content of today, nil if it does not exist
	sent  *entry // what was last sent, or claimed and still current
	acked string // what the data plane holds by its own word
	// flying is the version in flight. While there is one, what the data plane
	// holds is about to change, so it is not synced, whatever it confirmed before.
	flying string

	refused string // version that it refused
	refusal string // and why

	// token is set for a token, and lease for a lease, which are of the stream alone.
	token *tokenItem
	lease *leaseItem
}

// due says whether the content of today should go out. A version that was
// refused does not go out again; any other content does.
// Of a token that is not minted yet, or a lease that is not given, nothing is said.
func (it *item) due() bool {
	return it.acked != it.want && it.refused != it.want && (it.token == nil && it.lease == nil || it.entry != nil)
}

// subscription is one stream's view of one type. It holds no lock: the caller
// has that of the service.
type subscription struct {
	stream   *stream
	kind     *kind
	items    map[string]*item
	queue    []*item // due, oldest first; may hold some that no longer are
	wildcard bool
	tokens   int  // items that are tokens
	greeted  bool // a first response was sent
	// behind counts the items that are not synced.
	behind int
	// solo: a response with several resources was refused, so they go out one by
	// one, that the refusal gets a name.
	solo bool

	// The engine's watch: nil between a response and the next request.
	out   chan<- cache.DeltaResponse
	known map[string]string // the engine's own map, handed back untouched

	flight *flight
}

// flight is the one response that is not answered yet.
type flight struct {
	nonce string // empty until it is on the wire
	items []*item
	// versions of the items in the response; the items may have moved on.
	versions []string
}

func newSubscription(st *stream, k *kind) *subscription {
	return &subscription{stream: st, kind: k, items: make(map[string]*item)}
}

// settle keeps behind in step with an item that changed. A token never counts:
// without it a data plane enforces all that it has to. Nor does a lease: but what it
// holds in its place, if that would never end.
func (sub *subscription) settle(it *item) {
	synced := it.token != nil || it.acked == it.want && it.flying == ""
	if it.lease != nil {
		synced = it.lease.bound
	}
	if synced == it.synced {
		return
	}
	it.synced = synced
	if synced {
		sub.behind--
	} else {
		sub.behind++
	}
}

// put adds an item, in place of the one that had its name. A response that is
// still in flight for the old one says nothing about the new one: the client
// may have forgotten it when it subscribed again.
func (sub *subscription) put(name string, explicit bool, e *entry) *item {
	it := &item{name: name, explicit: explicit, entry: e, want: e.versionOrAbsent()}
	if sub.isToken(name) {
		it.entry, it.want, it.token = nil, absent, new(tokenItem)
		sub.tokens++
	}
	old := sub.items[name]
	if sub.isLease(name) {
		it.entry, it.want, it.lease = nil, absent, &leaseItem{bound: true}
		if e = nil; old != nil && old.lease != nil {
			*it.lease = *old.lease
		}
	}
	// Who holds nothing is not told that there is nothing: an Envoy whose filter
	// was never configured takes that for its first answer, stops the timer that
	// would end its wait, and stays initializing until the resource is made.
	if sub.kind.typeURL == resource.ExtensionConfigType && e == nil && (old == nil || old.acked == absent && old.flying == "") {
		it.acked = absent
	}
	if old != nil {
		it.refused, it.refusal, it.warned = old.refused, old.refusal, old.warned
		sub.drop(old)
	}
	sub.items[name] = it
	sub.behind++
	sub.settle(it)
	sub.enqueue(it)
	return it
}

func (sub *subscription) drop(it *item) {
	if !it.synced {
		sub.behind--
	}
	it.synced = true // a dropped item never counts again
	if it.token != nil {
		sub.tokens--
	}
	it.queued = false
	if i := slices.Index(sub.queue, it); i >= 0 {
		sub.queue = slices.Delete(sub.queue, i, i+1)
	}
	delete(sub.items, it.name)
}

func (sub *subscription) enqueue(it *item) {
	if !it.queued {
		it.queued = true
		sub.queue = append(sub.queue, it)
	}
}

// wants says whether the subscription is a wildcard after a request. The engine
// takes an empty first request for one, in any type; the protocol has that for
// clusters and listeners only.
func (sub *subscription) wants(req *discovery.DeltaDiscoveryRequest, engine bool) bool {
	if sub.kind.batch {
		return engine
	}
	star := sub.wildcard || slices.Contains(req.GetResourceNamesSubscribe(), wildcardName)
	return star && !slices.Contains(req.GetResourceNamesUnsubscribe(), wildcardName)
}

// subscribe applies the names of one request.
func (sub *subscription) subscribe(req *discovery.DeltaDiscoveryRequest, wildcard bool, have map[string]*entry) {
	for _, name := range req.GetResourceNamesSubscribe() {
		if name != wildcardName {
			sub.put(name, true, have[name])
		}
	}
	for _, name := range req.GetResourceNamesUnsubscribe() {
		sub.unsubscribe(name, wildcard, have)
	}
	if wildcard && !sub.wildcard {
		for _, name := range slices.Sorted(maps.Keys(have)) {
			if sub.items[name] == nil {
				sub.put(name, false, have[name])
			}
		}
	}
	if !wildcard && sub.wildcard {
		for _, it := range sub.items {
			if !it.explicit {
				sub.drop(it)
			}
		}
	}
	sub.wildcard = wildcard
}

// unsubscribe forgets a name. Under a wildcard the client must be told again
// what the name is now (xDS protocol, "Unsubscribing from resources").
func (sub *subscription) unsubscribe(name string, wildcard bool, have map[string]*entry) {
	it := sub.items[name]
	if it == nil || name == wildcardName {
		return
	}
	if wildcard {
		sub.put(name, false, have[name])
		return
	}
	sub.drop(it)
}

// claim takes what the client, in its first request of the type, says that it
// holds. It counts as confirmed.
func (sub *subscription) claim(versions map[string]string, have map[string]*entry) {
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		it := sub.items[name]
		if it == nil && sub.wildcard {
			it = sub.put(name, false, have[name])
		}
		if it == nil {
			continue
		}
		it.acked = versions[name]
		switch {
		case it.token != nil:
			sub.stream.claimToken(it, it.acked)
		case it.lease != nil:
			sub.claimLease(it)
		}
		if it.acked == it.want {
			it.sent = it.entry
		}
		sub.settle(it)
	}
}

// change takes new content of one name.
func (sub *subscription) change(name string, e *entry) {
	it := sub.items[name]
	if it == nil {
		if sub.wildcard && e != nil {
			sub.put(name, false, e)
		}
		return
	}
	if it.token != nil || it.lease != nil {
		return
	}
	it.entry, it.want = e, e.versionOrAbsent()
	if it.sent == nil && it.acked == it.want {
		it.sent = e // claimed before anything was published
	}
	sub.settle(it)
	sub.enqueue(it)
}

// next hands the engine a response, if one is due and may go out now.
func (sub *subscription) next() *response {
	if sub.out == nil || sub.flight != nil {
		return nil
	}
	var batch []*item
	for len(sub.queue) > 0 {
		if len(batch) > 0 && (!sub.kind.batch || sub.solo) {
			break
		}
		it := sub.queue[0]
		sub.queue = sub.queue[1:]
		it.queued = false
		if it.due() {
			batch = append(batch, it)
		}
	}
	if len(sub.queue) == 0 {
		sub.queue, sub.solo = nil, false
	}
	// Envoy's start waits for the first answer to a wildcard, also an empty one.
	if len(batch) == 0 && (sub.greeted || !sub.wildcard || len(sub.items) > 0) {
		return nil
	}
	return sub.send(batch)
}

func (sub *subscription) send(batch []*item) *response {
	resp := &discovery.DeltaDiscoveryResponse{TypeUrl: sub.kind.typeURL}
	sub.flight = &flight{items: batch, versions: make([]string, len(batch))}
	for i, it := range batch {
		sub.flight.versions[i] = it.want
		it.sent, it.flying = it.entry, it.want
		sub.settle(it)
		if it.entry == nil {
			resp.RemovedResources = append(resp.RemovedResources, it.name)
		} else {
			resp.Resources = append(resp.Resources, it.entry.wire)
		}
	}
	sub.greeted = true
	r := &response{stream: sub.stream, flight: sub.flight, kind: sub.kind, known: sub.known, resp: resp}
	// Never blocks: the engine's channel has room for one response per type.
	sub.out <- r
	sub.out = nil
	return r
}

// answered takes the ACK or NACK out of a request and returns the response that
// it answers; nil if it answers none, or one that is long gone.
func (sub *subscription) answered(req *discovery.DeltaDiscoveryRequest) *flight {
	f := sub.flight
	if f == nil || f.nonce == "" || f.nonce != req.GetResponseNonce() {
		return nil
	}
	sub.flight = nil
	refusal := ""
	if d := req.GetErrorDetail(); d != nil {
		refusal = printable(d.GetMessage())
	}
	for i, it := range f.items {
		it.flying = ""
		it.forget(f.versions[i])
		switch {
		case req.GetErrorDetail() == nil:
			sub.acked(it, f.versions[i])
		case len(f.items) > 1:
			sub.solo = true
			sub.refused(it, "", "")
		default:
			sub.refused(it, f.versions[i], refusal)
		}
	}
	return f
}

// forget leaves nothing of a token that was answered but its version.
func (it *item) forget(version string) {
	for _, e := range []**entry{&it.entry, &it.sent} {
		if *e != nil && (*e).secret && (*e).version == version {
			*e = &entry{version: version, secret: true}
		}
	}
}

func (sub *subscription) acked(it *item, version string) {
	if sub.items[it.name] != it {
		return // subscribed anew, or not at all
	}
	it.acked, it.refused, it.refusal = version, "", ""
	if it.lease != nil {
		it.lease.took(version)
	}
	sub.settle(it)
	if it.synced && it.entry == nil && !it.explicit {
		sub.drop(it)
	}
}

// refused books a refusal under the name, also if that was subscribed anew in
// the meantime. An empty version is that of a response with several resources,
// of which nobody knows which was refused: they are sent again.
func (sub *subscription) refused(it *item, version, refusal string) {
	if it = sub.items[it.name]; it == nil {
		return
	}
	it.refused, it.refusal = version, refusal
	sub.settle(it)
	sub.enqueue(it)
}

// response is what the engine gets. It must not be shared: the engine writes
// the nonce into it.
type response struct {
	cache.DeltaResponse // nil; the engine calls nothing but what is below

	stream *stream
	flight *flight
	kind   *kind
	known  map[string]string
	resp   *discovery.DeltaDiscoveryResponse
}

// GetDeltaDiscoveryResponse is what the engine calls right before it makes the
// nonce, on its own goroutine.
func (r *response) GetDeltaDiscoveryResponse() (*discovery.DeltaDiscoveryResponse, error) {
	r.stream.sending = r
	return r.resp, nil
}

// GetDeltaRequest returns a request that has nothing but the type, which is all
// that the engine reads; the real one would stay in memory for each stream.
func (r *response) GetDeltaRequest() *discovery.DeltaDiscoveryRequest { return r.kind.request }

// GetNextVersionMap returns the engine's map as it is: what the client holds is
// our items' business.
func (r *response) GetNextVersionMap() map[string]string { return r.known }
