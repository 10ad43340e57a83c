package meshtest

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Link is a line to a TCP server, whose faults the test makes.
type Link struct {
	// Address of its near end, set by Start if it is empty.
	Address string
	// To is the server, HOST:PORT.
	To string

	mu      sync.Mutex
	change  sync.Cond
	delay   time.Duration
	frozen  bool
	refuses bool
	opened  int
	ends    map[net.Conn]struct{}
	closed  bool
	running sync.WaitGroup
}

// Start opens the line until the end of the test.
func (l *Link) Start(t testing.TB) {
	t.Helper()
	if l.Address == "" {
		l.Address = FreeAddress(t)
	}
	listener, err := net.Listen("tcp", l.Address)
	if err != nil {
		t.Fatal(err)
	}
	l.change.L, l.ends = &l.mu, make(map[net.Conn]struct{})
	l.running.Go(func() { l.accept(listener) })
	t.Cleanup(func() {
		_ = listener.Close()
		l.set(func() { l.closed, l.frozen, l.delay = true, false, 0 })
		l.Cut()
		l.running.Wait()
	})
}

// Delay holds up each piece that comes from the server.
func (l *Link) Delay(d time.Duration) { l.set(func() { l.delay = d }) }

// Freeze forwards nothing any more, and closes nothing: the other end of a
// connection can't tell, as when a cable is pulled.
func (l *Link) Freeze() { l.set(func() { l.frozen = true }) }

// Thaw ends Freeze.
func (l *Link) Thaw() { l.set(func() { l.frozen = false }) }

// Cut closes every connection that is open.
func (l *Link) Cut() {
	l.set(func() {
		for c := range l.ends {
			_ = c.Close()
		}
	})
}

// Refuse closes each new connection at once, or no longer does.
func (l *Link) Refuse(refuse bool) { l.set(func() { l.refuses = refuse }) }

// Opened is how many connections were made so far.
func (l *Link) Opened() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.opened
}

func (l *Link) set(change func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change()
	l.change.Broadcast()
}

func (l *Link) accept(listener net.Listener) {
	for {
		near, err := listener.Accept()
		if err != nil {
			return
		}
		l.running.Go(func() { l.carry(near) })
	}
}

func (l *Link) carry(near net.Conn) {
	defer near.Close()
	if !l.add(near) {
		return
	}
	defer l.remove(near)
	l.thawed() // a SYN is not answered by who is not there; this is as near as we get
	far, err := net.DialTimeout("tcp", l.To, 5*time.Second)
	if err != nil {
		return
	}
	defer far.Close()
	if !l.add(far) {
		return
	}
	defer l.remove(far)
	var both sync.WaitGroup
	both.Go(func() { l.copy(far, near, false) })
	l.copy(near, far, true)
	both.Wait()
}

// add is false if the connection is not to be.
func (l *Link) add(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.refuses || l.closed {
		return false
	}
	l.opened++
	l.ends[c] = struct{}{}
	return true
}

func (l *Link) remove(c net.Conn) { l.set(func() { delete(l.ends, c) }) }

// copy ends both ends at the end of one, unless the line is frozen.
func (l *Link) copy(to, from net.Conn, answers bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		d := l.thawed()
		if answers && n > 0 {
			time.Sleep(d)
		}
		if _, fault := to.Write(buf[:n]); fault != nil && err == nil {
			err = fault
		}
		if err == io.EOF {
			if half, ok := to.(*net.TCPConn); ok && half.CloseWrite() == nil {
				return
			}
		}
		if err != nil {
			_, _ = to.Close(), from.Close()
			return
		}
	}
}

// thawed waits while the line is frozen, and gives its delay.
func (l *Link) thawed() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.frozen {
		l.change.Wait()
	}
	return l.delay
}
