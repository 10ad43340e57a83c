package bundle

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/internal/jose"
)

// Keys of RFC 7517 appendix A.1, and of this file.
const (
	ecX, ecY = "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4", "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"
	rsaN     = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
	secretK  = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
)

func ec(kid string) string {
	return fmt.Sprintf(`{"kty":"EC","crv":"P-256","x":"%s","y":"%s","kid":"%s"}`, ecX, ecY, kid)
}

func rsaKey(more string) string {
	return fmt.Sprintf(`{"kty":"RSA","n":"%s","e":"AQAB"%s}`, rsaN, more)
}

func set(keys ...string) string { return `{"keys":[` + strings.Join(keys, ",") + `]}` }

// Each key is judged alone: what is odd is left out by name, the rest stays. A
// set without a sound key is an error, and so is what is no set.
func TestRead(t *testing.T) {
	goodEC := fmt.Sprintf(`{"crv":"P-256","kid":"a","kty":"EC","x":"%s","y":"%s"}`, ecX, ecY)
	for _, c := range []struct {
		name, body string
		options    jose.SetOptions
		want       string   // the set; empty: an error
		words      []string // of the error, or one for each line of what is left out
	}{
		{name: "one", body: set(ec("a")), want: set(goodEC)},
		{name: "white space, order and members of others",
			body: "{ \"x\": 1, \"keys\" : [ " + fmt.Sprintf(`{"kid":"a", "y":"%s","x":"%s","crv":"P-256","kty":"EC","x5c":["MII"],"ext":true}`, ecY, ecX) + " ] }\n",
			want: set(goodEC)},
		{name: "sorted", body: set(rsaKey(`,"kid":"r","alg":"RS256","use":"sig"`), ec("a")),
			want: set(fmt.Sprintf(`{"alg":"RS256","e":"AQAB","kid":"r","kty":"RSA","n":"%s","use":"sig"}`, rsaN), goodEC)},
		{name: "a shared secret", body: set(fmt.Sprintf(`{"kty":"oct","kid":"s","k":"%s"}`, secretK), ec("a")),
			want: set(goodEC), words: []string{`key 0 (kid "s"): a shared secret`}},
		{name: "a shared secret alone", body: set(fmt.Sprintf(`{"kty":"oct","kid":"s","k":"%s"}`, secretK)),
			words: []string{"no key of the set can be used", "shared secret"}},
		{name: "a shared secret, written otherwise", body: set(fmt.Sprintf(`{"kty":"\u006fct","k":"%s"}`, secretK), ec("a")),
			want: set(goodEC), words: []string{"key 0: a shared secret"}},
		{name: "a shared secret, twice over", body: set(fmt.Sprintf(`{"kty":"oct","kty":"RSA","k":"%s"}`, secretK), ec("a")),
			want: set(goodEC), words: []string{"key 0"}},
		{name: "odd ones", body: set(`{"kty":"X"}`, `7`, ec("a"), `{"kty":"EC","crv":"secp256k1","kid":"k"}`, `{"kid":7}`),
			want: set(goodEC), words: []string{"key 0", "key 1", `key 3 (kid "k")`, "key 4", "key 4"}},
		{name: "the same kid twice: the first stays", body: set(ec("a"), rsaKey(`,"kid":"a"`)),
			want: set(goodEC), words: []string{`key 1 (kid "a")`}},
		{name: "a private key", body: set(rsaKey(`,"d":"AA"`), ec("a")), want: set(goodEC), words: []string{"key 0: holds a private key"}},
		{name: "an algorithm that the issuer does not allow", body: set(rsaKey(`,"kid":"r","alg":"RS512"`), ec("a")),
			options: jose.SetOptions{Algorithms: []string{"ES256", "RS256"}}, want: set(goodEC), words: []string{`key 0 (kid "r")`}},
		{name: "HS256 is allowed, and a secret is refused all the same", body: set(fmt.Sprintf(`{"kty":"oct","k":"%s"}`, secretK), ec("a")),
			options: jose.SetOptions{Algorithms: []string{"HS256", "ES256"}, AllowWeak: true}, want: set(goodEC), words: []string{"shared secret"}},

		{name: "empty", body: "", words: []string{"JWK set"}},
		{name: "HTML", body: "<html>secret-token</html>", words: []string{"JWK set"}},
		{name: "no keys", body: `{"keys":[]}`, words: []string{"empty"}},
		{name: "keys in another case", body: `{"Keys":[` + ec("a") + `]}`, words: []string{`no "keys"`}},
		{name: "keys twice", body: `{"keys":[],"keys":[` + ec("a") + `]}`, words: []string{"JWK set"}},
		{name: "keys in two cases", body: `{"keys":[` + ec("a") + `],"KEYS":[` + ec("b") + `]}`, want: set(goodEC)},
		{name: "a bare key", body: ec("a"), words: []string{"single JWK"}},
		{name: "PEM", body: "-----BEGIN PUBLIC KEY-----", words: []string{"PEM"}},
		{name: "too large", body: set(ec("a")) + strings.Repeat(" ", MaxBytes), words: []string{"more than 65536 bytes"}},
		{name: "too many keys", body: set(strings.Split(strings.Repeat(ec("a")+"\n", 101), "\n")[:101]...), words: []string{"101 keys"}},
		{name: "text behind it", body: set(ec("a")) + "x", words: []string{"JWK set"}},
	} {
		got, leftOut, err := read([]byte(c.body), c.options)
		if c.want == "" {
			if err == nil {
				t.Errorf("%s: read %s; want an error", c.name, got)
				continue
			}
			for _, w := range c.words {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%s: the error %q lacks %q", c.name, err, w)
				}
			}
			if strings.Contains(err.Error(), "secret-token") || strings.Contains(err.Error(), secretK) {
				t.Errorf("%s: the error %q shows what was read", c.name, err)
			}
			continue
		}
		if d := cmp.Diff(c.want, got); d != "" || err != nil {
			t.Errorf("%s: error %v, set -want +got:\n%s", c.name, err, d)
		}
		ok := len(leftOut) == len(c.words)
		for i := 0; ok && i < len(leftOut); i++ {
			ok = strings.Contains(leftOut[i], c.words[i]) && !strings.Contains(leftOut[i], secretK)
		}
		if !ok {
			t.Errorf("%s: left out %q, want %q", c.name, leftOut, c.words)
		}
	}
}

// Keys of a set may be used only for its own source, and only those that the
// options of the issuer take today.
func TestKeysAreBoundToSource(t *testing.T) {
	s := source("idp", "https://idp.test/a")
	text, _, err := read([]byte(set(ec("a"), rsaKey(""))), s.Options)
	if err != nil {
		t.Fatal(err)
	}
	from := Set{Issuer: "idp", Source: "https://idp.test/a", JWKS: text}
	count := func(s Source) int { keys, _ := s.Keys(from); return len(keys) }
	narrow := s
	narrow.Options.Algorithms = []string{"ES256"}
	elsewhere := source("idp", "https://idp.test/b")
	got := []int{count(s), count(narrow), count(elsewhere)}
	if d := cmp.Diff([]int{2, 1, 0}, got); d != "" {
		t.Errorf("keys of the source, of one with ES256 alone, of one elsewhere: -want +got:\n%s", d)
	}
	// A record that was tampered with gives no shared secret.
	from.JWKS = set(fmt.Sprintf(`{"kty":"oct","k":"%s"}`, secretK))
	if n := count(s); n != 0 {
		t.Errorf("%d keys of a record with a shared secret, want none", n)
	}
}

// Whatever a server sends: no panic, and what is taken is a set that reads the
// same again, with public members of asymmetric keys alone.
func FuzzRead(f *testing.F) {
	for _, body := range []string{set(ec("a"), rsaKey(`,"alg":"PS256"`)), set(`{"kty":"oct","k":"AA"}`, ec("a")), set(rsaKey(`,"d":"AA"`)), `{"keys":[]}`, "", "[", `{"keys":[{"kty":"EC","kty":"oct"}]}`} {
		f.Add([]byte(body), true)
		f.Add([]byte(body), false)
	}
	f.Fuzz(func(t *testing.T, body []byte, weak bool) {
		options := jose.SetOptions{AllowWeak: weak}
		got, leftOut, err := read(body, options)
		if err != nil {
			if got != "" {
				t.Errorf("read(%q) fails with %v and gives %q", body, err, got)
			}
			return
		}
		again, more, err := read([]byte(got), options)
		if err != nil || again != got || len(more) > 0 {
			t.Errorf("read(%q) = %q, %q; read again it is %q, %q, %v", body, got, leftOut, again, more, err)
		}
		keys, faults := jose.ParseSet([]byte(got), options)
		if len(keys) == 0 || len(faults) > 0 {
			t.Errorf("read(%q) = %q: %d keys, faults %v", body, got, len(keys), faults)
		}
		for _, k := range keys {
			if k.Symmetric() {
				t.Errorf("read(%q) = %q holds a shared secret", body, got)
			}
		}
	})
}
