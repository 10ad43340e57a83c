package proxy

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"syscall"
	"time"
)

// conn is a connection to an upstream that speaks HTTP/1.1. It has no goroutine;
// one request at a time uses it.
type conn struct {
	net.Conn
	endpoint  *endpoint
	br        *bufio.Reader
	out       []byte // written from, and kept
	reused    bool
	idleSince time.Time // guarded by the pool

	raw     syscall.RawConn // nil: not known
	peek    func(fd uintptr) bool
	pending bool // result of peek

	// Of the request that uses it.
	stop    func() bool // the caller's going away no longer closes it
	sending *sending    // nil: the request was written at once
	written int
	answer  bool // something of the response was read
}

func newConn(c, raw net.Conn, e *endpoint) *conn {
	out := &conn{Conn: c, endpoint: e, br: bufio.NewReader(c)}
	out.watch(raw)
	return out
}

func (c *conn) close() { _ = c.Close() }

// exchange sends a request and reads the head of the response. Without an error
// the connection belongs to the response's body.
func (c *conn) exchange(ctx context.Context, o *outgoing) (*http.Response, error) {
	c.written, c.answer, c.sending = 0, false, nil
	c.stop = context.AfterFunc(ctx, c.close)
	resp, err := c.try(o)
	if err != nil {
		c.discard()
		if fault := o.upload.fault(); fault != nil {
			err = fault
		}
		return nil, err
	}
	return resp, nil
}

func (c *conn) try(o *outgoing) (*http.Response, error) {
	c.out = o.appendHead(c.out[:0])
	if o.upload.streamed() {
		c.sending = &sending{}
		o.upload.senders.Add(1)
		go c.send(o, c.sending, o.upload.open())
		return c.readResponse(o)
	}
	c.out = append(c.out, o.upload.small...)
	if d := c.endpoint.options.timeouts.ResponseHeader; d > 0 {
		if err := c.SetDeadline(time.Now().Add(d)); err != nil {
			return nil, err
		}
	}
	var err error
	if c.written, err = c.Write(c.out); err != nil {
		return nil, err
	}
	return c.readResponse(o)
}

// unseen says whether a failed request may be sent again: the upstream can't have
// seen it, or has closed an idle connection and may see it twice (RFC 9110 section
// 9.2.2, RFC 9112 section 9.3.1).
func (c *conn) unseen(o *outgoing) bool {
	if !c.reused || c.answer || c.sending != nil {
		return false
	}
	switch o.r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return o.upload.length == 0 || c.written == 0
	}
	return c.written == 0
}

// readResponse reads heads until there is a final one.
func (c *conn) readResponse(o *outgoing) (*http.Response, error) {
	for range maxInformational {
		resp, err := c.readHead(o)
		if err != nil {
			return nil, err
		}
		switch s := resp.StatusCode; {
		case s == http.StatusSwitchingProtocols:
			return c.switched(o, resp)
		case s < 200:
			o.informational(s, resp.Header)
			continue
		}
		return resp, c.begin(o, resp)
	}
	return nil, responseError("too many informational responses")
}

func (c *conn) readHead(o *outgoing) (*http.Response, error) {
	if _, err := c.br.Peek(1); err != nil {
		if errors.Is(err, io.EOF) && !c.answer {
			err = errClosedEarly
		}
		return nil, err
	}
	c.answer = true
	text, err := readHead(c.br, c.endpoint.options.maxHeader)
	if err != nil {
		return nil, err
	}
	return parseHead(text)
}

var errClosedEarly = errors.New("the upstream closed the connection without an answer")

// switched makes the connection the body of a 101.
func (c *conn) switched(o *outgoing, resp *http.Response) (*http.Response, error) {
	if !o.websocket {
		return nil, responseError("101 that was not asked for")
	}
	_ = c.SetDeadline(time.Time{})
	resp.Body = &switchedConn{hijacked{c.Conn, c.br}, c}
	return resp, nil
}

type switchedConn struct {
	hijacked
	c *conn
}

func (s *switchedConn) Close() error {
	s.c.discard()
	return nil
}

// begin sets up the body of a response (RFC 9112 section 6.3).
func (c *conn) begin(o *outgoing, resp *http.Response) error {
	f, err := framingOf(o.r.Method, resp)
	if err != nil {
		return err
	}
	if c.sending != nil {
		c.sending.answered(c)
	} else if c.endpoint.options.timeouts.ResponseHeader > 0 {
		_ = c.SetDeadline(time.Time{})
	}
	// Not part of the connection: when that serves the next request, this one may
	// still be closed.
	b := &body{c: c, resp: resp, framing: f, keep: keepsAlive(resp) && f.kind != untilClose}
	if f.kind == none || f.kind == exact && f.length == 0 {
		b.finish(nil)
		resp.Body = http.NoBody
		return nil
	}
	b.start()
	resp.Body = b
	return nil
}

// release gives the connection back after a whole response. After one that came
// before the request was sent whole the upstream may close it at any time, since it
// need not read the rest. What has come beyond the response is nothing that was
// asked for.
func (c *conn) release() {
	if !c.stop() || c.sending != nil && c.sending.early || c.br.Buffered() > 0 {
		c.close()
		return
	}
	c.reused = true
	c.endpoint.pool.put(c)
}

// discard closes the connection.
func (c *conn) discard() {
	c.stop()
	c.close()
}

// sending is a request body on its way over a connection.
type sending struct {
	early bool // the head of the response came first; set by who reads it

	mu   sync.Mutex
	done bool // all of it was written
	head bool // the head of the response is there
}

// answered ends the wait for the head of the response.
func (s *sending) answered(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.head, s.early = true, !s.done
	if c.endpoint.options.timeouts.ResponseHeader > 0 {
		_ = c.SetReadDeadline(time.Time{})
	}
}

// sent begins the wait for the head of the response.
func (s *sending) sent(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done = true
	if d := c.endpoint.options.timeouts.ResponseHeader; d > 0 && !s.head {
		_ = c.SetReadDeadline(time.Now().Add(d))
	}
}
