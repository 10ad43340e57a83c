package store

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A key-encryption key that others can read, or that is no key, is refused.
func TestKEKFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	made, err := KEKFile(path, true)
	if err != nil {
		t.Fatal(err)
	}
	again, err := KEKFile(path, false)
	if err != nil || again.ID() != made.ID() {
		t.Fatalf("reading it back: %v", err)
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := KEKFile(path, false); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a readable key file: %v", err)
	}
}

// Several keys are one a line, the first the current one; blank lines and one that
// is there twice are nothing, and a line that is no key is not shown.
func TestParseKeyring(t *testing.T) {
	one, two := mustKEKLine(t), mustKEKLine(t)
	first, err := ParseKeyring([]byte(one))
	if err != nil {
		t.Fatal(err)
	}
	second, err := ParseKeyring([]byte(two))
	if err != nil {
		t.Fatal(err)
	}
	both, err := ParseKeyring([]byte("\n" + two + "\r\n" + one + two))
	if want := []string{second.ID(), first.ID()}; err != nil || !cmp.Equal(both.IDs(), want) {
		t.Errorf("two lines: %v, %v; want %v", both.IDs(), err, want)
	}
	if got := first.With(second).With(first).IDs(); !cmp.Equal(got, []string{first.ID(), second.ID()}) {
		t.Errorf("one with the other: %v", got)
	}
	for _, bad := range []string{"", "\n\n", "short", one + "not-base64", one[:20]} {
		if _, err := ParseKeyring([]byte(bad)); err == nil || !strings.Contains(err.Error(), "32 random bytes") || bad != "" && strings.Contains(err.Error(), strings.TrimSpace(one)[:20]) {
			t.Errorf("%q: %v, want what a key is, without the text", bad, err)
		}
	}
}

func mustKEKLine(t *testing.T) string {
	t.Helper()
	line, err := newKEKLine()
	if err != nil {
		t.Fatal(err)
	}
	return line
}

// A new key comes in front, the others go when they are no longer needed, and the
// file is one that only its owner can read all the while.
func TestAddAndDropKEKs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	if _, err := AddKEK(path); err == nil {
		t.Error("AddKEK without a file has made one: what is sealed could not be opened with it")
	}
	first, err := KEKFile(path, true)
	if err != nil {
		t.Fatal(err)
	}
	both, err := AddKEK(path)
	if err != nil || len(both.IDs()) != 2 || both.IDs()[1] != first.ID() {
		t.Fatalf("AddKEK: %v, %v; want a new one and %s", both.IDs(), err, first.ID())
	}
	if read, err := KEKFile(path, false); err != nil || !cmp.Equal(read.IDs(), both.IDs()) {
		t.Errorf("read back: %v, %v; want %v", read.IDs(), err, both.IDs())
	}
	if err := DropKEKs(path, "unknown"); err == nil || !strings.Contains(err.Error(), "unknown") {
		t.Errorf("keeping one that is not there: %v, want an error", err)
	}
	if err := DropKEKs(path, both.ID()); err != nil {
		t.Error(err)
	}
	if read, err := KEKFile(path, false); err != nil || !cmp.Equal(read.IDs(), []string{both.ID()}) {
		t.Errorf("in the end: %v, %v; want %s alone", read.IDs(), err, both.ID())
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(path), ".*"))
	info, statErr := os.Stat(path)
	if err != nil || statErr != nil || len(left) != 0 || info.Mode().Perm() != 0o600 {
		t.Errorf("left behind: %v; mode %v, %v, %v", left, info.Mode(), err, statErr)
	}
}
