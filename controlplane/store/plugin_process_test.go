package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// shell is a program that a shell runs.
func shell(script string) Plugin { return Plugin{Command: []string{"sh", "-c", script}} }

// A right answer of a program that has ended well counts, although a child that it
// has left behind, such as an agent that caches a login, keeps its pipes.
func TestPluginWithChild(t *testing.T) {
	file := filepath.Join(t.TempDir(), "child")
	t.Setenv("CHILD", file)
	answer, err := shell(`cat >/dev/null; sleep 600 & echo $! >"$CHILD"; echo '{"id":"a","key":"AAAA"}'`).ask(t.Context(), pluginRequest{Op: "wrap", Key: []byte("x")})
	defer func() { _ = syscall.Kill(childOf(t, file), syscall.SIGKILL) }()
	if err != nil || answer.ID != "a" {
		t.Errorf("answer %+v, %v; want that of a", answer, err)
	}
}

// At the timeout the whole group of the program is ended: a script's child too.
func TestPluginTimeoutEndsChildren(t *testing.T) {
	file := filepath.Join(t.TempDir(), "child")
	t.Setenv("CHILD", file)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := shell(`sleep 600 & echo $! >"$CHILD.new"; mv "$CHILD.new" "$CHILD"; wait`).ask(ctx, pluginRequest{Op: "wrap", Key: []byte("x")})
		ended <- err
	}()
	child := childOf(t, file)
	cancel()
	if err := <-ended; err == nil {
		t.Error("a program that was ended has answered")
	}
	for deadline := time.Now().Add(10 * time.Second); alive(child); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(child, syscall.SIGKILL)
			t.Fatalf("the child %d of the program still runs", child)
		}
	}
}

// alive says whether a process is there and has not ended.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return !errors.Is(err, os.ErrNotExist) && syscall.Kill(pid, 0) == nil
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") // one that nobody waits for
}

// childOf waits until a script has written the number of its child.
func childOf(t *testing.T, file string) int {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(file)
		if pid, convErr := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && convErr == nil {
			return pid
		}
		if time.Now().After(deadline) {
			t.Fatalf("the script has not started its child: %v", err)
		}
	}
}

// A program gets the environment, as far as it has no secrets of ours.
func TestPluginEnvironment(t *testing.T) {
	got := pluginEnvironment([]string{"PATH=/bin", "WATCHWORD_KEK=a2V5", "AWS_PROFILE=kms", "WATCHWORD_JOIN_TOKEN=wwjt_x", "WATCHWORD_KEK_REGION=eu", "HTTPS_PROXY=x"})
	if d := cmp.Diff([]string{"PATH=/bin", "AWS_PROFILE=kms", "WATCHWORD_KEK_REGION=eu", "HTTPS_PROXY=x"}, got); d != "" {
		t.Errorf("environment (-want +got):\n%s", d)
	}
	t.Setenv("WATCHWORD_KEK", "c2VjcmV0")
	_, err := shell(`printf '{"error":"%s"}' "has ${WATCHWORD_KEK:-none}"`).ask(t.Context(), pluginRequest{Op: "wrap", Key: []byte("x")})
	if err == nil || !strings.Contains(err.Error(), "has none") {
		t.Errorf("a program that is started with our key in the environment says: %v; want none", err)
	}
}
