package proxy

import (
	"sync"
	"time"
)

// maxIdle is how many idle connections an endpoint keeps.
const maxIdle = 1024

// pool keeps the idle connections of an endpoint. The one that was used last is
// used next, so that those that are not needed grow old and are closed.
type pool struct {
	timeout time.Duration // 0: none

	mu     sync.Mutex
	idle   []*conn     // oldest first
	reaper *time.Timer // nil while nothing waits
	closed bool
}

func newPool(timeout time.Duration) *pool { return &pool{timeout: timeout} }

// get returns a connection that is open, as far as can be known, or nil.
func (p *pool) get() *conn {
	for {
		c := p.pop()
		if c == nil || c.quiet() {
			return c
		}
		c.close()
	}
}

func (p *pool) pop() *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.idle)
	if n == 0 {
		return nil
	}
	c := p.idle[n-1]
	p.idle[n-1] = nil
	p.idle = p.idle[:n-1]
	return c
}

// put takes a connection that nothing uses any more.
func (p *pool) put(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || len(p.idle) >= maxIdle {
		c.close()
		return
	}
	c.idleSince = time.Now()
	p.idle = append(p.idle, c)
	if p.timeout > 0 && p.reaper == nil {
		p.reaper = time.AfterFunc(p.timeout, p.reap)
	}
}

// reap closes what has been idle for too long.
func (p *pool) reap() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.reaper = nil
	old := 0
	for old < len(p.idle) && time.Since(p.idle[old].idleSince) >= p.timeout {
		p.idle[old].close()
		old++
	}
	p.idle = append(p.idle[:0], p.idle[old:]...)
	if len(p.idle) > 0 && !p.closed {
		p.reaper = time.AfterFunc(p.timeout-time.Since(p.idle[0].idleSince), p.reap)
	}
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.reaper != nil {
		p.reaper.Stop()
	}
	for _, c := range p.idle {
		c.close()
	}
	p.idle = nil
}
