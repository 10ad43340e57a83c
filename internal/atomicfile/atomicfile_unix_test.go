//go:build unix

package atomicfile

import (
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// The kernel takes no more bytes: Write says so, and the old content is there.
func TestNoSpace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := Write(path, []byte("old")); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(syscall.SIGXFSZ)
	defer signal.Reset(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	small := before
	small.Cur = 1 << 10
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &small); err != nil {
		t.Fatal(err)
	}
	err := Write(path, make([]byte, 2<<10))
	if undo := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); undo != nil {
		t.Fatal(undo)
	}
	if !errors.Is(err, syscall.EFBIG) {
		t.Errorf("Write of more than the kernel takes: %v; want EFBIG", err)
	}
	if got, err := Read(path, 100); err != nil || string(got) != "old" {
		t.Errorf("Read = %q, %v; want what was there", got, err)
	}
	wantFiles(t, filepath.Dir(path), "file")
}

// A pipe does not make the reader wait, and another's file or link is not followed.
func TestReadRefusesStrangers(t *testing.T) {
	folder := t.TempDir()
	pipe := filepath.Join(folder, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(pipe, 100); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("Read of a pipe: %v", err)
	}
	own := filepath.Join(folder, "own")
	if err := Write(own, []byte("x")); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(folder, "link")
	if err := os.Symlink(own, link); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(link, 100); err != nil || string(got) != "x" {
		t.Errorf("Read of an own link = %q, %v", got, err)
	}
	if os.Geteuid() != 0 {
		return // only root gives files away
	}
	for _, path := range []string{link, own} {
		if err := os.Lchown(path, 12345, -1); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path, 100); !isNotPrivate(err) || !strings.Contains(err.Error(), "another user (12345)") {
			t.Errorf("Read of another's %s: %v; want a NotPrivateError", path, err)
		}
	}
}
