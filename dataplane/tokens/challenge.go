package tokens

import (
	"net/http"
	"strings"

	"github.com/watchword-mesh/watchword/dataplane/reason"
)

// refusedToken tells whether a response says that the token is not accepted, and
// another could be.
func refusedToken(resp *http.Response) bool {
	if resp.StatusCode != http.StatusUnauthorized || !invalidToken(resp.Header.Values("WWW-Authenticate")) {
		return false
	}
	word := reason.Word(resp.Header.Get(reason.Header))
	return !reason.Known(word) || renewable(word)
}

// renewable are the reasons that a new token takes away. With the others it would
// be refused as well.
func renewable(word reason.Word) bool {
	switch word {
	case reason.TokenExpired, reason.KeyUnknown, reason.SignatureInvalid, reason.Revoked:
		return true
	}
	return false
}

// invalidToken looks for a Bearer challenge with error="invalid_token" (RFC 6750
// section 3.1) among challenges (RFC 9110 section 11.6.1).
func invalidToken(challenges []string) bool {
	for _, c := range challenges {
		bearer := false
		for _, part := range splitList(c) {
			scheme, parameter, ok := schemeOf(part)
			if ok {
				bearer = strings.EqualFold(scheme, "Bearer")
			}
			if bearer && isInvalidToken(parameter) {
				return true
			}
		}
	}
	return false
}

// schemeOf splits the first part of a challenge, in which the scheme stands before
// the first parameter; ok is false for the other parts.
func schemeOf(part string) (scheme, parameter string, ok bool) {
	part = strings.TrimSpace(part)
	scheme, rest, _ := strings.Cut(part, " ")
	rest = strings.TrimLeft(rest, " ")
	if strings.ContainsAny(scheme, `="`) || strings.HasPrefix(rest, "=") {
		return "", part, false
	}
	return scheme, rest, true
}

func isInvalidToken(parameter string) bool {
	name, value, ok := strings.Cut(parameter, "=")
	value = strings.Trim(strings.TrimSpace(value), `"`)
	return ok && strings.EqualFold(strings.TrimSpace(name), "error") && value == "invalid_token"
}

// splitList splits at commas that are not in a quoted string.
func splitList(s string) []string {
	var parts []string
	quoted, start := false, 0
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ',' && !quoted:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}
