package ruleset

import "strings"

// NormalizePath is a path (with its query, which stays as it is) as a managed Envoy
// hands it on: normalize_path, merge_slashes, and escaped slashes refused. Dot
// segments and repeated slashes go, backslashes become slashes, what need not be
// escaped is not, and what must be is. It is not ok if it is no path that can be read
// in one way only: then Envoy answers 400, too.
func NormalizePath(target string) (path string, ok bool) {
	if target == "*" { // of OPTIONS (RFC 9112 section 3.2.4)
		return target, true
	}
	if strings.IndexByte(target, '#') >= 0 || !strings.HasPrefix(target, "/") || !printable(target) {
		return "", false
	}
	path, query, hasQuery := strings.Cut(target, "?")
	if normal(path) {
		return target, true
	}
	if path, ok = spelled(path); !ok {
		return "", false
	}
	path = withoutDots(path)
	if hasQuery {
		path += "?" + query
	}
	return path, true
}

func printable(s string) bool { return only(s, func(c byte) bool { return c > ' ' && c < 0x7f }) }

// normal is the usual case, which costs no memory.
func normal(path string) bool {
	for i := range len(path) {
		switch c := path[i]; {
		case c == '/':
			if strings.HasPrefix(path[i+1:], "/") || strings.HasPrefix(path[i+1:], ".") {
				return false
			}
		case c == '%', c == ';', mustEscape(c):
			return false
		}
	}
	return true
}

func mustEscape(c byte) bool { return strings.IndexByte("\\|\"<>^`{}", c) >= 0 }

// spelled escapes what has to be escaped, and nothing else.
func spelled(path string) (string, bool) {
	const hex = "0123456789ABCDEF"
	out := make([]byte, 0, len(path)+8)
	for path != "" {
		c, n := pathByte(path)
		switch {
		case c == '%' && n == 1, n == 3 && (c == 0 || c == '/' || c == '\\'):
			return "", false
		case n == 3 && !unreserved(c):
			out = append(out, path[:3]...)
		case n == 1 && c == '\\':
			out = append(out, '/')
		case n == 1 && mustEscape(c):
			out = append(out, '%', hex[c>>4], hex[c&15])
		default:
			out = append(out, c)
		}
		path = path[n:]
	}
	// Servlet containers leave out what follows a semicolon, so that ..; is a dot
	// segment to them, and to Envoy, and none to others.
	for s := range strings.SplitSeq(string(out), "/") {
		if strings.HasPrefix(s, ".;") || strings.HasPrefix(s, "..;") {
			return "", false
		}
	}
	return string(out), true
}

// withoutDots removes dot segments (RFC 3986 section 5.2.4), and then empty ones.
func withoutDots(path string) string {
	var kept []string
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch s {
		case "..":
			kept = kept[:max(len(kept)-1, 0)]
			fallthrough
		case ".":
			if last {
				kept = append(kept, "")
			}
		default:
			kept = append(kept, s)
		}
	}
	var b strings.Builder
	for i, s := range kept {
		if s != "" || i == len(kept)-1 {
			b.WriteString("/" + s)
		}
	}
	return b.String()
}
