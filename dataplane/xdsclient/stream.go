package xdsclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// admission is how long a stream may take to be refused. A control plane that has
// nothing new to say says nothing, so that there is no other sign that it takes us.
const admission = time.Second

type (
	request  = discovery.DeltaDiscoveryRequest
	response = discovery.DeltaDiscoveryResponse
	adsCall  = discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
)

// errSilent is that there was no connection, TLS and HTTP/2 included. gRPC itself would
// wait for as long as its backoff.
var errSilent = fmt.Errorf("no connection within %s: nobody answers, or not as a control plane does", connectTimeout)

// errEnded is that the control plane has ended the stream and said nothing.
var errEnded = errors.New("the control plane has ended the stream")

// stream is one attempt: it ends with an error, after the time that the stream lived.
func (c *client) stream(ctx context.Context, address string) (lived time.Duration, err error) {
	ctx, cancelFor := context.WithCancelCause(ctx)
	cancel := func() { cancelFor(nil) }
	defer cancel()
	conn, err := c.connection(address)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	silent := time.AfterFunc(connectTimeout, func() { cancelFor(errSilent) })
	call, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if !silent.Stop() {
		return 0, errSilent
	}
	if err != nil {
		return 0, err
	}
	opened := c.Now()
	for _, req := range c.subscribe() {
		if err := send(call, req); err != nil {
			return 0, err
		}
	}
	in := receive(ctx, call)
	defer func() {
		cancel()
		in.drain()
	}()
	err = c.follow(call, in, address)
	return c.Now().Sub(opened), err
}

// subscribe gives the first requests: all names at once, and what is in force.
func (c *client) subscribe() []*request {
	var all []*request
	for _, t := range c.types {
		req := &request{TypeUrl: t.url, ResourceNamesSubscribe: t.names}
		for name, version := range c.Handler.Held(t.url) {
			if t.has(name) && version != "" {
				if req.InitialResourceVersions == nil {
					req.InitialResourceVersions = make(map[string]string)
				}
				req.InitialResourceVersions[name] = version
			}
		}
		all = append(all, req)
	}
	// Only the first request of a stream needs it.
	all[0].Node = &corev3.Node{Id: c.Node, Cluster: c.Service, UserAgentName: c.Agent}
	return all
}

// send leaves it to Recv to say why a stream has ended.
func send(call adsCall, req *request) error {
	if err := call.Send(req); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// follow answers what comes until the stream ends.
func (c *client) follow(call adsCall, in *incoming, address string) error {
	admitted := time.NewTimer(admission)
	defer admitted.Stop()
	up := false
	connected := func() {
		if !up {
			up = true
			c.connected(address)
		}
	}
	defer func() {
		if up {
			c.disconnected(address)
		}
	}()
	for {
		select {
		case <-admitted.C:
			connected()
		case resp, ok := <-in.responses:
			if !ok {
				return in.err
			}
			connected()
			answer, err := c.answer(resp)
			if err == nil {
				err = send(call, answer)
			}
			if err != nil {
				return err
			}
		}
	}
}

func (c *client) connected(address string) {
	c.metrics.up()
	c.Logger.Info("connected to the control plane", "address", address)
	c.Handler.Connected(true)
}

func (c *client) disconnected(address string) {
	c.metrics.down()
	c.Logger.Info("disconnected from the control plane", "address", address)
	c.Handler.Connected(false)
}

// incoming is what a stream brings, one at a time.
type incoming struct {
	// responses is closed at the end of the stream; err says why, then.
	responses chan *response
	err       error
}

// receive takes from a call that was made under ctx.
func receive(ctx context.Context, call adsCall) *incoming {
	in := &incoming{responses: make(chan *response)}
	go func() {
		defer close(in.responses)
		for {
			resp, err := call.Recv()
			if errors.Is(err, io.EOF) {
				err = errEnded
			}
			if err != nil {
				in.err = err
				return
			}
			select {
			case in.responses <- resp:
			case <-ctx.Done():
				in.err = ctx.Err()
				return
			}
		}
	}()
	return in
}

// drain waits for the end of the stream.
func (in *incoming) drain() {
	for range in.responses {
	}
}
