package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Every Go program in the documents compiles as it stands there.
func TestProgramsInDocuments(t *testing.T) {
	found := 0
	for file, text := range pages(t) {
		for _, m := range regexp.MustCompile("(?ms)^```go\n(package main\n.*?)^```").FindAllStringSubmatch(text, -1) {
			found++
			program := filepath.Join(t.TempDir(), "main.go")
			if err := os.WriteFile(program, []byte(m[1]), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command("go", "vet", program).CombinedOutput(); err != nil {
				t.Errorf("a program in %s: %v\n%s", file, err, strings.ReplaceAll(string(out), program, "main.go"))
			}
		}
	}
	if found < 2 {
		t.Errorf("only %d programs were found; has their form changed?", found)
	}
}
