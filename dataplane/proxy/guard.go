package proxy

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// guard is the body of a request that must make progress: each read has to give
// something within a time. A whole body may take as long as it likes, so that
// large uploads over slow lines pass, and those who send nothing do not stay.
type guard struct {
	io.ReadCloser
	control *http.ResponseController
	timeout time.Duration

	mu       sync.Mutex
	stopped  bool
	deadline time.Time
}

type guardKey struct{}

// guarded gives a request its guard, or none (nil). gRPC has none: a stream may be silent for as
// long as it is open, and pings tell whether its caller is still there. A body of
// unknown length may be such a stream too, and has the longer time.
func guarded(w http.ResponseWriter, r *http.Request, timeout, stream time.Duration) (*http.Request, *guard) {
	if r.Body == nil || r.Body == http.NoBody || strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		return r, nil
	}
	if r.ContentLength < 0 {
		timeout = stream
	}
	if timeout <= 0 {
		return r, nil
	}
	g := &guard{ReadCloser: r.Body, control: http.NewResponseController(w), timeout: timeout}
	g.extend(time.Now().Add(timeout))
	r = r.WithContext(context.WithValue(r.Context(), guardKey{}, g))
	r.Body = g
	return r, g
}

// Read implements io.Reader.
func (g *guard) Read(p []byte) (int, error) {
	if !g.extend(time.Now().Add(g.timeout)) {
		return 0, errEnded
	}
	n, err := g.ReadCloser.Read(p)
	switch {
	case err == io.EOF:
		// What the connection reads from now on is the next request.
		g.extend(time.Time{})
	case errors.Is(err, os.ErrDeadlineExceeded):
		err = g.expired(time.Now())
	}
	return n, err
}

// expired tells a caller that was too slow from one that is not waited for any more.
func (g *guard) expired(now time.Time) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Before(g.deadline) {
		return errEnded
	}
	return errBodyTimeout
}

// lingering is how long the server may read what a handler has left of a body,
// which it does before a refusal goes out.
const lingering = time.Second

// left ends the guard when the handler has returned.
func (g *guard) left() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.stopped && !g.deadline.IsZero() {
		_ = g.control.SetReadDeadline(time.Now().Add(min(lingering, g.timeout)))
	}
}

func (g *guard) extend(deadline time.Time) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.stopped {
		g.deadline = deadline
		_ = g.control.SetReadDeadline(deadline)
	}
	return !g.stopped
}

// stop ends the read that waits, and all later ones.
func (g *guard) stop() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stopped = true
	return g.control.SetReadDeadline(time.Unix(1, 0))
}
