package ruleset

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The patterns that Envoy is given for the same questions, by controlplane/envoy.
// They are copied here, since a data plane does not know the control plane.
const (
	envoyAmbiguousPath = `(?i)(?:` +
		`[^/*].*|\*.+|` +
		`[^?]*(?:` +
		`[\\#;]|//|/\.\.?(?:[/?].*|$)|` +
		`%(?:2[def]|3[0-9b]|4[1-9a-f]|5[0-9acf]|6[1-9a-f]|7[0-9ae]|7f|[01][0-9a-f]|c[01]|25(?:2[ef]|5c)|[^0-9a-f].*|.[^0-9a-f].*|.?$)` +
		`).*)`
	envoyPlainAuthority = `(?i)(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?`
)

func full(re string) *regexp.Regexp { return regexp.MustCompile(`^(?:` + re + `)$`) }

func envoyHost(host string) string {
	re := regexp.QuoteMeta(host)
	if rest, ok := strings.CutPrefix(host, "*."); ok {
		re = `[^:]+\.` + regexp.QuoteMeta(rest)
	}
	return `(?i)` + re + `\.?(?::.*)?`
}

func envoyPath(path string) string {
	path, prefix := strings.CutSuffix(path, "*")
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' && i+2 < len(path) {
			if v, err := strconv.ParseUint(path[i+1:i+3], 16, 8); err == nil {
				c, i = byte(v), i+2
			}
		}
		switch {
		case c == '/' || unreserved(c):
			b.WriteString(regexp.QuoteMeta(string(rune(c))))
		case c > ' ' && c < 0x7f && c != '%' && c != '?' && c != '#':
			fmt.Fprintf(&b, `(?:%s|(?i:%%%02x))`, regexp.QuoteMeta(string(rune(c))), c)
		default:
			fmt.Fprintf(&b, `(?i:%%%02x)`, c)
		}
	}
	if prefix {
		b.WriteString(".*")
	}
	return b.String()
}

// texts draws strings of pieces, so that they come near the patterns.
func texts(pieces ...string) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(rapid.SampledFrom(pieces), 0, 8).Draw(t, "pieces"), "")
	})
}

var pathPieces = []string{
	"/", "/", "a", "B", "z", "Z", ".", "..", "%", "%2", "%2e", "%2F", "%2d", "%3a", "%3B", "%3f", "%40", "%41", "%5c", "%5A", "%5b", "%5F", "%61",
	"%7b", "%7E", "%7f", "%00", "%1f", "%20", "%25", "%252e", "%252F", "%255C", "%2541", "%c0", "%C1", "%c3%a9", "%zz", "%e", "\\", "#", "?", "*", ";", ":", "@", "+", "~", "_", "-", "é", "(", "[", "|", "25", "2e", "%%",
}

// The guard and the matches are those of Envoy's regular expressions, in all that
// is UTF-8: bytes that are not, Go's and Envoy's read differently.
func TestMatchesAsEnvoy(t *testing.T) {
	ambiguous, plain := full(envoyAmbiguousPath), full(envoyPlainAuthority)
	t.Run("ambiguous path", rapid.MakeCheck(func(t *rapid.T) {
		path := rapid.SampledFrom([]string{"", "/"}).Draw(t, "begin") + texts(pathPieces...).Draw(t, "path")
		if got, want := ambiguousPath(path), ambiguous.MatchString(path); got != want {
			t.Fatalf("ambiguousPath(%q) = %v, want %v", path, got, want)
		}
	}))
	t.Run("path", rapid.MakeCheck(func(t *rapid.T) {
		pattern := "/" + texts(pathPieces...).Draw(t, "pattern")
		path := texts(pathPieces...).Draw(t, "path")
		if rapid.Bool().Draw(t, "near") {
			path = respell(t, pattern) + path
		}
		path, _, _ = strings.Cut(path, "?")
		if got, want := newPathPattern(pattern).matches(path), full(envoyPath(pattern)).MatchString(path); got != want {
			t.Fatalf("pattern %q matches %q = %v, want %v", pattern, path, got, want)
		}
	}))
	hosts := texts("a", "B", "-", ".", ".", "example", "com", ":", ":80", ":", "*", "*.", "1", "[", "]", "[::1]", "@", ",", "%2e", " ")
	t.Run("authority", rapid.MakeCheck(func(t *rapid.T) {
		s := hosts.Draw(t, "authority")
		if got, want := plainAuthority(s), plain.MatchString(s); got != want {
			t.Fatalf("plainAuthority(%q) = %v, want %v", s, got, want)
		}
	}))
	t.Run("host", rapid.MakeCheck(func(t *rapid.T) {
		pattern, s := hosts.Draw(t, "pattern"), hosts.Draw(t, "authority")
		if rapid.Bool().Draw(t, "near") {
			s = rapid.SampledFrom([]string{"", "x", "x.y", "x:"}).Draw(t, "before") + strings.ToUpper(strings.TrimPrefix(pattern, "*")) + rapid.SampledFrom([]string{"", ".", ":80", ".:80", "..", "x"}).Draw(t, "after")
		}
		if got, want := newHostPattern(pattern).matches(s), full(envoyHost(pattern)).MatchString(s); got != want {
			t.Fatalf("host %q matches %q = %v, want %v", pattern, s, got, want)
		}
	}))
}

// respell escapes some characters of a path, or does not.
func respell(t *rapid.T, path string) string {
	var b strings.Builder
	for path = strings.TrimSuffix(path, "*"); path != ""; {
		c, n := pathByte(path)
		if rapid.Bool().Draw(t, "escape") {
			fmt.Fprintf(&b, "%%%02x", c)
		} else {
			b.WriteString(path[:n])
		}
		path = path[n:]
	}
	return b.String()
}

// Letters that are not ASCII's fold to none of a host: Envoy's expressions take
// them for one, so they end here.
func TestHostLetters(t *testing.T) {
	for _, s := range []string{"ſts.example", "\u212Aong.example", "é.example", "a.example\xff"} {
		if plainAuthority(s) {
			t.Errorf("plainAuthority(%q) = true", s)
		}
	}
}

// Which route and guard a request meets.
func TestRoutes(t *testing.T) {
	route := func(name, match string) string {
		return fmt.Sprintf(`{"name": %q, "match": {%s}, "authentication": {"mode": "OFF"}}`, name, match)
	}
	rs := ready(t, service(strings.Join([]string{
		route("admin", `"hosts": ["admin.example", "*.int.example"], "methods": ["GET", "HEAD"]`),
		route("purge", `"paths": ["/users/@me/*", "/v1/users:purge"], "notMethods": ["GET"]`),
		route("not", `"paths": ["/api/*"], "notPaths": ["/api/open", "/api/open/*"], "notHosts": ["test.example"]`),
		route("", ``),
	}, ",")))
	for _, tt := range []struct{ method, authority, path, want string }{
		{"GET", "admin.example", "/", "admin"},
		{"GET", "ADMIN.Example.:8080", "/", "admin"},
		{"POST", "admin.example", "/", ""},
		{"get", "admin.example", "/", ""},
		{"GET", "a.b.int.example", "/", "admin"},
		{"GET", "int.example", "/", ""},
		{"GET", ".int.example", "/", ""},
		{"POST", "x", "/users/%40me/a?b", "purge"},
		{"POST", "x", "/users/@me/", "purge"},
		{"POST", "x", "/users/@me", ""},
		{"GET", "x", "/users/@me/", ""},
		{"POST", "x", "/v1/users%3Apurge", "purge"},
		{"GET", "x", "/api/secret", "not"},
		{"GET", "x", "/api/open/", ""},
		{"GET", "x", "/api/open", ""},
		{"GET", "x", "/api/opener", "not"},
		{"GET", "TEST.example:1", "/api/secret", ""},
		{"GET", "x", "/api", ""},
		{"OPTIONS", "x", "*", ""},
		{"GET", "x:abc", "/", "host_ambiguous"},
		{"GET", "", "/", "host_ambiguous"},
		{"GET", "x,y", "//", "host_ambiguous"},
		{"GET", "x", "//", "path_ambiguous"},
		{"GET", "x", "/a/../b", "path_ambiguous"},
		{"GET", "x", "/%2e", "path_ambiguous"},
		{"GET", "x", "/a?//..", ""},
		{"GET", "x", "http://x/", "path_ambiguous"},
	} {
		d := rs.Evaluate(Request{Method: tt.method, Authority: tt.authority, Path: tt.path}, now)
		got := d.Route
		if !d.Allowed {
			got = string(d.Reason)
		}
		if got != tt.want {
			t.Errorf("%s %s%s: %q, want %q", tt.method, tt.authority, tt.path, got, tt.want)
		}
	}
}

// The guard looks only at what rules look at, and then on all routes: also a rule
// that says where not counts, but nothing that is only observed.
func TestGuard(t *testing.T) {
	const off = `"match": {}, "authentication": {"mode": "OFF"}`
	rules := func(list, to string) string {
		return fmt.Sprintf(`{%s, %s: {"deny": [{"name": "p/0", "from": [{"consumer": "x"}], "to": {%s}}]}}`, off, list, to)
	}
	for name, tt := range map[string]struct{ routes, host, path string }{
		"nothing":             {`{` + off + `}`, "allowed", "allowed"},
		"route, paths":        {`{"match": {"paths": ["/x"]}, "authentication": {"mode": "OFF"}}, {` + off + `}`, "allowed", "path_ambiguous"},
		"route, not hosts":    {`{"match": {"notHosts": ["x"]}, "authentication": {"mode": "OFF"}}, {` + off + `}`, "host_ambiguous", "allowed"},
		"rule, paths":         {rules(`"authorization"`, `"paths": ["/x"]`), "allowed", "path_ambiguous"},
		"rule, not paths":     {rules(`"authorization"`, `"notPaths": ["/x"]`), "allowed", "path_ambiguous"},
		"rule, hosts":         {rules(`"authorization"`, `"hosts": ["x"]`), "host_ambiguous", "allowed"},
		"rule, observed":      {rules(`"observedAuthorization"`, `"hosts": ["x"], "paths": ["/x"]`), "allowed", "allowed"},
		"rule, method":        {rules(`"authorization"`, `"methods": ["GET"]`), "allowed", "allowed"},
		"allow rule, in list": {`{` + off + `, "authorization": {"allow": [{"name": "p/0", "to": {"paths": ["/x"]}}]}}`, "allowed", "path_ambiguous"},
	} {
		t.Run(name, func(t *testing.T) {
			rs := ready(t, service(tt.routes))
			check(t, rs, Request{Authority: "a b", Path: "/"}, tt.host)
			check(t, rs, Request{Authority: "a", Path: "//"}, tt.path)
		})
	}
}
