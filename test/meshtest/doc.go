// Package meshtest puts a mesh together for tests: a control plane inside the
// test's process, real Envoys, a service behind them that tells what it saw,
// callers that keep one connection open, and issuers of their own.
//
// The zero value of each type is ready to be started. What is started stops
// with the test, and what it logged is shown only if the test failed. A helper
// that can't do its work ends the test.
package meshtest

import (
	"bytes"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Patience is how long helpers wait for another process before they give up.
const Patience = 30 * time.Second

// Eventually polls f, for what another process does in its own time, until it
// returns nil; it fails the test with the last error after Patience.
func Eventually(t testing.TB, f func() error) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Since(began) > Patience {
			t.Fatalf("not within %s: %v", Patience, err)
		}
	}
}

// FreeAddress is a FreePort with its host.
func FreeAddress(t testing.TB) string { return fmt.Sprintf("127.0.0.1:%d", FreePort(t)) }

// Root is the folder of the repository.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..")
}

// Log gathers what a process writes. It is safe for concurrent use.
type Log struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String is everything written so far.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// showLater shows the end of the log after the test, if it failed.
func (l *Log) showLater(t testing.TB, name string) {
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		lines := slices.DeleteFunc(strings.Split(strings.TrimSpace(l.String()), "\n"), chatter)
		if hidden := len(lines) - mostLines; hidden > 0 {
			lines = append([]string{fmt.Sprintf("(%d lines before)", hidden)}, lines[hidden:]...)
		}
		t.Logf("log of %s:\n%s", name, strings.Join(lines, "\n"))
	})
}

// chatter are the lines in which etcd tells how it elects itself.
func chatter(line string) bool {
	return strings.Contains(line, "[DEBUG]") && strings.Contains(line, ".etcd: ")
}

// mostLines of a log that a failed test shows.
const mostLines = 60
