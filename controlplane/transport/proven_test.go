package transport_test

import (
	"crypto/tls"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/watchword-mesh/watchword/controlplane/transport"
)

// byPeer serves connections one after the other, and hands on those it takes.
func byPeer(t *testing.T, p transport.Peers) (dial func() net.Conn, taken <-chan net.Conn) {
	t.Helper()
	cert, key := certificate(t, "x", time.Now().Add(time.Hour))
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	open, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := transport.Limit(open, transport.Limits{Total: 100, PerSource: 100}, func() {})
	t.Cleanup(func() { _ = l.Close() })
	creds := transport.ByPeer(transport.Closable(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"h2"}})), p)
	conns := make(chan net.Conn, 100)
	go func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			if c, _, err := creds.ServerHandshake(raw); err == nil {
				conns <- c
			}
		}
	}()
	return func() net.Conn {
		t.Helper()
		c, err := tls.Dial("tcp", open.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}, conns
}

// Strangers have so many places, each for a time, and get them back; who is known
// has its own.
func TestByPeer(t *testing.T) {
	var known atomic.Bool
	var refused atomic.Int32
	dial, taken := byPeer(t, transport.Peers{
		Known:     func(tls.ConnectionState) (string, bool) { return "orders/1", known.Load() },
		Strangers: transport.Limits{Total: 2, PerSource: 2}, StrangerLife: time.Hour, PerPeer: 1,
		Refused: func() { refused.Add(1) },
	})
	dial()
	first := <-taken
	dial()
	<-taken
	cutOff(t, dial())
	if refused.Load() != 1 {
		t.Errorf("%d connections were refused, want 1: strangers have two places", refused.Load())
	}
	known.Store(true)
	dial()
	mine := <-taken
	cutOff(t, dial()) // one is all that a peer has
	_ = mine.Close()
	dial()
	<-taken
	known.Store(false)
	_ = first.Close()
	_ = first.Close() // a place is given back once
	dial()
	<-taken
	cutOff(t, dial())
	if refused.Load() != 3 {
		t.Errorf("%d connections were refused, want 3", refused.Load())
	}
}

// cutOff waits until a connection is closed by the other side.
func cutOff(t *testing.T, c net.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadAll(c); err != nil {
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			t.Fatal("the connection is not closed")
		}
	}
}

// A stranger is cut off when its time is over, whatever it does; who is known stays.
func TestStrangerLife(t *testing.T) {
	var known atomic.Bool
	dial, taken := byPeer(t, transport.Peers{
		Known:     func(tls.ConnectionState) (string, bool) { return "orders/1", known.Load() },
		Strangers: transport.Limits{Total: 1, PerSource: 1}, StrangerLife: 20 * time.Millisecond, PerPeer: 1,
		Refused: func() {},
	})
	cutOff(t, dial())
	<-taken
	known.Store(true)
	client := dial()
	server := <-taken
	time.AfterFunc(100*time.Millisecond, func() { _, _ = server.Write([]byte("x")) }) // five lives later
	if _, err := client.Read(make([]byte, 1)); err != nil {
		t.Errorf("the connection of who is known: %v", err)
	}
}
