package tokens

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/watchword-mesh/watchword/internal/jose"
)

// answer is what a token endpoint gives (RFC 6749 section 5.1).
type answer struct {
	value   string
	expires time.Duration
}

// maxToken is the longest token, in bytes, that servers take in a header.
const maxToken = 16 << 10

// parseAnswer reads a token. Errors don't show it.
func parseAnswer(body []byte) (answer, error) {
	a, err := readAnswer(body)
	if err != nil {
		return answer{}, fmt.Errorf("the answer of the STS: %w", err)
	}
	return a, nil
}

func readAnswer(body []byte) (answer, error) {
	m, err := members(body)
	if err != nil {
		return answer{}, err
	}
	value, ok := text(m["access_token"])
	if !ok || !isToken(value) {
		return answer{}, errors.New("access_token is not a token (RFC 6750 section 2.1)")
	}
	if kind, ok := text(m["token_type"]); !ok || !strings.EqualFold(kind, "Bearer") {
		return answer{}, errors.New("token_type is not Bearer")
	}
	// The default that RFC 6749 leaves to the server is not known here.
	seconds, err := strconv.ParseInt(string(m["expires_in"]), 10, 64)
	if err != nil || seconds <= 0 {
		return answer{}, errors.New("expires_in is not a number of seconds above 0")
	}
	const most = math.MaxInt64 / int64(time.Second)
	return answer{value, time.Duration(min(seconds, most)) * time.Second}, nil
}

// hold is what to keep of an answer to a request of that time.
func (a answer) hold(began time.Time, maxAge time.Duration) *held {
	began = began.Round(0) // by the wall clock alone
	life := min(a.expires, maxAge)
	h := &held{token: Token{Value: a.value, Expires: began.Add(life)}, life: life}
	h.until = usableUntil(h.token.Expires, life).UnixNano()
	if t, err := jose.ParseUnverified(a.value); err == nil { // else it is opaque to us
		h.kid = t.Header().KeyID
	}
	return h
}

// parseRefusal reads the `error` of RFC 6749 section 5.2.
func parseRefusal(body []byte) (code string, ok bool) {
	m, err := members(body)
	if err != nil {
		return "", false
	}
	code, ok = text(m["error"])
	return code, ok && isCode(code)
}

// isToken tells whether s is a b64token of RFC 6750 section 2.1, which can stand in
// a header.
func isToken(s string) bool {
	if s == "" || len(s) > maxToken {
		return false
	}
	rest := strings.TrimRight(s, "=")
	return rest != "" && strings.IndexFunc(rest, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._~+/", r))
	}) < 0
}

var errNotObject = errors.New("not a JSON object")

// members reads a JSON object. encoding/json alone would take the last of two equal
// names, and names in another case.
func members(body []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(body) || !json.Valid(body) {
		return nil, errNotObject
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return nil, errNotObject
	}
	m := map[string]json.RawMessage{}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return nil, errNotObject
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return nil, errNotObject
		}
		if _, twice := m[name.(string)]; twice {
			return nil, errors.New("a member is there twice")
		}
		m[name.(string)] = value
	}
	if _, err := dec.Token(); err != nil && err != io.EOF { // the closing brace
		return nil, errNotObject
	}
	return m, nil
}

// text is the value of a JSON string.
func text(value json.RawMessage) (s string, ok bool) {
	if len(value) == 0 || value[0] != '"' {
		return "", false
	}
	err := json.Unmarshal(value, &s)
	return s, err == nil
}
