package xds

import (
	"context"
	"sync"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Limits on what one stream may ask for. The first also keeps the engine's
// response channel from filling up: it has room for twenty.
const (
	maxTypes = 16
	maxNames = 4096
)

// stream is one data plane's stream: the cache and the callbacks of its own
// protocol engine. The engine calls from one goroutine; publishers come from
// another. The lock of the service guards all that both touch.
type stream struct {
	server    *Server
	identity  Identity
	typeURL   string // empty on ADS
	address   string
	connected time.Time
	// ended is done once the stream may get nothing more; end says why.
	ended context.Context
	end   context.CancelCauseFunc

	// Set by the first request, before any publisher can see the stream.
	service *service
	row     *row
	// node replaces what the client sent: an Envoy's node lists hundreds of
	// extensions, and the engine keeps it as long as the stream lives.
	node *core.Node

	// Only the engine's goroutine touches these: what it is about to send, and
	// whether it is between a request's callback and its watch.
	sending   *response
	inRequest bool

	// minting waits for the goroutine that mints the stream's tokens; see tokens.go.
	minting sync.WaitGroup

	// Guarded by service.mu.
	subs   []*subscription
	minter chan struct{} // wakes that goroutine; nil if there is none
}

// OnDeltaStreamOpen implements delta.Callbacks.
func (st *stream) OnDeltaStreamOpen(context.Context, int64, string) error { return nil }

// OnDeltaStreamClosed implements delta.Callbacks. The engine has cancelled all
// watches before.
func (st *stream) OnDeltaStreamClosed(int64, *core.Node) {
	if st.service != nil {
		st.server.leave(st)
	}
}

// OnStreamDeltaRequest implements delta.Callbacks. The first request says what
// the data plane calls itself; which service it belongs to is known before.
func (st *stream) OnStreamDeltaRequest(_ int64, req *discovery.DeltaDiscoveryRequest) error {
	if st.ended.Err() != nil {
		return context.Cause(st.ended)
	}
	if st.typeURL != "" && req.GetTypeUrl() != "" && req.GetTypeUrl() != st.typeURL {
		return status.Errorf(codes.InvalidArgument, "this stream serves %s only; ask for %s over ADS", st.typeURL, req.GetTypeUrl())
	}
	if st.typeURL == "" && req.GetTypeUrl() == "" {
		return status.Error(codes.InvalidArgument, "a request over ADS must have a type_url")
	}
	if st.service == nil {
		st.node = &core.Node{Id: label(req.GetNode().GetId(), st.identity.Instance)}
		st.server.join(st, st.node.GetId(), label(req.GetNode().GetUserAgentName(), "unknown"))
		if says := claimed(req); says != "" && says != st.identity.Service && st.mayLog() {
			st.server.log.Warn("data plane says that it is of another service than its certificate, whose resources it gets",
				"node", st.node.GetId(), "service", st.identity.Service, "instance", st.identity.Instance, "says", label(says, ""))
		}
	}
	req.Node = st.node
	st.inRequest = true
	return nil
}

// OnStreamDeltaResponse implements delta.Callbacks: the nonce is known now. It
// takes no lock: the engine's goroutine alone reads and writes a nonce.
func (st *stream) OnStreamDeltaResponse(_ int64, _ *discovery.DeltaDiscoveryRequest, resp *discovery.DeltaDiscoveryResponse) {
	st.sending.flight.nonce = resp.GetNonce()
	st.sending.kind.pushes.Inc()
	st.sending = nil // it may hold a token
}

// CreateWatch implements cache.ConfigWatcher for the protocol that we refuse.
func (st *stream) CreateWatch(*cache.Request, cache.Subscription, chan cache.Response) (func(), error) {
	return nil, errStateOfTheWorld
}

// CreateDeltaWatch implements cache.ConfigWatcher. Each request of the client
// ends here: ACK or NACK, names, and then whatever is due.
func (st *stream) CreateDeltaWatch(req *cache.DeltaRequest, engine cache.Subscription, out chan cache.DeltaResponse) (func(), error) {
	st.inRequest = false
	svc := st.service
	svc.mu.Lock()
	defer svc.mu.Unlock()
	sub, err := st.subscription(req)
	if err != nil {
		return nil, err
	}
	acked := st.answer(sub, req)
	have := svc.content[sub.kind.typeURL]
	sub.subscribe(req, sub.wants(req, engine.IsWildcard()), have)
	if sub.known == nil {
		sub.claim(req.GetInitialResourceVersions(), have)
	}
	if sub.tokens > 0 {
		st.wakeMinter()
	}
	st.warn(sub, req)
	sub.out, sub.known = out, engine.ReturnedResources()
	if svc.ready {
		sub.next()
	}
	svc.judge(st.row)
	if !st.row.inSync {
		st.server.changed() // for another reason, maybe
	}
	if acked {
		svc.confirmed()
	}
	if svc.lease > 0 && st.row.inSync {
		svc.offer(st.row, svc.server.leaseOf(svc.lease), false)
	}
	return st.cancel(sub), nil
}

// cancel takes the engine's channel away from publishers when the stream ends,
// since the engine closes it then. For the next request, which the engine also
// announces by a cancel, there is no need: the channel stays the same.
func (st *stream) cancel(sub *subscription) func() {
	return func() {
		if st.inRequest {
			return
		}
		st.service.mu.Lock()
		sub.out = nil
		st.service.mu.Unlock()
	}
}

// subscription of the request's type, made by the first request of that type.
func (st *stream) subscription(req *discovery.DeltaDiscoveryRequest) (*subscription, error) {
	sub := st.sub(req.GetTypeUrl())
	names := len(req.GetResourceNamesSubscribe()) + len(req.GetInitialResourceVersions())
	if sub != nil {
		names += len(sub.items)
	}
	if tokens := st.countTokens(sub, req); tokens > maxTokens {
		return nil, status.Errorf(codes.ResourceExhausted, "a stream may subscribe to at most %d tokens", maxTokens)
	}
	if names > maxNames {
		return nil, status.Errorf(codes.ResourceExhausted, "a stream may subscribe to at most %d names of one type", maxNames)
	}
	if sub == nil {
		if len(st.subs) == maxTypes {
			return nil, status.Errorf(codes.ResourceExhausted, "a stream may subscribe to at most %d types", maxTypes)
		}
		sub = newSubscription(st, st.server.kind(req.GetTypeUrl()))
		st.subs = append(st.subs, sub)
	}
	return sub, nil
}

// answer books an ACK or NACK. An answer to a response that is not the one in
// flight says nothing; the engine would let it pass.
func (st *stream) answer(sub *subscription, req *discovery.DeltaDiscoveryRequest) (acked bool) {
	f := sub.answered(req)
	if f == nil {
		return false
	}
	if req.GetErrorDetail() == nil {
		sub.kind.acks.Inc()
		return true
	}
	sub.kind.nacks.Inc()
	st.row.refusing = true
	for i, it := range f.items {
		if !st.mayLog() {
			break
		}
		st.server.log.Warn("data plane refused a resource", "node", st.node.GetId(), "service", st.service.name,
			"resource", it.name, "version", f.versions[i], "reason", printable(req.GetErrorDetail().GetMessage()))
	}
	return false
}

// warn logs, once per name, what a data plane asks for and cannot get.
func (st *stream) warn(sub *subscription, req *discovery.DeltaDiscoveryRequest) {
	if !st.service.ready {
		return
	}
	for _, name := range req.GetResourceNamesSubscribe() {
		// Few services have leases, and a token is on its way.
		quiet := name == leaseName
		if it := sub.items[name]; it != nil && it.entry == nil && it.token == nil && !quiet && !it.warned && st.mayLog() {
			it.warned = true
			st.server.log.Warn("data plane asks for a resource that its service does not have", "node", st.node.GetId(),
				"service", st.service.name, "resource", name, "type", sub.kind.typeURL)
		}
	}
}

// push sends what a publication changed, as far as the stream takes part.
func (st *stream) push(diff []change) {
	for i, c := range diff {
		sub := st.sub(c.typeURL)
		if sub == nil {
			continue
		}
		sub.change(c.name, c.entry)
		last := i+1 == len(diff) || diff[i+1].typeURL != c.typeURL
		if last && st.service.ready {
			sub.next()
		}
	}
}

// sub returns the subscription to a type, nil if there is none. There are few,
// so a list is smaller than a map, and faster.
func (st *stream) sub(typeURL string) *subscription {
	for _, sub := range st.subs {
		if sub.kind.typeURL == typeURL {
			return sub
		}
	}
	return nil
}
