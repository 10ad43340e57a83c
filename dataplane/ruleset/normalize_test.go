package ruleset

import (
	"strings"
	"testing"
)

// FuzzNormalizePath holds that what comes out is normal, and stays what it is.
func FuzzNormalizePath(f *testing.F) {
	for _, p := range []string{"/", "//", "/a/../b?c", "/%2e%2e/x", "/a%2fb", `/a\..\b`, "/..;/x", "*", "/a%zz", "/a|b", "/a/."} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, target string) {
		path, ok := NormalizePath(target)
		if !ok || path == "*" {
			return
		}
		if again, ok := NormalizePath(path); !ok || again != path {
			t.Errorf("NormalizePath(%q) = %q, and of that %q, %v", target, path, again, ok)
		}
		bare, query, _ := strings.Cut(path, "?")
		if _, want, _ := strings.Cut(target, "?"); query != want {
			t.Errorf("NormalizePath(%q) = %q: it has another query", target, path)
		}
		for _, bad := range []string{"//", "/./", "/../", "\\", "#"} {
			if strings.Contains(bare+"/", bad) && bare != "/" && !strings.HasSuffix(bare, "/") {
				t.Errorf("NormalizePath(%q) = %q, which has %q", target, path, bad)
			}
		}
		if ambiguousPath(path) && !strings.ContainsAny(bare, "%;") {
			t.Errorf("NormalizePath(%q) = %q, which the guard would refuse", target, path)
		}
	})
}
