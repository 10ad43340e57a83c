package lastgood

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/watchword-mesh/watchword/internal/atomicfile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func content(version string) Content {
	return Content{
		Service: "orders", Saved: time.Date(2027, 3, 1, 12, 0, 0, 123, time.UTC),
		Resources: []Resource{
			{TypeURL: "type.googleapis.com/a.Ruleset", Name: "orders", Version: version, Body: []byte{0, 1, 0xff}},
			{TypeURL: "type.googleapis.com/a.Lease", Name: "mesh.lease", Version: "1"},
		},
	}
}

func open(tb testing.TB) *File {
	tb.Helper()
	f, err := Open(filepath.Join(tb.TempDir(), "last"))
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

func save(tb testing.TB, f *File, c Content) {
	tb.Helper()
	if err := f.Save(c); err != nil {
		tb.Fatal(err)
	}
}

func wantContent(t *testing.T, f *File, want Content) {
	t.Helper()
	got, err := f.Load("orders")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Transformer("fields", func(r Resource) [4]string {
		return [4]string{r.TypeURL, r.Name, r.Version, string(r.Body)}
	})); diff != "" {
		t.Errorf("Load (-want +got):\n%s", diff)
	}
}

// wantNone proves that a Load has that error, and names the file.
func wantNone(t *testing.T, f *File, input string, want error) {
	t.Helper()
	got, err := f.Load("orders")
	if !errors.Is(err, want) || !strings.Contains(fmt.Sprint(err), f.path) || got.Service != "" || got.Resources != nil {
		t.Errorf("%s: Load = %v, %v; want %v and no content", input, got, err, want)
	}
}

// What was saved last is what the next process loads.
func TestSave(t *testing.T) {
	f := open(t)
	wantNone(t, f, "nothing saved", fs.ErrNotExist)
	save(t, f, content("1"))
	wantContent(t, f, content("1"))
	save(t, f, content("2"))
	again, err := Open(f.path)
	if err != nil {
		t.Fatal(err)
	}
	wantContent(t, again, content("2"))
	for range 2 {
		if err := f.Forget(); err != nil {
			t.Error(err)
		}
		wantNone(t, f, "forgotten", fs.ErrNotExist)
	}
}

// Another service's file gives nothing.
func TestOtherService(t *testing.T) {
	f := open(t)
	c := content("1")
	c.Service = "shop"
	save(t, f, c)
	wantNone(t, f, "a file of shop", ErrOtherService)
}

// A file that is cut off anywhere, or of which any byte is another, gives nothing.
func TestDamaged(t *testing.T) {
	f := open(t)
	whole, err := encode(content("1"))
	if err != nil {
		t.Fatal(err)
	}
	put := func(input string, raw []byte) {
		t.Helper()
		if err := os.WriteFile(f.path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		wantNone(t, f, input, ErrCorrupt)
	}
	for i := range whole {
		put(fmt.Sprintf("the first %d bytes", i), whole[:i])
		raw := bytes.Clone(whole)
		raw[i] ^= 1 << (i % 8)
		put(fmt.Sprintf("one bit of byte %d is another", i), raw)
	}
	put("one byte more", append(bytes.Clone(whole), '\n'))
	put("twice", append(bytes.Clone(whole), whole...))
	put("zeros", make([]byte, len(whole)))
}

// Who could have read or made the file, or put another in its place, is kept out.
func TestOthers(t *testing.T) {
	f := open(t)
	save(t, f, content("1"))
	if info, err := os.Stat(f.path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	if err := os.Chmod(f.path, 0o644); err != nil {
		t.Fatal(err)
	}
	if c, err := f.Load("orders"); err == nil || !strings.Contains(err.Error(), "mode 0644, so others may have read") || c.Service != "" {
		t.Errorf("Load of a file with mode 0644 = %v, %v", c, err)
	}
	folder := filepath.Dir(f.path)
	for mode, ok := range map[fs.FileMode]bool{0o700: true, 0o755: true, 0o770: false, 0o777: false, 0o777 | fs.ModeSticky: true} {
		if err := os.Chmod(folder, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(f.path); (err == nil) != ok {
			t.Errorf("Open in a folder with mode %v: %v; want it to work: %t", mode, err, ok)
		}
	}
	if _, err := Open(filepath.Join(folder, "missing", "last")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Open in no folder: %v", err)
	}
	if _, err := Open(filepath.Join(f.path, "last")); err == nil {
		t.Error("Open below a file worked")
	}
}

// What a killed process has left is removed at the next start.
func TestLeftOver(t *testing.T) {
	f := open(t)
	save(t, f, content("1"))
	if err := os.WriteFile(filepath.Join(filepath.Dir(f.path), ".last.tmp-42"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(f.path); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(filepath.Dir(f.path)); err != nil || len(entries) != 1 {
		t.Errorf("the folder has %v, %v; want the file alone", entries, err)
	}
	wantContent(t, f, content("1"))
}

// A save that fails, at whatever step, says so and leaves no file, old or new.
func TestSaveFails(t *testing.T) {
	full := errors.New("no space left on device")
	for name, write := range map[string]func(string, []byte) error{
		"before the rename": func(string, []byte) error { return full },
		"after the rename": func(path string, raw []byte) error {
			return errors.Join(atomicfile.Write(path, raw), full)
		},
	} {
		f := open(t)
		save(t, f, content("1"))
		f.write = write
		if err := f.Save(content("2")); !errors.Is(err, full) || errors.Is(err, ErrStale) || !strings.Contains(err.Error(), f.path) {
			t.Errorf("%s: Save = %v; want %v", name, err, full)
		}
		wantNone(t, f, name, fs.ErrNotExist)
	}
}

// Where an old file can't even be removed, the error says that it is stale.
func TestStale(t *testing.T) {
	f := open(t)
	save(t, f, content("1"))
	readOnly := errors.New("read-only file system")
	f.write = func(string, []byte) error { return readOnly }
	f.remove = func(string) error { return readOnly }
	if err := f.Save(content("2")); !errors.Is(err, ErrStale) || !errors.Is(err, readOnly) {
		t.Errorf("Save = %v; want ErrStale", err)
	}
	if err := f.Forget(); !errors.Is(err, ErrStale) || !errors.Is(err, readOnly) {
		t.Errorf("Forget = %v; want ErrStale", err)
	}
}

// What is too large to be loaded is not saved.
func TestTooLarge(t *testing.T) {
	f := open(t)
	save(t, f, content("1"))
	c := content("2")
	c.Resources[0].Body = make([]byte, maxSize*3/4)
	if err := f.Save(c); err == nil || !strings.Contains(err.Error(), "bytes, and may be") {
		t.Errorf("Save of %d bytes: %v", len(c.Resources[0].Body), err)
	}
	wantNone(t, f, "after a save that was too large", fs.ErrNotExist)
}

// A body, which may hold secrets, is not printed.
func TestNoSecrets(t *testing.T) {
	c := content("1")
	c.Resources[0].Body = []byte("hunter2")
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format, c); strings.Contains(text, "hunter2") || strings.Contains(text, fmt.Sprint(c.Resources[0].Body)) {
			t.Errorf("%s prints %s", format, text)
		}
	}
}

// Whatever is in the file: what is loaded is of the service, and saved again it is
// the same. Half of the inputs get a right checksum, to come further.
func FuzzLoad(f *testing.F) {
	whole, err := encode(content("1"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(whole, false)
	f.Add(whole[prefix:], true)
	f.Add([]byte(header), false)
	f.Add([]byte(`{"Service":"orders","Saved":"2027-03-01T12:00:00Z","Resources":[null]}`), true)
	f.Add([]byte(`{"service":"orders"}{}`), true)
	file := open(f)
	f.Fuzz(func(t *testing.T, raw []byte, sum bool) {
		if sum {
			s := checksum(raw)
			raw = bytes.Join([][]byte{[]byte(header), s[:], raw}, nil)
		}
		if err := os.WriteFile(file.path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := file.Load("orders")
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrOtherService) {
				t.Errorf("Load of %q: %v; want one of the errors that callers know", raw, err)
			}
			return
		}
		if got.Service != "orders" {
			t.Errorf("Load of %q gives service %q", raw, got.Service)
		}
		save(t, file, got)
		wantContent(t, file, got)
	})
}
