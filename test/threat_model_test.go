package test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every test that the threat model names is there: a row whose test was renamed or
// removed claims what nobody shows.
func TestThreatModelNamesTests(t *testing.T) {
	const page = "../docs/threat-model.md"
	named := regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`").FindAllStringSubmatch(pages(t)[page], -1)
	if len(named) < 40 {
		t.Errorf("%s names only %d tests; has their form changed?", page, len(named))
	}
	known := testNames(t)
	for _, m := range named {
		if !known[m[1]] {
			t.Errorf("%s names %s, which no package has", page, m[1])
		}
	}
}

// testNames are those of all tests and fuzz targets of this module.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)[A-Z]\w*)\(\w+ \*testing\.[TF]\)`)
	names := map[string]bool{}
	err := filepath.WalkDir("..", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && file != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "node_modules"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(file, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(file)
		for _, m := range declared.FindAllStringSubmatch(string(text), -1) {
			names[m[1]] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
