package envoy

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// pathMatch looks at the path without query, as sent: see requestGuard. "/a/*"
// matches all that begins with "/a/".
func pathMatch(path string) *rbacconfigv3.Permission {
	rest, prefix := strings.CutSuffix(path, "*")
	re := pathRegex(rest)
	plain := re == regexp.QuoteMeta(rest)
	var m *matcherv3.StringMatcher
	switch {
	case plain && prefix:
		m = matchPrefix(rest)
	case plain:
		m = matchExact(rest)
	case prefix:
		m = matchRegex(re + ".*")
	default:
		m = matchRegex(re)
	}
	return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{
		Rule: &matcherv3.PathMatcher_Path{Path: m},
	}}}
}

// pathRegex matches a path however its reserved characters are escaped: most
// servers decode before they look, so that /users/@me and /users/%40me are one
// resource (RFC 3986 section 2.2 leaves it to them). Unreserved characters need
// no alternative, since requestGuard refuses their escapes.
func pathRegex(path string) string {
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
		default: // only ever escaped
			fmt.Fprintf(&b, `(?i:%%%02x)`, c)
		}
	}
	return b.String()
}

// unreserved characters are the same escaped and not (RFC 3986 section 2.3).
func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0
}
