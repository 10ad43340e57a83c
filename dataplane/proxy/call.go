package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
)

// call is one request of the service's own to somebody else.
type call struct {
	egress *Egress
	callee Callee
	known  bool
	adds   bool // a token of ours
}

// roundTrip implements the type roundTrip. A token that the callee does not accept
// may have been signed with a key that is no longer valid, so that another one is
// tried once.
func (c *call) roundTrip(ctx context.Context, o *outgoing) (*http.Response, error) {
	if !c.adds {
		return c.attempt(ctx, o)
	}
	tokens := c.egress.config.Tokens
	value, err := tokens.Token(ctx, c.callee.Audience)
	if err != nil {
		return nil, tokenFailure(c.callee, err)
	}
	o.authorization = "Bearer " + value
	resp, err := c.attempt(ctx, o)
	if err != nil || !tokenRefused(resp) {
		return resp, err
	}
	tokens.Refused(c.callee.Audience, value)
	if !o.upload.replayable() {
		return resp, nil
	}
	fresh, err := tokens.Token(ctx, c.callee.Audience)
	if err != nil || fresh == value {
		return resp, nil // what the callee has said tells more
	}
	c.egress.metrics.retries.Inc()
	dismiss(resp)
	o.upload.again()
	o.authorization = "Bearer " + fresh
	return c.attempt(ctx, o)
}

func tokenFailure(c Callee, err error) error {
	return &failure{status: http.StatusServiceUnavailable, word: "token_unavailable",
		text: "there is no token for service " + c.Service, err: err}
}

// tokenRefused says whether a callee did not accept a token (RFC 6750 section 3.1).
// For gRPC the status is not looked at: it is 200, and that of gRPC may be in
// trailers, which only the end of the body brings.
func tokenRefused(resp *http.Response) bool {
	if resp.StatusCode != http.StatusUnauthorized && !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/grpc") {
		return false
	}
	for _, v := range resp.Header["Www-Authenticate"] {
		if strings.Contains(strings.ReplaceAll(strings.ToLower(v), " ", ""), `error="invalid_token"`) {
			return true
		}
	}
	return false
}

// dismiss ends a response that nobody wants. A short one is read, so that its
// connection can be used again.
func dismiss(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, smallBody)
	_ = resp.Body.Close()
}

var turn atomic.Uint64

// attempt sends a request to the first endpoint that a connection opens to.
func (c *call) attempt(ctx context.Context, o *outgoing) (*http.Response, error) {
	endpoints := c.callee.Endpoints
	if len(endpoints) == 0 {
		endpoints = []string{c.target(o.r.Host)}
	}
	first := turn.Add(1)
	var resp *http.Response
	var err error
	for i := range endpoints {
		to := endpoints[(first+uint64(i))%uint64(len(endpoints))]
		resp, err = c.send(ctx, o, to)
		var refused *connectError
		if !errors.As(err, &refused) || ctx.Err() != nil {
			break
		}
	}
	return resp, err
}

func (c *call) send(ctx context.Context, o *outgoing, to string) (*http.Response, error) {
	addr, err := parseAddress(to)
	if err != nil {
		return nil, &connectError{address{name: to}, err}
	}
	e := c.egress.endpoint(endpointKey{address: addr, tls: c.callee.TLS, local: c.known && c.callee.TLS == nil})
	return e.roundTrip(ctx, o)
}

// target is the address that a request names itself.
func (c *call) target(hostport string) string {
	host, port := splitHost(hostport)
	if port == "" {
		port = "80"
		if c.callee.TLS != nil {
			port = "443"
		}
	}
	return net.JoinHostPort(host, port)
}
