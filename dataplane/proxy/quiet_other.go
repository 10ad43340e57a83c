//go:build !unix

package proxy

import "net"

func (c *conn) watch(net.Conn) {}

// quiet can't be known here without waiting.
func (c *conn) quiet() bool { return true }
