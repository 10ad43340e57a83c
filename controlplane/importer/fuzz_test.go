package importer

import (
	"bytes"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Whatever file comes, every importer either says what is wrong with it, or
// gives the same resources each time, in YAML that reads back as them.
func FuzzIstio(f *testing.F)           { fuzz(f, "istio") }
func FuzzHigress(f *testing.F)         { fuzz(f, "higress") }
func FuzzKong(f *testing.F)            { fuzz(f, "kong") }
func FuzzFunctionCompute(f *testing.F) { fuzz(f, "fc") }

func fuzz(f *testing.F, name string) {
	for _, file := range goldenFiles(f) {
		ar := parseGolden(f, file)
		if r := parseCommand(f, ar); r.importer == name {
			for _, in := range r.files {
				f.Add(in.Content)
			}
		}
	}
	// Anchors, merges, and an alias of itself.
	f.Add([]byte("a: &a [*a]\n_format_version: \"3.0\"\nservices: *a\n"))
	f.Add([]byte("_format_version: \"3.0\"\nx: &x {name: jwt}\nplugins: [{<<: *x, <<: [*x, *x]}]\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		options := Options{Routes: &File{Name: "routes", Content: []byte("route-a: {paths: [/a]}")}}
		files := []File{{Name: "in", Content: content}}
		first, err := importers[name](files, options)
		again, err2 := importers[name](files, options)
		if (err == nil) != (err2 == nil) {
			t.Fatalf("the errors of two imports of %q are %v and %v", content, err, err2)
		}
		var input *InputError
		if err != nil {
			if !errors.As(err, &input) || len(input.Faults) == 0 {
				t.Fatalf("%q: %v is no InputError with faults", content, err)
			}
			return
		}
		tells(t, first, string(content))
		text := yamlOf(t, first)
		if other := yamlOf(t, again); !bytes.Equal(text, other) {
			t.Fatalf("two imports of %q differ:\n%s\n%s", content, text, other)
		}
		if !slices.ContainsFunc(first.Left, func(n Note) bool { return strings.Contains(n.Message, "apply will refuse it") }) {
			readsBack(t, strconv.Quote(string(content)), first)
		}
	})
}

// tells fails if something was left out for a reason that the import itself
// does not know.
func tells(t interface{ Fatalf(string, ...any) }, r Result, input string) {
	for _, n := range r.Left {
		if n.Message == untold {
			t.Fatalf("%s of\n%s", n, input)
		}
	}
}

func yamlOf(t *testing.T, r Result) []byte {
	t.Helper()
	text, err := r.YAML()
	if err != nil {
		t.Fatal(err)
	}
	return text
}
