package envoy

import (
	"testing"

	goruleset "github.com/watchword-mesh/watchword/dataplane/ruleset"
)

// The Go data plane normalises paths as a managed Envoy does, or refuses them.
func TestPathsAreNormalisedAlike(t *testing.T) {
	k := newKey(t, "a1")
	rs := ruleset(t, `{"service": "orders", "issuers": [{"name": "sts", "issuer": "https://sts.example"}],
 "routes": [{"match": {}, "authentication": {"mode": "OFF"}}]}`)
	port := runManaged(t, rs, k)
	stricter := map[string]string{
		"/a/..;/b": "it is a dot segment to some servers only",
		"//":       "Envoy leaves this one as it is; here it becomes / as all others do",
	}
	for _, p := range []string{
		"/", "/a//b", "//a", "/a/./b", "/a/../b", "/../a", "/a/..", "/a/.", "/a/...", "/a/.b", "/%61dmin", "/%41", "/a%2Fb", "/a%2fb", "/a%5Cb",
		`/a\b`, `/a\..\b`, "/a/%2e%2e/b", "/a/%2E./b", "/a/%2e/b", "/%2e%2e/%2e%2e/x", "/a;b/../c", "/a%00b", "/a%01b", "/a%7Fb", "/a%zz", "/a%", "/a%2",
		"/a%252e", "/a%7Eb", "/a~b", "/a%2Db", "/a%20b", "/a|b", "/a[b]", `/a"b`, "/a<b>", "/a^b", "/a`b", "/a{b}", "/a'b", "/a%27b", "/caf%C3%A9", "/caf\xc3\xa9",
		"/a#b", "/a?b#c", "/a?b/../c", "/a//b?c//d", "/a//../b", "/a/b//..//c", "", "a/b", "/a/..?q", "/..", "/.", "//", "/a//", "/a/%2e%2e", "/a%3Fb", "/a%23b",
		"/a%c0%afb", "/a/..;/b", "/a/.%2e/b", "/a%09b", "/a\tb", "/%7e%2d%5f", "/a%2e", "/a@b%40c", "/a:b", "/a+b%2B", "/%25%32%66", "/a///../b", "/./../.", "/a/b/../..", "/a/b/../../", "/.../..",
	} {
		code, _, seen := raw(t, port, "GET "+p+" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		got, ok := goruleset.NormalizePath(p)
		switch {
		case stricter[p] != "":
		case (seen != nil) != ok, ok && seen.URI != got:
			t.Errorf("NormalizePath(%q) = %q, %v; Envoy: status %d, %+v", p, got, ok, code, seen)
		}
	}
}
