package meshtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
)

// Ports are given out in blocks. Who listens on the first port of a block has the
// rest of it: other tests run at the same time, and a port that was free a moment
// ago must still be so when a process gets around to taking it. For the same reason
// all are below the ports that Linux gives to outgoing connections.
const (
	firstPort, lastPort = 12000, 21600
	blockSize           = 50
)

// block is where this process takes its next port.
var block struct {
	mu        sync.Mutex
	next, end int
	claims    []net.Listener // open as long as the process lives
}

// FreePort is a port of loopback that nobody listens on, and that no other test gets.
func FreePort(t testing.TB) int {
	t.Helper()
	block.mu.Lock()
	defer block.mu.Unlock()
	for {
		if block.next == block.end && !claim() {
			t.Fatalf("no free port between %d and %d", firstPort, lastPort)
		}
		port := block.next
		block.next++
		if l, err := listen(port); err == nil {
			_ = l.Close()
			return port
		}
	}
}

// claim takes a block that nobody has, if there is one.
func claim() bool {
	const blocks = (lastPort - firstPort) / blockSize
	for _, i := range rand.Perm(blocks) {
		start := firstPort + i*blockSize
		if l, err := listen(start); err == nil {
			block.claims = append(block.claims, l)
			block.next, block.end = start+1, start+blockSize
			return true
		}
	}
	return false
}

func listen(port int) (net.Listener, error) {
	return net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
}
