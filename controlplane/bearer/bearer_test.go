package bearer_test

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/controlplane/bearer"
	"github.com/watchword-mesh/watchword/internal/jose"
)

var now = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

func key(t testing.TB, alg string) *jose.PrivateKey {
	t.Helper()
	k, err := jose.GenerateKey(alg)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sign(t testing.TB, k *jose.PrivateKey, claims map[string]any) string {
	t.Helper()
	text, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	token, err := k.Signer("JWT").Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// with are good claims with some others; nil takes one out.
func with(change map[string]any) map[string]any {
	c := map[string]any{"iss": "https://id.example", "sub": "alice", "aud": "watchword-admin", "exp": now.Unix() + 60, "iat": now.Unix(), "groups": []string{"admins"}, "n": 12345678901234567}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

func TestVerify(t *testing.T) {
	k := key(t, "ES256")
	issuers := []bearer.Issuer{{Name: "other", Issuer: "https://other.example"}, {Name: "corp", Issuer: "https://id.example", Keys: []jose.Key{k.Public()}}}
	got, err := bearer.Verify(sign(t, k, with(nil)), issuers, now)
	want := bearer.Token{Issuer: "corp", Subject: "alice", Audience: []string{"watchword-admin"}, IssuedAt: now,
		Claims: map[string]any{"iss": "https://id.example", "sub": "alice", "aud": "watchword-admin", "exp": json.Number("1803902460"), "iat": json.Number("1803902400"), "groups": []any{"admins"}, "n": json.Number("12345678901234567")}}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("token (-want +got):\n%s", diff)
	}
	for _, tt := range []struct {
		audiences []string
		want      bool
	}{{[]string{"watchword-admin"}, true}, {[]string{"x", "watchword-admin"}, true}, {[]string{"x"}, false}, {nil, false}, {[]string{""}, false}} {
		if got.For(tt.audiences...) != tt.want {
			t.Errorf("For(%q) of %q is not %t", tt.audiences, got.Audience, tt.want)
		}
	}
}

// Whatever is not exactly right is refused, and the error has nothing of the token.
func TestVerifyRefuses(t *testing.T) {
	k, stranger := key(t, "ES256"), key(t, "ES256")
	secret, faults := jose.ParseSet([]byte(`{"keys":[{"kty":"oct","alg":"HS256","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}]}`), jose.SetOptions{})
	if len(faults) > 0 {
		t.Fatal(faults)
	}
	issuers := []bearer.Issuer{{Name: "nameless", Keys: []jose.Key{k.Public()}}, {Name: "corp", Issuer: "https://id.example", Keys: append(secret, k.Public())}}
	for _, tt := range []struct {
		name, token, want string
	}{
		{"nothing", "", "malformed"},
		{"another issuer", sign(t, k, with(map[string]any{"iss": "https://evil.example"})), "no issuer"},
		{"no issuer", sign(t, k, with(map[string]any{"iss": nil})), "no issuer"},
		{"another key", sign(t, stranger, with(nil)), "key is unknown"},
		{"expired", sign(t, k, with(map[string]any{"exp": now.Unix() - 30})), "has expired"},
		{"no exp", sign(t, k, with(map[string]any{"exp": nil})), "no exp"},
		{"exp in another case", sign(t, k, with(map[string]any{"exp": nil, "EXP": now.Unix() + 60})), "no exp"},
		{"exp null", sign(t, k, map[string]any{"iss": "https://id.example", "sub": "alice", "aud": "a", "exp": nil}), "no exp"},
		{"exp text", sign(t, k, with(map[string]any{"exp": "1803902460"})), "type"},
		{"exp far away", sign(t, k, with(map[string]any{"exp": 1e300})), "type"},
		{"no sub", sign(t, k, with(map[string]any{"sub": nil})), "no sub"},
		{"sub a number", sign(t, k, with(map[string]any{"sub": 1})), "type"},
		{"no aud", sign(t, k, with(map[string]any{"aud": nil})), "no aud"},
		{"aud empty", sign(t, k, with(map[string]any{"aud": []string{}})), "no aud"},
		{"aud with an empty one", sign(t, k, with(map[string]any{"aud": []string{"watchword-admin", ""}})), "no aud"},
		{"aud in another case", sign(t, k, with(map[string]any{"aud": nil, "Aud": "watchword-admin"})), "no aud"},
		{"not yet", sign(t, k, with(map[string]any{"nbf": now.Unix() + 31})), "not valid before"},
		{"of the future", sign(t, k, with(map[string]any{"iat": now.Unix() + 31})), "of the future"},
		{"too long", sign(t, k, with(map[string]any{"x": strings.Repeat("x", 16<<10)})), "bytes"},
	} {
		got, err := bearer.Verify(tt.token, issuers, now)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Verify = %+v, %v; want an error with %q", tt.name, got, err, tt.want)
		} else if strings.Contains(err.Error(), "alice") || len(tt.token) > 20 && strings.Contains(err.Error(), tt.token[:20]) {
			t.Errorf("%s: the error shows the token: %v", tt.name, err)
		}
	}
}

// No bytes make Verify panic, and none without our signature pass.
func FuzzVerify(f *testing.F) {
	k := key(f, "ES256")
	good := sign(f, k, with(nil))
	f.Add(good)
	f.Add("e30.e30.")
	f.Add("eyJhbGciOiJub25lIn0.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUifQ.")
	issuers := []bearer.Issuer{{Name: "corp", Issuer: "https://id.example", Keys: []jose.Key{k.Public()}}}
	f.Fuzz(func(t *testing.T, token string) {
		if got, err := bearer.Verify(token, issuers, now); err == nil && token != good {
			t.Errorf("Verify(%q) = %+v", token, got)
		}
	})
}
