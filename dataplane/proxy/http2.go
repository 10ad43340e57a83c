package proxy

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"slices"
	"sync"
	"time"
)

// roundTrip2 speaks HTTP/2.
func (e *endpoint) roundTrip2(ctx context.Context, o *outgoing) (*http.Response, error) {
	e.once.Do(e.makeTransport)
	from := o.r.URL
	u := &url.URL{Scheme: "http", Host: "upstream", Path: from.Path, RawPath: from.RawPath, RawQuery: from.RawQuery, ForceQuery: from.ForceQuery}
	if e.options.tls != nil {
		u.Scheme = "https"
	}
	ctx, done := o.trace(ctx)
	defer done()
	req := (&http.Request{
		Method: o.r.Method, URL: u, Host: o.r.Host, Header: o.header(),
		ContentLength: o.upload.length, Body: o.body(), Trailer: o.announced(),
	}).WithContext(ctx)
	resp, err := e.http2.RoundTrip(req)
	if err != nil {
		if fault := o.upload.fault(); fault != nil {
			err = fault
		}
		return nil, err
	}
	return resp, nil
}

func (e *endpoint) makeTransport() {
	t := &http.Transport{
		Protocols:              new(http.Protocols),
		DisableCompression:     true,
		IdleConnTimeout:        e.options.timeouts.Idle,
		ResponseHeaderTimeout:  e.options.timeouts.ResponseHeader,
		MaxResponseHeaderBytes: int64(e.options.maxHeader),
		HTTP2:                  &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			ctx, cancel := withTimeout(ctx, e.options.timeouts.Dial)
			defer cancel()
			return e.dial(ctx)
		},
	}
	if e.options.tls == nil {
		t.Protocols.SetUnencryptedHTTP2(true)
	} else {
		t.Protocols.SetHTTP2(true)
		t.DialTLSContext = e.dialTLS
	}
	e.http2 = t
}

func (e *endpoint) dialTLS(ctx context.Context, _, _ string) (net.Conn, error) {
	ctx, cancel := withTimeout(ctx, e.options.timeouts.Dial)
	defer cancel()
	raw, err := e.dial(ctx)
	if err != nil {
		return nil, err
	}
	secure, err := e.secure(ctx, raw, "h2")
	if err != nil {
		return nil, err
	}
	return secure, nil
}

// trace has net/http's Transport tell of informational responses. After done it
// tells no more: its goroutine may outlast a RoundTrip that has failed.
func (o *outgoing) trace(ctx context.Context) (traced context.Context, done func()) {
	var mu sync.Mutex
	over := false
	traced = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			mu.Lock()
			defer mu.Unlock()
			if !over {
				o.informational(code, http.Header(h))
			}
			return nil
		},
	})
	return traced, func() {
		mu.Lock()
		defer mu.Unlock()
		over = true
	}
}

// body is the body for net/http's Transport.
func (o *outgoing) body() io.ReadCloser {
	switch {
	case o.upload.length == 0:
		return nil
	case o.upload.small != nil:
		return io.NopCloser(bytes.NewReader(o.upload.small))
	}
	return o.upload.open()
}

// announced is the trailer section for net/http's Transport: it has the names
// before the body is read, and the values after.
func (o *outgoing) announced() http.Header {
	names := o.trailerNames()
	if len(names) == 0 {
		return nil
	}
	t := make(http.Header, len(names))
	for _, name := range names {
		t[name] = nil
	}
	o.upload.whenRead(func() {
		for name, values := range o.trailer() {
			if slices.Contains(names, name) {
				t[name] = values
			}
		}
	})
	return t
}

// close closes what is idle. What is in use is closed when it no longer is; over
// HTTP/2 at the latest when it has been idle for the Idle timeout.
func (e *endpoint) close() {
	e.pool.close()
	e.once.Do(e.makeTransport)
	e.http2.CloseIdleConnections()
}
