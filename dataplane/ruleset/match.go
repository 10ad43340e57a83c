package ruleset

import (
	"slices"
	"strconv"
	"strings"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// view is what matches look at.
type view struct{ method, authority, path string }

// newView leaves out the query, and a fragment, which no client should send.
func newView(r Request) view {
	v := view{r.Method, r.Authority, r.Path}
	v.path, _, _ = strings.Cut(v.path, "?")
	v.path, _, _ = strings.Cut(v.path, "#")
	return v
}

// requestMatch matches when each list that is not empty has a match, and none
// of the not lists has one.
type requestMatch struct {
	hosts, notHosts     []hostPattern
	paths, notPaths     []pathPattern
	methods, notMethods []string
}

// part is a list of a requestMatch.
type part int

const (
	partNone part = iota
	partHosts
	partPaths
	partMethods
	partNotHosts
	partNotPaths
	partNotMethods
)

func newRequestMatch(m *dataplanev1.RequestMatch) requestMatch {
	return requestMatch{
		hosts: each(m.GetHosts(), newHostPattern), notHosts: each(m.GetNotHosts(), newHostPattern),
		paths: each(m.GetPaths(), newPathPattern), notPaths: each(m.GetNotPaths(), newPathPattern),
		methods: slices.Clone(m.GetMethods()), notMethods: slices.Clone(m.GetNotMethods()),
	}
}

func each[A, B any](list []A, f func(A) B) []B {
	var out []B
	for _, a := range list {
		out = append(out, f(a))
	}
	return out
}

func (m *requestMatch) looksAtHosts() bool { return len(m.hosts)+len(m.notHosts) > 0 }
func (m *requestMatch) looksAtPaths() bool { return len(m.paths)+len(m.notPaths) > 0 }

func (m *requestMatch) matchesAll() bool {
	return !m.looksAtHosts() && !m.looksAtPaths() && len(m.methods)+len(m.notMethods) == 0
}

// fails is the first list that keeps the request from matching; partNone if it
// matches.
func (m *requestMatch) fails(v *view) part {
	host := func(p hostPattern) bool { return p.matches(v.authority) }
	path := func(p pathPattern) bool { return p.matches(v.path) }
	switch {
	case len(m.hosts) > 0 && !slices.ContainsFunc(m.hosts, host):
		return partHosts
	case len(m.paths) > 0 && !slices.ContainsFunc(m.paths, path):
		return partPaths
	case len(m.methods) > 0 && !slices.Contains(m.methods, v.method):
		return partMethods
	case slices.ContainsFunc(m.notHosts, host):
		return partNotHosts
	case slices.ContainsFunc(m.notPaths, path):
		return partNotPaths
	case slices.Contains(m.notMethods, v.method):
		return partNotMethods
	}
	return partNone
}

// hostPattern is a host, or all hosts below one: then it begins with a dot.
type hostPattern struct {
	text   string // as written
	suffix bool
	name   string
}

func newHostPattern(s string) hostPattern {
	name, suffix := strings.CutPrefix(s, "*")
	suffix = suffix && strings.HasPrefix(name, ".")
	if !suffix {
		name = s
	}
	return hostPattern{text: s, suffix: suffix, name: name}
}

// matches compares hosts as DNS does: without case, and without the dot that
// ends a full name. The port is not part of it. What has other than ASCII
// letters does not get here: see guard.
func (p hostPattern) matches(authority string) bool {
	if !p.suffix {
		return p.at(authority, 0)
	}
	for i := 1; i < len(authority) && authority[i-1] != ':'; i++ {
		if authority[i] == '.' && p.at(authority, i) {
			return true
		}
	}
	return false
}

// at says whether the name is what is left of an authority from i on.
func (p hostPattern) at(authority string, i int) bool {
	end := i + len(p.name)
	if end > len(authority) || !strings.EqualFold(authority[i:end], p.name) {
		return false
	}
	rest := strings.TrimPrefix(authority[end:], ".")
	return rest == "" || rest[0] == ':'
}

// pathPattern matches a path however its reserved characters are escaped: most
// servers decode before they look, so that /users/@me and /users/%40me are one
// resource (RFC 3986 section 2.2 leaves it to them). Unreserved characters need
// no alternative, since the guard refuses their escapes.
type pathPattern struct {
	text   string // as written
	prefix bool
	chars  []pathChar
}

// pathChar is one character of a path, and how it may be written.
type pathChar struct {
	c              byte
	plain, escaped bool
}

func newPathPattern(s string) pathPattern {
	rest, prefix := strings.CutSuffix(s, "*")
	p := pathPattern{text: s, prefix: prefix}
	for i := 0; i < len(rest); i++ {
		c := rest[i]
		if c == '%' && i+2 < len(rest) {
			if v, err := strconv.ParseUint(rest[i+1:i+3], 16, 8); err == nil {
				c, i = byte(v), i+2
			}
		}
		fixed := c == '/' || unreserved(c)
		p.chars = append(p.chars, pathChar{
			c: c, escaped: !fixed,
			plain: fixed || c > ' ' && c < 0x7f && c != '%' && c != '?' && c != '#',
		})
	}
	return p
}

// unreserved characters are the same escaped and not (RFC 3986 section 2.3).
func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

// matches looks at a path without query.
func (p pathPattern) matches(path string) bool {
	for _, pc := range p.chars {
		switch c, n := pathByte(path); {
		case n == 0:
			return false
		case n == 1 && c == pc.c && pc.plain, n == 3 && c == pc.c && pc.escaped:
			path = path[n:]
		default:
			return false
		}
	}
	return p.prefix || path == ""
}

// pathByte is the first byte of a path, decoded, and how long it is as written:
// 3 if it is escaped, 0 at the end. A per cent sign that escapes nothing is
// itself.
func pathByte(path string) (c byte, n int) {
	if path == "" {
		return 0, 0
	}
	if path[0] == '%' && len(path) >= 3 && isHex(path[1]) && isHex(path[2]) {
		return unhex(path[1])<<4 | unhex(path[2]), 3
	}
	return path[0], 1
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return (c | 0x20) - 'a' + 10
}

// guard refuses requests that can be read in two ways, as far as the ruleset
// looks at what they differ in.
func (e *evaluation) guard() reason.Word {
	word := reason.Word("")
	switch {
	case e.rs.looksAtHosts && !plainAuthority(e.req.Authority):
		word = reason.HostAmbiguous
	case e.rs.looksAtPaths && ambiguousPath(e.req.Path):
		word = reason.PathAmbiguous
	}
	if e.rec != nil {
		e.rec.guard(e, word)
	}
	return word
}

// plainAuthority is a host, or an IP address, and perhaps a port: what every
// server reads as the same host.
func plainAuthority(s string) bool {
	host, port, hasPort := s, "", false
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return false
		}
		host, port = s[1:end], s[end+1:]
		if port, hasPort = strings.CutPrefix(port, ":"); !hasPort && port != "" {
			return false
		}
		if !only(host, func(c byte) bool { return isHex(c) || c == ':' || c == '.' }) {
			return false
		}
	} else {
		host, port, hasPort = strings.Cut(s, ":")
		if !only(host, func(c byte) bool { return unreserved(c) && c != '~' }) {
			return false
		}
	}
	return host != "" && (!hasPort || port != "" && len(port) <= 5 && only(port, func(c byte) bool { return c >= '0' && c <= '9' }))
}

func only(s string, in func(byte) bool) bool {
	for i := range len(s) {
		if !in(s[i]) {
			return false
		}
	}
	return true
}

// ambiguousPath says whether a path (with its query, which is not looked at)
// reaches one resource under two names, or two under one, depending on who reads
// it: empty segments, dot segments, parameters of segments (RFC 3986 section 3.3;
// servlet containers leave them out, so that /admin;x is /admin), backslashes,
// fragments, escapes of separators and of characters that need none (RFC 3986
// section 6.2.2.2), the same escaped twice, broken escapes, escaped control
// characters, over-long UTF-8, and what does not begin with a slash, except the
// `*` of OPTIONS.
func ambiguousPath(path string) bool {
	if path == "" || path == "*" {
		return false
	}
	if path[0] != '/' {
		return true
	}
	path, _, _ = strings.Cut(path, "?")
	for i := range len(path) {
		switch path[i] {
		case '\\', '#', ';':
			return true
		case '/':
			if strings.HasPrefix(path[i+1:], "/") || dotSegment(path[i+1:]) {
				return true
			}
		case '%':
			if ambiguousEscape(path[i+1:]) {
				return true
			}
		}
	}
	return false
}

// dotSegment says whether a path begins with `.` or `..` as a segment; an escaped
// dot is ambiguous anyway.
func dotSegment(s string) bool {
	rest, ok := strings.CutPrefix(s, ".")
	if !ok {
		return false
	}
	rest = strings.TrimPrefix(rest, ".")
	return rest == "" || rest[0] == '/'
}

// ambiguousEscape looks at what follows a per cent sign.
func ambiguousEscape(s string) bool {
	if len(s) < 2 || !isHex(s[0]) || !isHex(s[1]) {
		return true
	}
	c := unhex(s[0])<<4 | unhex(s[1])
	if c == '%' && len(s) >= 4 && isHex(s[2]) && isHex(s[3]) {
		again := unhex(s[2])<<4 | unhex(s[3])
		return again == '.' || again == '/' || again == '\\'
	}
	return c < ' ' || c == 0x7f || strings.IndexByte(`/\;`, c) >= 0 || unreserved(c) || c == 0xc0 || c == 0xc1
}
