package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// The page about the sidecar has a row for every flag, with its default where it has
// one.
func TestSidecarPage(t *testing.T) {
	const page = "../../../docs/protect-anything-else.md"
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	newCommand().Flags().VisitAll(func(f *pflag.Flag) {
		row := fmt.Sprintf("\n| `--%s` | ", f.Name)
		at := strings.Index(string(text), row)
		if at < 0 {
			t.Errorf("%s has no row that begins with %q", page, strings.TrimSpace(row))
			return
		}
		given, _, _ := strings.Cut(string(text)[at+len(row):], " | ")
		if want := written(f); want != "" && given != "`"+want+"`" {
			t.Errorf("%s: the default of --%s is %s, want %q", page, f.Name, given, want)
		}
	})
}

// written is a default as people write it; empty for those that the page describes.
func written(f *pflag.Flag) string {
	value := strings.Trim(f.DefValue, "[]")
	if f.Value.Type() == "bool" {
		return ""
	}
	return value
}
