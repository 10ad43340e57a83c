package envoy

import (
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"strings"
	"testing"
)

// shapes of a secret in text.
func shapes(secret string) map[string]string {
	return map[string]string{
		"raw":       secret,
		"base64":    base64.StdEncoding.EncodeToString([]byte(secret)),
		"base64url": base64.RawURLEncoding.EncodeToString([]byte(secret)),
		"hex":       hex.EncodeToString([]byte(secret)),
		"HEX":       strings.ToUpper(hex.EncodeToString([]byte(secret))),
	}
}

func quoted(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// Wherever in a dump a shared secret is, and however it is written, it is not
// there any more; all else is.
func TestRedactDump(t *testing.T) {
	const secret = "a shared secret <of> 32 bytes \"\\!"
	jwk := `{"kty":"oct","kid":"shared","alg":"HS256","k":"` + base64.RawURLEncoding.EncodeToString([]byte(secret)) + `"}`
	jwks := `{"keys":[` + jwk + `]}`
	source := `{"local_jwks": {"inline_string": ` + quoted(jwks) + `}}`
	for name, dump := range map[string]string{
		"inline string": source,
		"inline bytes":  `{"local_jwks": {"inline_bytes": "` + base64.StdEncoding.EncodeToString([]byte(jwks)) + `"}}`,
		"no object":     `{"local_jwks": ` + quoted(jwks) + `}`,
		"elsewhere":     `{"other": ` + quoted(jwks) + `}`,
		"other bytes":   `{"other": "` + base64.StdEncoding.EncodeToString([]byte(jwks)) + `"}`,
		"as an object":  `{"other": ` + jwks + `}`,
		"one key":       `[{"other": ` + quoted(" "+jwk) + `}]`,
	} {
		for shape, text := range shapes(secret) {
			in := `{"keep": ["<this>", 18446744073709551615, null], "a": ` + dump + `, "lua": ` + quoted("local s = '"+text+"'") + `, ` + quoted(text) + `: 1}`
			out, err := RedactDump([]byte(in))
			if err != nil {
				t.Errorf("%s, %s: %v of %s", name, shape, err, in)
				continue
			}
			for shape, text := range shapes(secret) {
				if strings.Contains(string(out), text) || strings.Contains(string(out), strings.Trim(quoted(text), `"`)) {
					t.Errorf("%s: the secret is there in %s:\n%s", name, shape, out)
				}
			}
			for _, want := range []string{redacted, `"<this>"`, "18446744073709551615", "null"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("%s: no %q in\n%s", name, want, out)
				}
			}
		}
	}
}

// What can't be read is not shown, and not told of by the error.
func TestRedactDumpRefuses(t *testing.T) {
	for _, text := range []string{"", "secret", `{"k": "secret"`, `{"k": "secret"} {"k": "secret"}`, `{"k": secret}`, "[1,]", "\xff"} {
		if out, err := RedactDump([]byte(text)); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("RedactDump(%q) = %q, %v; want an error that shows nothing of it", text, out, err)
		}
	}
}

// A secret of a key set in a dump is nowhere in what is shown, whatever it is
// and wherever else it is written.
func FuzzRedactDump(f *testing.F) {
	f.Add([]byte("secret-secret-secret"), "x", `{"a": [1, "b"]}`)
	f.Add([]byte("\x00\xff\"\\<>&secret"), "", "null")
	f.Fuzz(func(t *testing.T, secret []byte, around, more string) {
		if _, err := RedactDump([]byte(more)); err != nil {
			more = "null"
		}
		k := base64.RawURLEncoding.EncodeToString(secret)
		jwks := `{"keys":[{"kty":"oct","k":"` + k + `"}]}`
		in := `{"v": {"local_jwks": {"inline_string": ` + quoted(jwks) + `}}, "more": ` + more + `, "s": [` + quoted(around+k+around) + `,` + quoted(around+hex.EncodeToString(secret)) + `]}`
		out, err := RedactDump([]byte(in))
		if err != nil {
			t.Fatalf("RedactDump(%q): %v", in, err)
		}
		if !json.Valid(out) {
			t.Fatalf("RedactDump(%q) = %q, which is no JSON", in, out)
		}
		if len(secret) < 16 { // shorter ones may be in other words
			return
		}
		without := strings.ReplaceAll(more+around, "\\", "")
		for shape, text := range shapes(string(secret)) {
			if shape != "raw" && !strings.Contains(without, text) && strings.Contains(string(out), text) {
				t.Fatalf("the secret is there in %s: RedactDump(%q) = %q", shape, in, out)
			}
		}
	})
}
