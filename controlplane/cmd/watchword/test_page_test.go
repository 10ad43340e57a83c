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
	testPageBlock   = regexp.MustCompile("(?s)```(sh|text|yaml)\n(.*?)```\n")
	testPageCommand = regexp.MustCompile(`(?m)^watchword (test .*)$`)
)

// The examples of the page about testing policies do what stands there. With
// -update that is written there.
func TestTestingPage(t *testing.T) {
	page, err := filepath.Abs("../../../docs/testing-policies.md")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	printed := ""
	want := testPageBlock.ReplaceAllStringFunc(string(text), func(block string) string {
		switch m := testPageBlock.FindStringSubmatch(block); m[1] {
		case "sh":
			writeFiles(t, m[2])
			printed = runTests(t, strings.Fields(testPageCommand.FindStringSubmatch(m[2])[1]))
		case "text":
			return "```text\n" + printed + "```\n"
		case "yaml":
			writeFiles(t, "cat > more.yaml <<'YAML'\n"+m[2]+"YAML\n")
			if out := runTests(t, []string{"test", "more.yaml"}); !strings.Contains(out, " 0 failed") {
				t.Errorf("an example does not pass:\n%s%s", m[2], out)
			}
		}
		return block
	})
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(strings.Split(string(text), "\n"), strings.Split(want, "\n")); diff != "" {
		t.Errorf("the page -has +should have (rewrite with -update):\n%s", diff)
	}
}

func writeFiles(t *testing.T, script string) {
	t.Helper()
	for _, f := range pageFile.FindAllStringSubmatch(script, -1) {
		if err := os.MkdirAll(filepath.Dir(f[1]), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f[1], []byte(f[2]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func runTests(t *testing.T, args []string) string {
	t.Helper()
	var out, errs bytes.Buffer
	p := newProgram()
	p.root.SetOut(&out)
	p.root.SetErr(&errs)
	if code := p.execute(t.Context(), args); code != exitOK && code != exitFailed || errs.Len() > 0 {
		t.Fatalf("%q: exit code %d:\n%s", args, code, &errs)
	}
	return out.String()
}
