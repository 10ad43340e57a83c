package accesslog

import (
	"encoding/base64"
	"regexp"
	"strings"
)

// redact cuts a text off where something begins that may be a token: a run of
// base64url in which there is the beginning of a JSON object, as in the header
// of every JWT (RFC 7515 section 7.1). That is not always "eyJ": blanks may
// stand before and after the brace, other text may stand right before the
// token, and any of it may be percent-encoded, more than once.
//
// A run is not taken for a token for its dots alone: the hosts of issuers, as
// in cognito-idp.eu-central-1.amazonaws.com, have as many.
func redact(s string) string {
	cut := tokenStart([]byte(s))
	if strings.Contains(s, "%") {
		decoded, at := unescape(s)
		if i := tokenStart(decoded); i >= 0 && (cut < 0 || at[i] < cut) {
			cut = at[i]
		}
	}
	if cut < 0 {
		return s
	}
	return s[:cut] + "[redacted]"
}

// tokenStart is where the first run begins that may be a token, -1 if none does.
func tokenStart(text []byte) int {
	var buf []byte
	for i := 0; i < len(text); {
		end := i
		for end < len(text) && isBase64URL(text[end]) {
			end++
		}
		if end-i >= 3 { // what {" takes at least
			if buf == nil {
				buf = make([]byte, base64.RawURLEncoding.DecodedLen(len(text)))
			}
			if holdsObject(text[i:end], buf) {
				return i
			}
		}
		i = end + 1
	}
	return -1
}

var objectStart = regexp.MustCompile(`\{[ \t\r\n]*"`)

// holdsObject looks at each of the four ways in which a run can be decoded, since
// what stands before the token belongs to the run too.
func holdsObject(run, buf []byte) bool {
	for skip := range min(4, len(run)) {
		// A single character at the end is no whole byte, which is an error, but
		// after all others were decoded.
		n, _ := base64.RawURLEncoding.Decode(buf, run[skip:])
		if objectStart.Match(buf[:n]) {
			return true
		}
	}
	return false
}

func isBase64URL(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

// unescape undoes percent-encoding (RFC 3986 section 2.1), also of what comes of
// that, and leaves what is none. at says for each byte where it began in s.
func unescape(s string) (out []byte, at []int) {
	out, at = make([]byte, 0, len(s)), make([]int, 0, len(s))
	for i := range len(s) {
		out, at = append(out, s[i]), append(at, i)
		for n := len(out); n >= 3 && out[n-3] == '%' && isHex(out[n-2]) && isHex(out[n-1]); n = len(out) {
			out[n-3] = unhex(out[n-2])<<4 | unhex(out[n-1])
			out, at = out[:n-2], at[:n-2]
		}
	}
	return out, at
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c&^0x20 - 'A' + 10
}
