package api

import (
	"strings"
	"testing"
)

// What a caller has written gets into the audit shortened, and never with half a
// character.
func TestClip(t *testing.T) {
	for text, want := range map[string]string{
		"short":                        "short",
		strings.Repeat("x", 256):       strings.Repeat("x", 256),
		strings.Repeat("x", 257):       strings.Repeat("x", 256) + "...",
		"x" + strings.Repeat("é", 200): "x" + strings.Repeat("é", 127) + "...",
	} {
		if got := clip(text); got != want {
			t.Errorf("clip(%q) = %q, want %q", text, got, want)
		}
	}
}
