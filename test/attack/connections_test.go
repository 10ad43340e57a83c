package attack

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// slow is a client that begins and never ends.
type slow struct {
	name, address string
	// protocol of TLS; without one there is no TLS.
	protocol string
	// first is sent at once, then a byte at a time.
	first string
}

// cutWithin is how soon a slow client is cut off: headers, handshakes and the bodies
// of token requests have 10 s.
const cutWithin = 10*time.Second + 6*time.Second

func (c *castle) slowClients() []slow {
	ops := strings.TrimPrefix(c.Config.OpsListen, "http://")
	// The beginning of a ClientHello of 512 bytes.
	const hello = "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
	const header = "GET /jwks HTTP/1.1\r\nHost: x\r\nX-Slow: "
	return []slow{
		{"a handshake with the admin API", c.Config.AdminListen, "", hello},
		{"a handshake with ADS", c.Config.XDSListen, "", hello},
		{"a handshake with the token service", c.Config.STSListen, "", hello},
		{"a header to the admin API", c.Config.AdminListen, "http/1.1", header},
		{"a header to the token service", c.Config.STSListen, "http/1.1", header},
		{"a header to health", ops, "", header},
		{"a preface to ADS", c.Config.XDSListen, "h2", "PRI * HT"},
		{"a body to the token service", c.Config.STSListen, "http/1.1",
			"POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 1000\r\n\r\ngrant_type="},
	}
}

// run sends until it is cut off, and says how long that took.
func (s slow) run() (time.Duration, error) {
	raw, err := net.Dial("tcp", s.address)
	if err != nil {
		return 0, err
	}
	conn := raw
	defer raw.Close()
	began := time.Now()
	_ = raw.SetDeadline(began.Add(cutWithin))
	if s.protocol != "" {
		conn = tls.Client(raw, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{s.protocol}})
	}
	if _, err := io.WriteString(conn, s.first); err != nil {
		return 0, err
	}
	cut := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, conn) // an answer, maybe, and the end
		close(cut)
	}()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-cut:
			if took := time.Since(began); took < cutWithin {
				return took, nil
			}
			return 0, fmt.Errorf("not cut off within %s", cutWithin)
		case <-tick.C:
			_, _ = io.WriteString(conn, "x")
		}
	}
}

// Who sends a byte a second holds a connection for ten seconds, at every door.
func slowloris(c *castle) func(context.Context, *testing.T) {
	return func(_ context.Context, t *testing.T) {
		var all sync.WaitGroup
		for _, s := range c.slowClients() {
			for i := range 10 {
				all.Go(func() {
					took, err := s.run()
					if err != nil {
						t.Errorf("%s: %v", s.name, err)
					} else if i == 0 {
						t.Logf("%s: cut off after %s", s.name, took.Round(10*time.Millisecond))
					}
				})
			}
		}
		all.Wait()
	}
}

// flood opens more connections than the listener has places for, and says how many
// were closed at once; it holds the others until ctx ends.
func flood(ctx context.Context, address string, n int) (closed int) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for range n {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			continue
		}
		_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
		all.Go(func() {
			defer conn.Close()
			_, err := conn.Read(make([]byte, 1))
			if timeout, ok := err.(net.Error); !ok || !timeout.Timeout() {
				mu.Lock()
				closed++
				mu.Unlock()
			}
			<-ctx.Done()
		})
	}
	all.Wait()
	return closed
}

// Idle connections beyond the total are closed; those who have one keep it.
func connections(c *castle) func(context.Context, *testing.T) {
	return func(ctx context.Context, t *testing.T) {
		for _, f := range []struct {
			what, address string
			open, atLeast int
		}{
			{"health", strings.TrimPrefix(c.Config.OpsListen, "http://"), 300, 50},
			{"the admin API", c.Config.AdminListen, 1100, 100},
		} {
			if closed := flood(ctx, f.address, f.open); closed < f.atLeast {
				t.Errorf("%s: of %d connections %d were closed, want %d at least", f.what, f.open, closed, f.atLeast)
			}
		}
	}
}
