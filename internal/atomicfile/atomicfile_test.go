package atomicfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What is written is what is read, with mode 0600, with nothing beside it; a
// removal leaves nothing, and may be repeated.
func TestWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, content := range []string{"one", "", strings.Repeat("two", 1000)} {
		if err := Write(path, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(path, 3000); err != nil || string(got) != content {
			t.Errorf("Read = %q, %v; want %q", got, err, content)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	wantFiles(t, filepath.Dir(path), "file")
	for range 2 {
		if err := Remove(path); err != nil {
			t.Errorf("Remove: %v", err)
		}
	}
	wantFiles(t, filepath.Dir(path))
	if _, err := Read(path, 3000); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read of nothing: %v; want fs.ErrNotExist", err)
	}
}

// A write that fails leaves what was there, and nothing beside it.
func TestWriteFails(t *testing.T) {
	if err := Write(filepath.Join(t.TempDir(), "missing", "file"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Write in no folder: %v; want fs.ErrNotExist", err)
	}
	folder := t.TempDir()
	if err := os.MkdirAll(filepath.Join(folder, "file", "full"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(folder, "file"), []byte("x")); err == nil {
		t.Error("Write over a folder worked")
	}
	wantFiles(t, folder, "file")
}

// Clean removes what is left of writes of this file, and nothing else.
func TestClean(t *testing.T) {
	folder := t.TempDir()
	for _, name := range []string{"a", ".a.tmp-123", ".a.tmp-4", ".ab.tmp-1", "a.tmp-1", ".a"} {
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := Clean(filepath.Join(folder, "a")); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, folder, ".a", ".ab.tmp-1", "a", "a.tmp-1")
}

// What others may have read, or what is no small file, is not read.
func TestReadRefuses(t *testing.T) {
	folder := t.TempDir()
	path := filepath.Join(folder, "file")
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 11), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path, 10); err == nil || !strings.Contains(err.Error(), "larger than 10 bytes") {
		t.Errorf("Read of 11 bytes: %v", err)
	}
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o644} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path, 100); !isNotPrivate(err) || !strings.Contains(err.Error(), path+" has mode") {
			t.Errorf("Read with mode %#o: %v; want a NotPrivateError", mode, err)
		}
	}
	if _, err := Read(folder, 100); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("Read of a folder: %v", err)
	}
}

func wantFiles(t *testing.T, folder string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the folder has %q, want %q", got, want)
	}
}

func isNotPrivate(err error) bool {
	_, ok := errors.AsType[*NotPrivateError](err)
	return ok
}
