package access

import (
	"crypto/sha256"
	"crypto/subtle"
	"net"
	"strings"
)

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

// SameSecret compares digests, so that neither length nor prefix of the secret
// shows in the time that it takes. An empty secret is nobody's.
func SameSecret(given, secret string) bool {
	a, b := sha256.Sum256([]byte(given)), sha256.Sum256([]byte(secret))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1 && secret != ""
}

// SourceOf is the address of an http.Request's RemoteAddr without the port; empty
// for a Unix socket.
func SourceOf(remoteAddr string) string {
	host, _, err := net.SplitHostPort(remoteAddr)
	if err != nil {
		return ""
	}
	return host
}
