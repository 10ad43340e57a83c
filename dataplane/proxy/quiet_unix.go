//go:build unix

package proxy

import (
	"net"
	"syscall"
)

// watch prepares quiet for a connection.
func (c *conn) watch(raw net.Conn) {
	s, ok := raw.(syscall.Conn)
	if !ok {
		return
	}
	var err error
	if c.raw, err = s.SyscallConn(); err != nil {
		c.raw = nil
		return
	}
	var one [1]byte
	c.peek = func(fd uintptr) bool {
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		c.pending = err != syscall.EAGAIN
		return true
	}
}

// quiet says whether an idle connection is open and nothing has come over it. Its
// end would fail the next request; bytes would be taken for the answer to it, and
// be somebody else's.
func (c *conn) quiet() bool {
	if c.raw == nil {
		return true
	}
	return c.raw.Read(c.peek) == nil && !c.pending
}
