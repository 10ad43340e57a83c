package importer

import (
	"regexp"
	"strings"
)

// What routes and rules can say of a request; policy.Check has the same.
var (
	hostForm   = regexp.MustCompile(`^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)
	pathForm   = regexp.MustCompile(`^/[A-Za-z0-9._~!$&'()+,=:@%/-]*\*?$`)
	methodForm = regexp.MustCompile(`^[A-Z][A-Z-]{0,31}$`)
)

// host is a host name, or "*." before one, in lower case.
func host(s string) (string, bool) {
	s = strings.ToLower(s)
	return s, hostForm.MatchString(s)
}

// path says whether paths of requests are matched alike: exactly, or by a
// prefix that ends with a slash.
func path(s string) bool {
	body, wild := strings.CutSuffix(s, "*")
	return pathForm.MatchString(s) && !strings.Contains(s, "//") && !strings.Contains(strings.ToUpper(s), "%3B") && !strings.Contains(body, "*") && (!wild || strings.HasSuffix(body, "/"))
}

const (
	hostReason = `is no host name without port, nor "*." before one`
	pathReason = `is neither a path nor a prefix that ends with "/*"`
)
