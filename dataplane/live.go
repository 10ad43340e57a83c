package dataplane

import (
	"bufio"
	"context"
	"errors"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/watchword-mesh/watchword/dataplane/ruleset"
)

// errEnded is why a stream ended that was let in.
var errEnded = errors.New("the token that opened this stream is not accepted any more")

// live are the streams that end with their tokens, or with the revocation of those.
type live struct {
	mu  sync.Mutex
	all map[*liveStream]struct{}
}

// liveStream is one request that was let in. nil is one that ends by itself alone.
type liveStream struct {
	live *live
	req  ruleset.Request
	// token is set of a stream that ends only when its token is revoked.
	token  *ruleset.Verdict
	cancel context.CancelCauseFunc
	timer  *time.Timer // nil: the token has no end

	mu    sync.Mutex
	ended bool
	taken net.Conn // nil unless the handler has taken the connection
}

// watch ends a context when the token does, if the policy says so, or when review
// says so: for what may be open for long, when the token is revoked. done must be called
// when the handler has returned.
func (l *live) watch(ctx context.Context, req ruleset.Request, v *ruleset.Verdict, now time.Time, long bool) (context.Context, *liveStream) {
	at, ok := v.EndsWith()
	if !ok && !(long && v.Revocable()) {
		return ctx, nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s := &liveStream{live: l, cancel: cancel}
	if ok {
		s.req = req
		s.req.Header = slices.Clone(req.Header) // its memory is used again
	} else {
		s.token = v
	}
	l.mu.Lock()
	if l.all == nil {
		l.all = map[*liveStream]struct{}{}
	}
	l.all[s] = struct{}{}
	l.mu.Unlock()
	if !at.IsZero() {
		s.timer = time.AfterFunc(at.Sub(now), s.end)
	}
	return ctx, s
}

// end ends the context, and the connection if the handler has taken it.
func (s *liveStream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	s.cancel(errEnded)
	if s.taken != nil {
		_ = s.taken.Close()
	}
}

// done tells whether the stream was ended before its handler had returned. One whose
// connection was taken goes on until that is closed.
func (s *liveStream) done() (ended bool) {
	if s == nil {
		return false
	}
	s.mu.Lock()
	taken, ended := s.taken != nil, s.ended
	s.mu.Unlock()
	if taken {
		return false
	}
	s.forget()
	return ended
}

func (s *liveStream) forget() {
	if s.timer != nil {
		s.timer.Stop()
	}
	s.live.mu.Lock()
	delete(s.live.all, s)
	s.live.mu.Unlock()
	s.cancel(nil)
}

// review ends the streams that would not be let in now, and those whose token is
// revoked.
func (l *live) review(accepted func(ruleset.Request) bool, revoked func(*ruleset.Verdict) bool) {
	l.mu.Lock()
	all := slices.Collect(maps.Keys(l.all))
	l.mu.Unlock()
	for _, s := range all {
		if s.token != nil && revoked(s.token) || s.token == nil && !accepted(s.req) {
			s.end()
		}
	}
}

// takenWriter sees a handler take the connection (http.Hijacker).
type takenWriter struct {
	http.ResponseWriter
	stream *liveStream
}

// Unwrap is for http.ResponseController.
func (w *takenWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Flush implements http.Flusher.
func (w *takenWriter) Flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() }

// Hijack implements http.Hijacker.
func (w *takenWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	s := w.stream
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken = conn; s.ended {
		_ = conn.Close()
	}
	return &takenConn{conn, sync.OnceFunc(s.forget)}, rw, nil
}

// takenConn is not watched any more once it is closed.
type takenConn struct {
	net.Conn
	forget func()
}

// Close closes the connection.
func (c *takenConn) Close() error {
	c.forget()
	return c.Conn.Close()
}

// CloseWrite closes one direction, as that of TCP does.
func (c *takenConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return c.Close()
}
