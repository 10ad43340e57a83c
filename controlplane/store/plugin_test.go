package store

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hashicorp/go-hclog"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// pluginMode makes the test binary a key-encryption program. That it gets there
// shows that the environment is passed on.
const pluginMode = "WATCHWORD_TEST_PLUGIN"

func TestMain(m *testing.M) {
	if mode := os.Getenv(pluginMode); mode != "" {
		os.Exit(playPlugin(mode, os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// playPlugin wraps by turning the bytes around, with the binding in front.
func playPlugin(mode string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	var req struct {
		Op      string
		Key     []byte
		Binding string
		ID      string
	}
	if err := json.NewDecoder(stdin).Decode(&req); err != nil {
		fmt.Fprintln(stderr, err)
		return 2
	}
	text := base64.StdEncoding.EncodeToString(req.Key)
	switch mode {
	case "refuse":
		fmt.Fprintf(stdout, `{"error":"not today, %s"}`, text)
		return 1
	case "leak":
		fmt.Fprintln(stderr, "got", text)
		fmt.Fprintln(stdout, text)
		return 3
	case "silent":
		return 0
	case "hang":
		select {}
	}
	key := slices.Clone(req.Key)
	if req.Op == "unwrap" {
		rest, ok := bytes.CutPrefix(key, []byte(req.Binding))
		if !ok || req.ID != "outer-1" {
			fmt.Fprint(stdout, `{"error":"another binding"}`)
			return 0
		}
		key = slices.Clone(rest)
	}
	slices.Reverse(key)
	if req.Op == "wrap" {
		key = append([]byte(req.Binding), key...)
	}
	if mode == "forget" && req.Op == "unwrap" {
		key = make([]byte, 32)
	}
	_ = json.NewEncoder(stdout).Encode(map[string]any{"id": "outer-1", "key": key})
	return 0
}

func testPlugin(t *testing.T, mode string) Plugin {
	t.Setenv(pluginMode, mode)
	return Plugin{Command: []string{os.Args[0]}}
}

// With a plug-in the store makes one key, keeps it wrapped, and finds it again at
// the next start; a rotation makes a new one, after which the older is gone.
func TestPluginKeyring(t *testing.T) {
	p := testPlugin(t, "work")
	dir := t.TempDir()
	s := openTest(t, dir, nil)
	ring, err := s.PluginKeyring(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	s.UseKeyring(ring)
	fill(t, s, 2)
	want := mustLoad(t, s)
	_ = s.Close()

	s = openTest(t, dir, nil)
	again, err := s.PluginKeyring(t.Context(), p)
	if err != nil || !cmp.Equal(again.IDs(), ring.IDs()) {
		t.Fatalf("at the next start: %v, %v; want %v", again.IDs(), err, ring.IDs())
	}
	s.UseKeyring(again)
	sameContent(t, want, mustLoad(t, s))
	id, err := s.AddPluginKEK(t.Context(), p, entry("RotateKEK"))
	if err != nil {
		t.Fatal(err)
	}
	if got := mustListAudit(t, s, AuditQuery{}); len(got) != 1 || !cmp.Equal(got[0].Subjects, []string{"kek/" + id}) {
		t.Errorf("audit of a new key: %+v, want one entry that names it", got)
	}
	next, err := s.PluginKeyring(t.Context(), p)
	if err != nil || !cmp.Equal(next.IDs(), []string{id, ring.ID()}) {
		t.Fatalf("for a rotation: %v, %v; want a new one before %s", next.IDs(), err, ring.ID())
	}
	if err := s.RotateKEK(t.Context(), next, nil); err != nil {
		t.Fatal(err)
	}
	noTrace(t, s, ring.ID())
	last, err := s.PluginKeyring(t.Context(), p)
	if err != nil || !cmp.Equal(last.IDs(), []string{next.ID()}) {
		t.Errorf("after it: %v, %v; want %s alone", last.IDs(), err, next.ID())
	}
	// To a file, and so away from the plug-in: nothing of it stays.
	file := NewKeyring(testKEK(t)).With(last)
	if err := s.RotateKEK(t.Context(), file, nil); err != nil {
		t.Fatal(err)
	}
	if records, err := s.keks(t.Context()); err != nil || len(records) != 0 {
		t.Errorf("wrapped keys after a rotation to a file: %v, %v", records, err)
	}
	sameContent(t, want, mustLoad(t, s))
}

// A wrapped key that was moved to another name is not unwrapped, nor is one that
// the program unwraps to something else.
func TestPluginBinding(t *testing.T) {
	p := testPlugin(t, "work")
	s := openTest(t, t.TempDir(), nil)
	ring, err := s.PluginKeyring(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(pluginMode, "forget")
	if _, err := s.PluginKeyring(t.Context(), p); err == nil || !strings.Contains(err.Error(), "another key") {
		t.Errorf("a program that unwraps to another key: %v", err)
	}
	if _, err := s.AddPluginKEK(t.Context(), p, entry("RotateKEK")); err == nil {
		t.Error("a key that can't be unwrapped was stored")
	}
	t.Setenv(pluginMode, "work")
	kv, err := s.get(t.Context(), keksPrefix+ring.ID())
	if err != nil {
		t.Fatal(err)
	}
	moved := strings.ReplaceAll(string(kv.Value), ring.ID(), "0123456789ab")
	if _, err := s.client.Put(t.Context(), s.prefix+keksPrefix+"0123456789ab", moved); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PluginKeyring(t.Context(), p); err == nil || !strings.Contains(err.Error(), "another binding") {
		t.Errorf("with a record that was moved: %v, want that the program refused it", err)
	}
}

// What goes wrong in a program is told with the way to look, and without the key,
// also in the log.
func TestPluginFaults(t *testing.T) {
	key := bytes.Repeat([]byte{0xc3}, kekBytes)
	for mode, want := range map[string]string{
		"refuse": `it says "not today, [key]"`,
		"leak":   "exit status 3",
		"silent": "not one JSON object",
	} {
		var log bytes.Buffer
		p := testPlugin(t, mode)
		p.Logger = hclog.New(&hclog.LoggerOptions{Output: &log})
		_, err := p.ask(t.Context(), pluginRequest{Op: "wrap", Key: key})
		told := fmt.Sprint(err) + log.String()
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--kek-exec") {
			t.Errorf("%s: %v, want %s", mode, err, want)
		}
		if strings.Contains(told, base64.RawStdEncoding.EncodeToString(key)) {
			t.Errorf("%s: the key is in %s", mode, told)
		}
		if mode == "leak" && !strings.Contains(log.String(), "got [key]") {
			t.Errorf("the log has %s, want the line without the key", log.String())
		}
	}
	for name, p := range map[string]Plugin{"none": {}, "not there": {Command: []string{"/not/there"}}} {
		if _, err := p.ask(t.Context(), pluginRequest{Op: "wrap", Key: key}); err == nil {
			t.Errorf("program %s: no error", name)
		}
	}
}

// A program that does not end is ended, and with it the wait.
func TestPluginHangs(t *testing.T) {
	p := testPlugin(t, "hang")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := p.ask(ctx, pluginRequest{Op: "wrap", Key: []byte{1}})
	if !strings.Contains(fmt.Sprint(err), "did not end") || errors.Is(t.Context().Err(), context.Canceled) {
		t.Errorf("a program that does not end: %v", err)
	}
}

// What a program answers is bytes from outside: whatever they are, they give a
// key or an error that doesn't show them.
func FuzzPluginAnswer(f *testing.F) {
	f.Add([]byte(`{"id":"a","key":"AAAA"}`))
	f.Add([]byte(`{"error":"x"}`))
	f.Add([]byte(`{"id":1}`))
	f.Fuzz(func(t *testing.T, stdout []byte) {
		answer, err := readAnswer(stdout, nil, hider())
		if err == nil && (answer.ID == "" || len(answer.Key) == 0) {
			t.Errorf("%q: %+v without an error", stdout, answer)
		}
		if err != nil && len(stdout) >= 44 && strings.Contains(err.Error(), string(stdout)) {
			t.Errorf("%q is shown in %v", stdout, err)
		}
	})
}

// The store without a key-encryption key says so, and writes nothing in clear.
func TestNoKEK(t *testing.T) {
	s := openTest(t, t.TempDir(), nil)
	if _, _, err := s.Init(t.Context(), builtin()); !errors.Is(err, errNoKEK) {
		t.Errorf("Init: %v, want errNoKEK", err)
	}
	if _, err := s.Commit(t.Context(), 1, Change{Put: []*policyv1.Resource{shared("x", "c2VjcmV0")}}); !errors.Is(err, errNoKEK) {
		t.Errorf("Commit: %v, want errNoKEK", err)
	}
}
