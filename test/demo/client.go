package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
)

// request goes to a service, by way of its Envoy.
type request struct {
	// to is the service, or "own": the Envoy of orders that somebody else owns.
	to string
	// method is GET if empty.
	method, path string
	// token of the caller; the zero value is none.
	token token
	// pretend is whom the caller says it is, in the header that only Envoy
	// may set.
	pretend string
}

func (m *mesh) url(r request) string { return "http://" + m.ports.address(r.to) + r.path }

const (
	http1 = "HTTP/1.1"
	http2 = "HTTP/2"
)

// connection sends requests over one TCP connection for as long as that stays
// open; when it does not, the transport dials again, and we count.
type connection struct {
	protocol  string
	transport *http.Transport
	dials     atomic.Int32
}

func newConnection(protocol string) *connection {
	c := &connection{protocol: protocol}
	c.transport = &http.Transport{
		MaxConnsPerHost: 1,
		Protocols:       new(http.Protocols),
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			c.dials.Add(1)
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	c.transport.Protocols.SetHTTP1(protocol == http1)
	c.transport.Protocols.SetUnencryptedHTTP2(protocol == http2)
	return c
}

func (c *connection) dialled() int { return int(c.dials.Load()) }
func (c *connection) close()       { c.transport.CloseIdleConnections() }

// maxAnswer is more than any answer of the demo has.
const maxAnswer = 1 << 16

func (c *connection) send(ctx context.Context, m *mesh, r request) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, r.method, m.url(r), nil)
	if err != nil {
		return 0, nil, err
	}
	if r.pretend != "" {
		req.Header.Set(callerHeader, r.pretend)
	}
	if r.token != (token{}) {
		text, err := m.tokens.get(ctx, r.token)
		if err != nil {
			return 0, nil, err
		}
		req.Header.Set("Authorization", "Bearer "+text)
	}
	response, err := c.transport.RoundTrip(req)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	return response.StatusCode, body, err
}

// outcome is `200, orders saw ...` or `401 token_missing`.
func (c *connection) outcome(ctx context.Context, m *mesh, r request) (string, error) {
	status, body, err := c.send(ctx, m, r)
	if err != nil {
		return "", err
	}
	if status != http.StatusOK {
		return refusal(status, body), nil
	}
	seen := new(sight)
	if err := json.Unmarshal(body, seen); err != nil {
		return "", fmt.Errorf("reading the answer of %s: %w", r.to, err)
	}
	return fmt.Sprintf("%d, %s", status, seen), nil
}

// refusal has the reason word, or the body where nobody gives one.
func refusal(status int, body []byte) string {
	var told struct {
		Reason string `json:"reason"`
	}
	if json.Unmarshal(body, &told) == nil && told.Reason != "" {
		return fmt.Sprintf("%d %s", status, told.Reason)
	}
	return fmt.Sprintf("%d %q", status, strings.TrimSpace(string(body)))
}

// healthy is nil if the URL answers 200.
func healthy(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", url, response.Status)
	}
	return nil
}
