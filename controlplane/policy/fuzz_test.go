package policy

import (
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
)

// Whatever text comes: no panic, in parsing or checking; what is read without a
// fault can be shown and read again, and is then the same but for its secrets.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/faults/*.txtar")
	if err != nil || len(files) == 0 {
		f.Fatalf("no seeds: %v", err)
	}
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		docs, _ := split(ar)
		for _, d := range docs {
			f.Add(d.Content)
		}
	}
	f.Add(service)
	f.Add(keysBomb(100))
	f.Add(service + "---\n" + jsonOf(f, withKeys(secretSet)))
	f.Fuzz(func(t *testing.T, content string) {
		objects, faults := read(content)
		Check(stateOf(objects))
		Warnings(objects, stateOf(objects))
		if len(faults) > 0 {
			return
		}
		for _, o := range objects {
			want := proto.CloneOf(o.Resource)
			redact(want)
			text := jsonOf(t, o.Resource)
			again, faults := read(text)
			if unreadable(text) {
				continue
			}
			if len(again) != 1 || len(faults) > 0 {
				t.Fatalf("Parse(%q) = %d objects, faults %q", text, len(again), shown(faults))
			}
			if diff := cmp.Diff(want, again[0].Resource, protocmp.Transform()); diff != "" {
				t.Fatalf("Parse(%q) -want +got:\n%s", text, diff)
			}
		}
	})
}

// unreadable says whether JSON holds characters that encoding/json leaves as
// they are but YAML wants escaped. `get -o yaml` escapes them.
func unreadable(text string) bool {
	for _, r := range text {
		if r == 0x7f || (r >= 0x80 && r < 0xa0 && r != 0x85) || r == 0xfeff || r == 0xfffe || r == 0xffff {
			return true
		}
	}
	return false
}
