package sts

import (
	"fmt"
	"slices"
	"strings"
)

// grantScope gives the scope of a token: what was asked for, if all of it is
// allowed, or all that is allowed if nothing was asked for (RFC 6749 section
// 3.3). It never gives less than what was asked for: a client that relies on a
// scope should hear here that it can't have it, not at the service it calls.
// The result is sorted, so that equal rights give equal claims.
func grantScope(asked string, allowed []string) (string, *Error) {
	if asked == "" {
		return join(allowed), nil
	}
	scopes := strings.Split(asked, " ")
	for _, scope := range scopes {
		if !scopeToken(scope) {
			return "", refuse(CodeInvalidScope, "scope must be names with one space between them", nil)
		}
		if !slices.Contains(allowed, scope) {
			return "", refuse(CodeInvalidScope, "the service may not have this scope for this audience",
				fmt.Errorf("scope %q is not in the call to this audience; add it to the calls of the Service", shown(scope)))
		}
	}
	return join(scopes), nil
}

func join(scopes []string) string {
	if len(scopes) < 2 {
		return strings.Join(scopes, " ")
	}
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(scopes))), " ")
}

// scopeToken is the syntax of RFC 6749 section 3.3.
func scopeToken(s string) bool {
	for _, b := range []byte(s) {
		if b <= ' ' || b > '~' || b == '"' || b == '\\' {
			return false
		}
	}
	return s != ""
}
