package accesslog

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// jws is a compact JWS with a header as it is written.
func jws(header string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + ".cGF5bG9hZC1wYXlsb2Fk.c2lnbmF0dXJl"
}

// A token is cut out however its header is written, and wherever it stands;
// all else stays as it was sent.
func TestRedact(t *testing.T) {
	plain := jws(`{"alg":"ES256"}`)
	for text, want := range map[string]string{
		"/a/" + plain:                             "/a/[redacted]",
		"/a/" + jws(`{ "alg":"ES256"}`):           "/a/[redacted]", // eyA
		"/a/" + jws("{\n\"alg\":\"ES256\"}"):      "/a/[redacted]", // ewo
		"/a/" + jws(` {"alg":"ES256"}`):           "/a/[redacted]", // IHs
		"/a/" + jws("\r\n\t {\t\"alg\":\"none\""): "/a/[redacted]",
		"/a/token-" + jws(`{ "alg":"ES256"}`):     "/a/[redacted]",
		"/a/%65" + plain[1:] + "/b":               "/a/[redacted]",
		"/a/%2565" + plain[1:]:                    "/a/[redacted]",
		"/%41/%%36%35" + plain[1:]:                "/%41/[redacted]",
		"/a%2F" + plain:                           "/a%[redacted]",
		"/a/%c" + plain:                           "/a/%[redacted]",
		"/orders/7%2f8%zz%":                       "/orders/7%2f8%zz%",
		"":                                        "",
		"https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI": "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbCdEfGhI",
		"spiffe://production-cluster.internal-mesh.example/ns/a":                "spiffe://production-cluster.internal-mesh.example/ns/a",
	} {
		if got := redact(text); got != want {
			t.Errorf("redact(%q) = %q, want %q", text, got, want)
		}
	}
}

// Whatever stands around a token, and whichever of its characters are escaped,
// nothing of its header, payload or signature is kept.
func TestRedactAnywhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		blank := rapid.StringOfN(rapid.SampledFrom([]rune(" \t\r\n")), 0, 5, -1)
		token := jws(blank.Draw(t, "before") + "{" + blank.Draw(t, "after") + `"alg":"ES256"}`)
		var sent strings.Builder
		for _, c := range []byte(token) {
			switch rapid.IntRange(0, 3).Draw(t, "escape") {
			case 0:
				fmt.Fprintf(&sent, "%%%02x", c)
			case 1:
				fmt.Fprintf(&sent, "%%25%02X", c)
			default:
				sent.WriteByte(c)
			}
		}
		before := rapid.StringMatching(`(/[a-z_-]{0,6})*/`).Draw(t, "path")
		glued := rapid.StringMatching(`[a-z_-]{0,6}`).Draw(t, "glued")
		text := before + glued + sent.String() + rapid.String().Draw(t, "rest")
		// A path may begin like a token itself, such as "-nsi", which is four characters
		// of base64 with {" in them; then it goes from there.
		got := redact(text)
		if kept, redacted := strings.CutSuffix(got, "[redacted]"); !redacted || !strings.HasPrefix(before, kept) {
			t.Fatalf("redact(%q) = %q, want %q, or less of what is before the token", text, got, before+"[redacted]")
		}
	})
}
