package envoy

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// redacted stands where a shared secret is.
const redacted = "[redacted]"

// privateMembers of a JWK are `k` (RFC 7518 section 6.4.1), and whatever a key
// must not have when it is only to verify.
var privateMembers = []string{"k", "d", "p", "q", "dp", "dq", "qi", "oth"}

// RedactDump is the answer of an Envoy's admin interface to /config_dump without
// the shared secrets that Envoy shows in it. What is no JSON is an error: show
// nothing of it then.
func RedactDump(text []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var dump any
	if err := d.Decode(&dump); err != nil {
		return nil, fmt.Errorf("reading the dump: %w", syntaxOnly(err))
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("reading the dump: there is more after its end")
	}
	dump = redact(dump)
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", " ")
	if err := e.Encode(dump); err != nil {
		return nil, fmt.Errorf("writing the dump: %w", err)
	}
	return out.Bytes(), nil
}

// syntaxOnly keeps the text that was read out of an error.
func syntaxOnly(err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		return fmt.Errorf("no JSON at byte %d", syntax.Offset)
	}
	return errors.New("no JSON")
}

// redact takes the secrets out of decoded JSON: where they belong, and wherever
// else in it they are written once more, in any of the usual ways.
func redact(v any) any {
	secrets := make(forms)
	secrets.collect(v)
	return secrets.redact(v)
}

// forms are texts that tell a secret.
type forms map[string]struct{}

// minSecret is the length from which on a secret is looked for elsewhere too, in
// bytes. A shorter one protects nothing, and would be found in other words.
const minSecret = 8

func (f forms) add(secret []byte) {
	if len(secret) < minSecret {
		return
	}
	for _, text := range []string{
		string(secret),
		base64.RawStdEncoding.EncodeToString(secret),
		base64.RawURLEncoding.EncodeToString(secret),
		hex.EncodeToString(secret),
		strings.ToUpper(hex.EncodeToString(secret)),
	} {
		f[text] = struct{}{}
	}
}

// collect finds the keys in all texts that are JWKs or sets of them.
func (f forms) collect(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			f.collect(e)
		}
	case map[string]any:
		f.jwk(v)
		for _, e := range v {
			f.collect(e)
		}
	case string:
		if inner, ok := keysIn(v); ok {
			f.collect(inner)
		} else if plain, ok := decoded(v); ok {
			if inner, ok := keysIn(plain); ok {
				f.collect(inner)
			}
		}
	}
}

func (f forms) jwk(key map[string]any) {
	k, ok := key["k"].(string)
	if _, isKey := key["kty"]; !ok || !isKey {
		return
	}
	if secret, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(k, "=")); err == nil {
		f.add(secret)
	}
	if len(k) >= minSecret {
		f[k] = struct{}{}
	}
}

// keysIn reads a text that may be keys in JSON.
func keysIn(text string) (any, bool) {
	if !strings.Contains(text, "kty") || !strings.HasPrefix(strings.TrimSpace(text), "{") {
		return nil, false
	}
	var v any
	return v, json.Unmarshal([]byte(text), &v) == nil
}

// decoded is the content of a field of bytes.
func decoded(text string) (string, bool) {
	plain, err := base64.StdEncoding.DecodeString(text)
	return string(plain), err == nil && len(plain) > 0
}

func (f forms) redact(v any) any {
	switch v := v.(type) {
	case []any:
		for i, e := range v {
			v[i] = f.redact(e)
		}
	case map[string]any:
		return f.redactObject(v)
	case string:
		if f.tells(v) {
			return redacted
		}
	}
	return v
}

func (f forms) redactObject(object map[string]any) any {
	out := make(map[string]any, len(object))
	_, isKey := object["kty"]
	for name, v := range object {
		if f.tells(name) {
			name = redacted
		}
		switch {
		case name == "local_jwks" || name == "localJwks":
			out[name] = redactSource(v)
		case isKey && slices.Contains(privateMembers, name):
			out[name] = redacted
		default:
			out[name] = f.redact(v)
		}
	}
	return out
}

// tells says whether a text has a secret in it.
func (f forms) tells(text string) bool {
	if len(f) == 0 {
		return false
	}
	for form := range f {
		if strings.Contains(text, form) {
			return true
		}
	}
	plain, ok := decoded(text)
	if !ok {
		return false
	}
	for form := range f {
		if strings.Contains(plain, form) {
			return true
		}
	}
	return false
}

// redactSource is a local_jwks as it is shown.
func redactSource(v any) any {
	source, ok := v.(map[string]any)
	if !ok {
		return redacted
	}
	out := make(map[string]any, len(source))
	for name, v := range source {
		text, _ := v.(string)
		out[name] = redactJWKS(name, text)
	}
	return out
}

// redactJWKS leaves out the privateMembers. What can't be read is left out whole.
func redactJWKS(source, text string) string {
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if source != "inline_string" || json.Unmarshal([]byte(text), &set) != nil {
		return redacted
	}
	for _, key := range set.Keys {
		for _, member := range privateMembers {
			if _, ok := key[member]; ok {
				key[member] = redacted
			}
		}
	}
	out, err := json.Marshal(set)
	if err != nil {
		return redacted
	}
	return string(out)
}
