package dataplane

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"time"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

const (
	dialTimeout      = 5 * time.Second
	handshakeTimeout = 5 * time.Second
	// idlePerHost is how many connections to one callee wait for requests; the default
	// of net/http is 2, so that a busy caller would connect anew all the time.
	idlePerHost = 256
)

// meshTransport goes to the endpoints of a callee instead of its host, and knows it by
// its SPIFFE ID.
func (d *DataPlane) meshTransport() http.RoundTripper {
	dialer := &net.Dialer{Timeout: dialTimeout}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost, t.ForceAttemptHTTP2 = idlePerHost, true
	// A proxy would be told of the host alone, and TLS through it would go by that.
	t.Proxy = func(r *http.Request) (*url.URL, error) {
		if d.callee(r.URL.Hostname()) != nil {
			return nil, nil
		}
		return http.ProxyFromEnvironment(r)
	}
	t.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		callee := d.calleeAt(address)
		conn, err := dialCallee(ctx, dialer, network, address, callee)
		if err != nil || callee == nil {
			return conn, err
		}
		if a, ok := conn.RemoteAddr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
			return nil, errors.Join(fmt.Errorf("no token goes over plain text to %s: call service %q by https, or give it endpoints on this host", conn.RemoteAddr(), callee.GetService()), conn.Close())
		}
		return conn, nil
	}
	t.DialTLSContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		// The transport goes on dialling for others when the request has gone.
		ctx, cancel := context.WithTimeout(ctx, dialTimeout+handshakeTimeout)
		defer cancel()
		callee := d.calleeAt(address)
		config, err := d.tlsTo(ctx, address, callee)
		if err != nil {
			return nil, err
		}
		conn, err := dialCallee(ctx, dialer, network, address, callee)
		if err != nil {
			return nil, err
		}
		secured := tls.Client(conn, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return secured, nil
	}
	d.outbound.mu.Lock()
	defer d.outbound.mu.Unlock()
	d.outbound.idle = append(d.outbound.idle, t.CloseIdleConnections)
	return t
}

// tlsTo is by the SPIFFE ID for who has one, else by the name of the host.
func (d *DataPlane) tlsTo(ctx context.Context, address string, callee *dataplanev1.Callee) (*tls.Config, error) {
	if callee.GetSpiffeId() == "" {
		host, _, err := net.SplitHostPort(address)
		return &tls.Config{ServerName: host, NextProtos: []string{"h2", "http/1.1"}, MinVersion: tls.VersionTLS12}, err
	}
	instance, err := d.Identity(ctx)
	if err != nil {
		return nil, err
	}
	return instance.CalleeTLS(callee.GetSpiffeId()), nil
}

// dialCallee tries the endpoints, beginning with any.
func dialCallee(ctx context.Context, dialer *net.Dialer, network, address string, callee *dataplanev1.Callee) (net.Conn, error) {
	endpoints := callee.GetEndpoints()
	if len(endpoints) == 0 {
		return dialer.DialContext(ctx, network, address)
	}
	var faults []error
	first := rand.IntN(len(endpoints))
	for i := range endpoints {
		conn, err := dialer.DialContext(ctx, network, endpoints[(first+i)%len(endpoints)])
		if err == nil {
			return conn, nil
		}
		faults = append(faults, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, fmt.Errorf("no endpoint of service %q can be reached: %w", callee.GetService(), errors.Join(faults...))
}
