package xdsclient

import (
	"context"
	"errors"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// Who takes a connection and then says nothing is given up after connectTimeout, and
// the next address is tried.
func TestSilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := mustClient(t, config(newEnforcer(), "silent:1", "next:1"))
		tried := make(chan string, 1)
		c.dial = func(_ context.Context, address string) (net.Conn, error) {
			if address == "next:1" {
				select {
				case tried <- address:
				default:
				}
				return nil, errors.New("enough")
			}
			near, far := net.Pipe()
			go func() {
				for buf := make([]byte, 1024); ; {
					if _, err := far.Read(buf); err != nil {
						return
					}
				}
			}()
			return near, nil
		}
		began := time.Now()
		stop := start(t, c)
		<-tried
		if took := time.Since(began); took < connectTimeout || took > connectTimeout+2*time.Second {
			t.Errorf("the next address was tried after %s, want about %s", took, connectTimeout)
		}
		stop()
	})
}
