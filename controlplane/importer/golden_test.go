package importer

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Each file of testdata holds what is imported, in "command" what a user would
// write, and what then comes out: resources, notes, exit code.
func TestGolden(t *testing.T) {
	for _, file := range goldenFiles(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			ar := parseGolden(t, file)
			got := perform(t, ar)
			if *update {
				rewrite(t, file, ar, got)
				return
			}
			for _, f := range got {
				if diff := cmp.Diff(strings.Split(content(ar, f.Name), "\n"), strings.Split(string(f.Data), "\n")); diff != "" {
					t.Errorf("%s -want +got (rewrite with -update):\n%s", f.Name, diff)
				}
			}
		})
	}
}

func goldenFiles(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	return files
}

func parseGolden(t testing.TB, file string) *txtar.Archive {
	t.Helper()
	ar, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return ar
}

func content(ar *txtar.Archive, name string) string {
	for _, f := range ar.Files {
		if f.Name == name {
			return string(f.Data)
		}
	}
	return ""
}

var outputs = []string{"stdout", "stderr", "exit"}

func rewrite(t *testing.T, file string, ar *txtar.Archive, got []txtar.File) {
	t.Helper()
	ar.Files = slices.DeleteFunc(ar.Files, func(f txtar.File) bool { return slices.Contains(outputs, f.Name) })
	ar.Files = append(ar.Files, got...)
	if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
		t.Fatal(err)
	}
}

var importers = map[string]func([]File, Options) (Result, error){
	"istio": Istio, "higress": Higress, "kong": Kong, "fc": FunctionCompute,
}

// request is a command line, taken apart.
type request struct {
	importer string
	files    []File
	options  Options
}

func parseCommand(t testing.TB, ar *txtar.Archive) request {
	t.Helper()
	words := strings.Fields(content(ar, "command"))
	if len(words) == 0 || importers[words[0]] == nil {
		t.Fatalf("the command %q names no importer", words)
	}
	r := request{importer: words[0]}
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Func("service", "", func(s string) error {
		name, labels, workload := strings.Cut(s, "=")
		if r.options.Gateway = name; !workload {
			return nil
		}
		w := Workload{Service: name, Labels: map[string]string{}}
		for pair := range strings.SplitSeq(labels, ",") {
			k, v, _ := strings.Cut(pair, "=")
			w.Labels[k] = v
		}
		r.options.Workloads = append(r.options.Workloads, w)
		return nil
	})
	fs.StringVar(&r.options.Namespace, "namespace", "", "")
	fs.Func("allow-network", "", func(s string) error {
		r.options.AllowNetworks = append(r.options.AllowNetworks, s)
		return nil
	})
	fs.Func("routes", "", func(s string) error {
		r.options.Routes = &File{Name: s, Content: []byte(content(ar, s))}
		return nil
	})
	emit := fs.Bool("emit-services", true, "")
	if err := fs.Parse(words[1:]); err != nil {
		t.Fatalf("the command %q: %v", words, err)
	}
	r.options.OmitServices = !*emit
	for _, name := range fs.Args() {
		r.files = append(r.files, File{Name: name, Content: []byte(content(ar, name))})
	}
	return r
}

// perform does what the command does, apart from its last line of errors.
func perform(t testing.TB, ar *txtar.Archive) []txtar.File {
	t.Helper()
	r := parseCommand(t, ar)
	result, err := importers[r.importer](r.files, r.options)
	var input *InputError
	if errors.As(err, &input) {
		return output("", input.Error()+"\n", 2)
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := result.YAML()
	if err != nil {
		t.Fatal(err)
	}
	var notes strings.Builder
	for _, n := range result.Warnings {
		fmt.Fprintln(&notes, n.As("warning"))
	}
	for _, n := range result.Left {
		fmt.Fprintln(&notes, n.As("left"))
	}
	exit := 0
	if len(result.Left) > 0 {
		exit = 3
	}
	return output(string(text), notes.String(), exit)
}

func output(stdout, stderr string, exit int) []txtar.File {
	return []txtar.File{
		{Name: outputs[0], Data: []byte(stdout)},
		{Name: outputs[1], Data: []byte(stderr)},
		{Name: outputs[2], Data: fmt.Appendf(nil, "%d\n", exit)},
	}
}
