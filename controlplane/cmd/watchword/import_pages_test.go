package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	pageExample = regexp.MustCompile("(?s)```sh\n(cat > .*?)```\n")
	pageFile    = regexp.MustCompile(`(?ms)^cat > (\S+) <<'YAML'\n(.*?)^YAML\n`)
	pageImport  = regexp.MustCompile(`(?m)^watchword (import .*) > mesh\.yaml$`)
	pageText    = regexp.MustCompile("(?s)```text\n.*?```\n")
	pageYAML    = regexp.MustCompile("(?s)```yaml\n.*?```\n")
)

// The example of each page about moving to Watchword does what stands there.
// With -update it is written there.
func TestMigrationPages(t *testing.T) {
	pages, err := filepath.Glob("../../../docs/migrate/*.md")
	if err != nil || len(pages) != 4 {
		t.Fatalf("pages: %q, %v; want four", pages, err)
	}
	for _, page := range pages {
		t.Run(filepath.Base(page), func(t *testing.T) {
			text, err := os.ReadFile(page)
			if err != nil {
				t.Fatal(err)
			}
			want := withExample(t, string(text))
			if *update {
				if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.Split(string(text), "\n"), strings.Split(want, "\n")); diff != "" {
				t.Errorf("the page -has +should have (rewrite with -update):\n%s", diff)
			}
		})
	}
}

// withExample returns the page with what its example prints.
func withExample(t *testing.T, page string) string {
	t.Helper()
	example := pageExample.FindStringSubmatch(page)
	if example == nil {
		t.Fatal("the page has no example")
	}
	dir := t.TempDir()
	for _, f := range pageFile.FindAllStringSubmatch(example[1], -1) {
		if err := os.WriteFile(filepath.Join(dir, f[1]), []byte(f[2]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command := pageImport.FindStringSubmatch(example[1])
	if command == nil {
		t.Fatalf("no import in the example:\n%s", example[1])
	}
	stdout, stderr := inFolder(t, dir, strings.Fields(command[1]))
	page = pageText.ReplaceAllLiteralString(page, "```text\n"+stderr+"```\n")
	return pageYAML.ReplaceAllLiteralString(page, "```yaml\n"+stdout+"```\n")
}

// inFolder runs a command that reads the files of a folder.
func inFolder(t *testing.T, dir string, args []string) (stdout, stderr string) {
	t.Helper()
	for i, a := range args {
		if _, err := os.Stat(filepath.Join(dir, a)); err == nil {
			args[i] = filepath.Join(dir, a)
		}
	}
	var out, errs bytes.Buffer
	p := newProgram()
	p.root.SetOut(&out)
	p.root.SetErr(&errs)
	if code := p.execute(t.Context(), args); code != exitOK && code != exitRefused {
		t.Fatalf("%q: exit code %d:\n%s", args, code, &errs)
	}
	return out.String(), strings.ReplaceAll(errs.String(), dir+string(filepath.Separator), "")
}
