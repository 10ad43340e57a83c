package policy

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Each file of testdata/faults holds documents, and under "want" every fault
// of them: those of form, and those of meaning with the place in the documents.
func TestFaults(t *testing.T) {
	golden(t, "testdata/faults/*.txtar", func(docs []Document) string { return shown(faultsOf(docs)) })
}

// golden compares what is said of the documents in each file with what stands
// under "want" there.
func golden(t *testing.T, pattern string, of func([]Document) string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			docs, want := split(ar)
			got := of(docs)
			if *update {
				rewrite(t, file, ar, got)
				return
			}
			if diff := gocmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("-want +got (rewrite with -update):\n%s", diff)
			}
		})
	}
}

// TestWarnings proves what is said of resources that are stored all the same.
func TestWarnings(t *testing.T) {
	golden(t, "testdata/warnings/*.txtar", func(docs []Document) string {
		if faults := faultsOf(docs); len(faults) > 0 {
			t.Fatal(shown(faults))
		}
		objects, _ := Parse(docs)
		return strings.Join(Warnings(objects, stateOf(objects)), "\n") + "\n"
	})
}

// split tells the documents from what is expected of them.
func split(ar *txtar.Archive) (docs []Document, want string) {
	for _, f := range ar.Files {
		if f.Name == "want" {
			want = string(f.Data)
			continue
		}
		docs = append(docs, Document{Source: f.Name, Content: string(f.Data)})
	}
	return docs, want
}

func rewrite(t *testing.T, file string, ar *txtar.Archive, want string) {
	t.Helper()
	ar.Files = slices.DeleteFunc(ar.Files, func(f txtar.File) bool { return f.Name == "want" })
	ar.Files = append(ar.Files, txtar.File{Name: "want", Data: []byte(want)})
	if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
		t.Fatal(err)
	}
}

// faultsOf parses documents into an empty mesh and checks that. A resource that
// could not be read whole isn't checked as well.
func faultsOf(docs []Document) []Fault {
	objects, faults := Parse(docs)
	broken := map[Key]bool{}
	for _, f := range faults {
		broken[f.Key] = true
	}
	places := map[Key]*Object{}
	for _, o := range objects {
		places[o.Key] = o
	}
	for _, f := range Check(stateOf(objects)) {
		if o := places[f.Key]; !broken[f.Key] {
			f.Source, f.Line = o.Source, o.Line(f.Field)
			faults = append(faults, f)
		}
	}
	return faults
}

func stateOf(objects []*Object) State {
	s := State{}
	for _, o := range objects {
		s[o.Key] = o.Resource
	}
	return s
}

// shown is one line per fault, in the order of the documents.
func shown(faults []Fault) string {
	slices.SortStableFunc(faults, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Source, b.Source), cmp.Compare(a.Line, b.Line))
	})
	var out bytes.Buffer
	for _, f := range faults {
		fmt.Fprintf(&out, "%s:%d: %s: %s: %s\n", f.Source, f.Line, f.Key, f.Field, f.Message)
	}
	return out.String()
}
