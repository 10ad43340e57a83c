package access

import "strings"

// Bearer returns the token of the Authorization headers of a request (RFC 6750
// section 2.1); "" if there are none. What is there and no bearer token, or more
// than one, is BadCredential.
func Bearer(headers []string) (token string, err error) {
	if len(headers) == 0 {
		return "", nil
	}
	scheme, token, _ := strings.Cut(headers[0], " ")
	if len(headers) > 1 || !strings.EqualFold(scheme, "bearer") || token == "" || strings.ContainsAny(token, " \t") {
		return "", BadCredential
	}
	return token, nil
}
