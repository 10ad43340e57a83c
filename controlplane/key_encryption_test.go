package controlplane

import (
	"context"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/controlplane/api"
	"github.com/watchword-mesh/watchword/controlplane/audit"
	"github.com/watchword-mesh/watchword/controlplane/store"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// openKEK is the key of a data folder on which a first start has been.
func openKEK(t *testing.T, c Config) *keyEncryption {
	t.Helper()
	if c.DataDir == "" {
		c.DataDir = t.TempDir()
	}
	s, err := store.Open(t.Context(), store.Config{DataDir: c.DataDir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	r := &replica{Config: c.withDefaults(), store: s}
	ring, err := r.openKeyring(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	s.UseKeyring(ring)
	if _, _, err := s.Init(t.Context(), store.Setup{Issuer: builtinIssuer("https://x.example", "example.org")}); err != nil {
		t.Fatal(err)
	}
	return newKeyEncryption(s, c)
}

var byRoot = audit.Entry{Method: "RotateKEK", Actor: "unix:root", Outcome: audit.Done}

func heard(*adminv1.RotateKEKResponse) error { return nil }

// auditOf are the outcomes and subjects of the audit, the oldest first, with names of keys as K.
func auditOf(t *testing.T, k *keyEncryption) []string {
	t.Helper()
	entries, _, err := k.store.ListAudit(t.Context(), store.AuditQuery{})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range slices.Backward(entries) {
		var words []string
		for _, word := range strings.Fields(strings.Join(e.Subjects, ", ")) {
			if name := strings.TrimPrefix(strings.Trim(word, ","), "kek/"); len(name) == 12 && strings.Trim(name, "0123456789abcdef") == "" {
				word = strings.ReplaceAll(word, name, "K")
			}
			words = append(words, word)
		}
		out = append(out, string(e.Outcome)+": "+strings.Join(words, " "))
	}
	return out
}

const (
	beganText = "done: began to replace the key-encryption key K, kek/K"
	endedText = "done: sealed everything with another key-encryption key, kek/K"
)

func wantAudit(t *testing.T, k *keyEncryption, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, auditOf(t, k)); d != "" {
		t.Errorf("audit (-want +got):\n%s", d)
	}
}

// wantHeld wants everything to be sealed with one key, and the file to hold it alone.
func wantHeld(t *testing.T, k *keyEncryption) {
	t.Helper()
	sealed, err := k.store.SealedWith(t.Context())
	if err != nil || len(sealed) != 1 {
		t.Errorf("sealed with %v, %v; want one key", sealed, err)
	}
	file, err := store.KEKFile(k.path(), false)
	if err != nil {
		t.Fatal(err)
	}
	for id := range sealed {
		if !cmp.Equal(file.IDs(), []string{id}) {
			t.Errorf("the file has %v, everything is sealed with %s", file.IDs(), id)
		}
	}
}

// However many ask at once, one rotation runs, the others are told so, and the file
// ends with the one key that everything is sealed with.
func TestRotationsAtOnce(t *testing.T) {
	k := openKEK(t, Config{})
	for try := range 10 {
		var all sync.WaitGroup
		errs := make([]error, 3)
		for i := range errs {
			all.Go(func() { errs[i] = k.RotateKEK(t.Context(), byRoot, heard) })
		}
		all.Wait()
		done := 0
		for _, err := range errs {
			var first api.Precondition
			switch {
			case err == nil:
				done++
			case !errors.As(err, &first) || !strings.Contains(err.Error(), "rotated already"):
				t.Errorf("try %d: %v; want that another runs", try, err)
			}
		}
		if done == 0 {
			t.Errorf("try %d: none of three has rotated", try)
		}
		if wantHeld(t, k); t.Failed() {
			return
		}
	}
}

// A second one in the middle of a first is refused, makes no key, and writes down
// nothing itself; the first one is in the audit with its begin and its end.
func TestRotationInTheMiddle(t *testing.T) {
	k := openKEK(t, Config{})
	asked := 0
	err := k.RotateKEK(t.Context(), byRoot, func(r *adminv1.RotateKEKResponse) error {
		if asked++; r.GetFinished() {
			return nil
		}
		var first api.Precondition
		if err := k.RotateKEK(t.Context(), byRoot, heard); !errors.As(err, &first) {
			t.Errorf("in the middle: %v, want a precondition", err)
		}
		return nil
	})
	if err != nil || asked != 2 {
		t.Errorf("the first: %v, %d reports; want 2", err, asked)
	}
	wantHeld(t, k)
	wantAudit(t, k, beganText, endedText)
}

// A rotation goes on when who asked for it is gone, and ends with the replica; the
// audit says so, and a later one goes on.
func TestRotationOutlivesItsCaller(t *testing.T) {
	k := openKEK(t, Config{})
	ctx, leave := context.WithCancel(t.Context())
	leave()
	if err := k.RotateKEK(ctx, byRoot, heard); err != nil {
		t.Errorf("of a caller that is gone: %v", err)
	}
	wantHeld(t, k)
	wantAudit(t, k, beganText, endedText)
	k.end()
	if err := k.RotateKEK(t.Context(), byRoot, heard); err == nil {
		t.Error("a replica that stops has rotated")
	}
	if _, err := store.KEKFile(k.path(), false); err != nil {
		t.Error(err)
	}
	again := newKeyEncryption(k.store, k.config)
	if err := again.RotateKEK(t.Context(), byRoot, heard); err != nil {
		t.Errorf("after it: %v", err)
	}
	wantHeld(t, k)
	again.close()
	if err := again.RotateKEK(t.Context(), byRoot, heard); err == nil {
		t.Error("a replica that has stopped has rotated")
	}
}

// One that breaks off on the way says so in the audit.
func TestRotationBreaksOff(t *testing.T) {
	k := openKEK(t, Config{})
	file, err := os.ReadFile(k.path())
	if err != nil {
		t.Fatal(err)
	}
	err = k.RotateKEK(t.Context(), byRoot, func(*adminv1.RotateKEKResponse) error {
		// Somebody takes the new key away: the file must stay as it is.
		return os.WriteFile(k.path(), file, 0o600)
	})
	if err == nil || !strings.Contains(err.Error(), "put it back before the next start") {
		t.Errorf("a file without the key that everything is sealed with: %v", err)
	}
	if got, _ := os.ReadFile(k.path()); string(got) != string(file) {
		t.Errorf("the file was written: %s", got)
	}
	got := auditOf(t, k)
	if len(got) != 2 || got[0] != beganText || !strings.Contains(got[1], "broke off after 1 of 1 records") {
		t.Errorf("audit: %v, want that it has begun and broke off", got)
	}
	// Another one adds nothing to a file that can't open what there is.
	if err := k.RotateKEK(t.Context(), byRoot, heard); err == nil || !strings.Contains(err.Error(), "put it back from a copy") {
		t.Errorf("with a file that lacks the key: %v; want that it has to be put back", err)
	}
	if got, _ := os.ReadFile(k.path()); string(got) != string(file) {
		t.Errorf("the file was written: %s", got)
	}
}

// From a file or the environment nothing happens before the new key is there: the
// answer names what to do. Then it rotates.
func TestRotationNeedsANewKey(t *testing.T) {
	line := func(b string) string { return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(b, 32))) + "\n" }
	path := filepath.Join(t.TempDir(), "kek")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(line("a"))
	for source, c := range map[string]Config{path: {KEKFile: path}, "WATCHWORD_KEK": {KEK: line("a")}} {
		k := openKEK(t, c)
		err := k.RotateKEK(t.Context(), byRoot, heard)
		var first api.Precondition
		if !errors.As(err, &first) || !strings.Contains(err.Error(), source) || !strings.Contains(err.Error(), "in front") {
			t.Errorf("with the same key in %s: %v; want what to do", source, err)
		}
		wantAudit(t, k)
		if source != path {
			continue
		}
		write(line("b") + line("a"))
		if err := k.RotateKEK(t.Context(), byRoot, heard); err != nil {
			t.Errorf("with a new key in front: %v", err)
		}
		wantAudit(t, k, beganText, endedText)
	}
}

// plugin is a program that answers with what it was given: "key" is the only text in
// base64.
func plugin(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "wrap")
	script := `#!/bin/sh
sed 's/.*"key":"\([^"]*\)".*/{"id":"outer","key":"\1"}/'
`
	if err := os.WriteFile(program, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	return program
}

// With a program there is one entry for the begin, too, and one for the end.
func TestRotationByProgram(t *testing.T) {
	k := openKEK(t, Config{KEKExec: plugin(t)})
	before := k.store.Keyring().ID()
	if err := k.RotateKEK(t.Context(), byRoot, heard); err != nil {
		t.Fatal(err)
	}
	sealed, err := k.store.SealedWith(t.Context())
	if err != nil || len(sealed) != 1 || sealed[before] != 0 {
		t.Errorf("sealed with %v, %v; want one other than %s", sealed, err, before)
	}
	wantAudit(t, k, beganText, endedText)
}

// A key in a file gives way to a program: the file opens what there is until
// everything is sealed by the program's key, and is of no use then.
func TestFromFileToProgram(t *testing.T) {
	k := openKEK(t, Config{})
	dir := k.config.DataDir
	program := plugin(t)
	for _, step := range []struct {
		what   string
		rotate bool
	}{{"file and program", true}, {"program alone", false}} {
		r := &replica{Config: Config{DataDir: dir, KEKExec: program}.withDefaults(), store: k.store}
		ring, err := r.openKeyring(t.Context(), false)
		if err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		k.store.UseKeyring(ring)
		if _, _, err := k.store.Init(t.Context(), store.Setup{}); err != nil {
			t.Fatalf("%s: %v", step.what, err)
		}
		if !step.rotate {
			break
		}
		if err := newKeyEncryption(k.store, r.Config).RotateKEK(t.Context(), byRoot, heard); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(dir, "kek")); err != nil {
			t.Fatal(err)
		}
	}
}
