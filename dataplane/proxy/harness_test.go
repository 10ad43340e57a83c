package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience ends a test that hangs; no test waits for it to pass.
const patience = 10 * time.Second

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// serving is a Serve that runs.
type serving struct {
	address string
	stop    context.CancelFunc // begins to drain
	ended   chan struct{}
	err     error // after ended
}

// serve runs Serve until the test ends.
func serve(t testing.TB, l net.Listener, h http.Handler, c ServerConfig) *serving {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s := &serving{address: l.Addr().String(), stop: cancel, ended: make(chan struct{})}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = -1
	}
	go func() {
		defer close(s.ended)
		s.err = Serve(ctx, l, h, c)
	}()
	t.Cleanup(func() {
		cancel()
		<-s.ended
		if s.err != nil {
			t.Errorf("Serve: %v", s.err)
		}
	})
	return s
}

// newProxy is a Proxy that is closed when the test ends.
func newProxy(t testing.TB, c Config) *Proxy {
	t.Helper()
	p, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

// front serves a Proxy to an upstream.
func front(t testing.TB, c Config) string {
	t.Helper()
	return serve(t, listen(t), newProxy(t, c), ServerConfig{}).address
}

// upstream takes TCP connections, each by one call of serve in a goroutine.
type upstream struct {
	address string
	mu      sync.Mutex
	conns   []net.Conn
	all     sync.WaitGroup
}

func newUpstream(t testing.TB, serve func(n int, c *peer)) *upstream {
	t.Helper()
	l := listen(t)
	u := &upstream{address: l.Addr().String()}
	u.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			u.mu.Lock()
			u.conns = append(u.conns, c)
			n := len(u.conns)
			u.mu.Unlock()
			u.all.Go(func() {
				defer c.Close()
				serve(n, newPeer(t, c))
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		u.mu.Lock()
		for _, c := range u.conns {
			c.Close()
		}
		u.mu.Unlock()
		u.all.Wait()
	})
	return u
}

func (u *upstream) accepted() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.conns)
}

// peer is one end of a connection, by bytes.
type peer struct {
	net.Conn
	t  testing.TB
	br *bufio.Reader
}

func newPeer(t testing.TB, c net.Conn) *peer {
	_ = c.SetDeadline(time.Now().Add(patience))
	return &peer{c, t, bufio.NewReader(c)}
}

func dial(t testing.TB, address string) *peer {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return newPeer(t, c)
}

func (p *peer) send(format string, args ...any) {
	p.t.Helper()
	if _, err := fmt.Fprintf(p.Conn, format, args...); err != nil {
		p.t.Errorf("sending %q: %v", format, err)
	}
}

// head reads up to an empty line; "" at the end of the connection.
func (p *peer) head() string {
	var b strings.Builder
	for {
		line, err := p.br.ReadString('\n')
		if err != nil {
			return ""
		}
		if line == "\r\n" {
			return sorted(b.String())
		}
		b.WriteString(line)
	}
}

// sorted puts the header lines of a head in order: that in which they are sent is
// the map's.
func sorted(head string) string {
	lines := strings.Split(strings.TrimSuffix(head, "\r\n"), "\r\n")
	slices.Sort(lines[1:])
	return strings.Join(lines, "\n")
}

// take reads n bytes.
func (p *peer) take(n int) string {
	b := make([]byte, n)
	k, err := io.ReadFull(p.br, b)
	if err != nil {
		p.t.Errorf("want %d bytes, got %q and %v", n, b[:k], err)
	}
	return string(b)
}

func (p *peer) want(text string) {
	p.t.Helper()
	if got := p.take(len(text)); got != text {
		p.t.Errorf("got bytes %q, want %q", got, text)
	}
}

// closed says whether the other side ends the connection now.
func (p *peer) closed() bool {
	_, err := p.br.ReadByte()
	return err != nil && !isTimeout(err)
}

func isTimeout(err error) bool {
	n, ok := err.(net.Error)
	return ok && n.Timeout()
}

// status reads a head and returns its status line.
func (p *peer) status() string {
	line, _, _ := strings.Cut(p.head(), "\n")
	return line
}
