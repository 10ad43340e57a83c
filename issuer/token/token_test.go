package token_test

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/internal/jose"
	"github.com/watchword-mesh/watchword/issuer/token"
)

func key(t *testing.T) *jose.PrivateKey {
	t.Helper()
	k, err := jose.GenerateKey("ES256")
	if err != nil {
		t.Fatalf("GenerateKey: %v", err)
	}
	return k
}

func claims() token.Claims {
	issued := time.Date(2027, 3, 1, 12, 0, 0, 900e6, time.UTC)
	return token.Claims{
		Issuer:   "https://sts.example.com",
		Subject:  token.SubjectOf("example.com", "shop"),
		Audience: "orders",
		ClientID: "shop",
		Scope:    "read write",
		ID:       "id-1",
		IssuedAt: issued,
		Expiry:   issued.Add(5 * time.Minute),
	}
}

// The claims of RFC 9068 section 2.2, in whole seconds, and nothing else.
func TestMintWritesTheClaims(t *testing.T) {
	k := key(t)
	withoutScope := claims()
	withoutScope.Scope = ""
	byInstance := withoutScope
	byInstance.Instance = "abc"
	for _, c := range []struct {
		name   string
		claims token.Claims
		want   string
	}{
		{"with scope", claims(), `{"iss":"https://sts.example.com","sub":"spiffe://example.com/shop","aud":"orders","client_id":"shop","scope":"read write","jti":"id-1","iat":1803902400,"nbf":1803902400,"exp":1803902700}`},
		{"without scope", withoutScope, `{"iss":"https://sts.example.com","sub":"spiffe://example.com/shop","aud":"orders","client_id":"shop","jti":"id-1","iat":1803902400,"nbf":1803902400,"exp":1803902700}`},
		{"by an instance", byInstance, `{"iss":"https://sts.example.com","sub":"spiffe://example.com/shop","aud":"orders","client_id":"shop","instance":"abc","jti":"id-1","iat":1803902400,"nbf":1803902400,"exp":1803902700}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			signed, err := token.Mint(k.Signer("at+jwt"), c.claims)
			if err != nil {
				t.Fatalf("Mint(%+v): %v", c.claims, err)
			}
			got, err := jose.Verify(signed, []jose.Key{k.Public()}, jose.VerifyOptions{Types: []string{"at+jwt"}})
			if err != nil {
				t.Fatalf("Verify: %v", err)
			}
			if string(got.Claims) != c.want {
				t.Errorf("Mint(%+v)\n got %s\nwant %s", c.claims, got.Claims, c.want)
			}
		})
	}
}

// A token that a lax verifier would take too widely or for too long is never made.
func TestMintRefuses(t *testing.T) {
	s := key(t).Signer("at+jwt")
	for _, c := range []struct {
		name   string
		change func(*token.Claims)
		want   string
	}{
		{"no issuer", func(c *token.Claims) { c.Issuer = "" }, "must have iss"},
		{"no subject", func(c *token.Claims) { c.Subject = "" }, "must have sub"},
		{"no audience", func(c *token.Claims) { c.Audience = "" }, "must have aud"},
		{"no client", func(c *token.Claims) { c.ClientID = "" }, "must have client_id"},
		{"no ID", func(c *token.Claims) { c.ID = "" }, "must have jti"},
		{"no time of issue", func(c *token.Claims) { c.IssuedAt = time.Time{} }, "must have iat"},
		{"no expiry", func(c *token.Claims) { c.Expiry = time.Time{} }, "not after iat"},
		{"expiry in the same second", func(c *token.Claims) { c.Expiry = c.IssuedAt.Add(50 * time.Millisecond) }, "not after iat"},
		{"wildcard", func(c *token.Claims) { c.Audience = "*" }, "not a pattern"},
		{"pattern", func(c *token.Claims) { c.Audience = "orders-*" }, "not a pattern"},
		{"line break in the audience", func(c *token.Claims) { c.Audience = "orders\n" }, "control characters"},
		{"NUL in the subject", func(c *token.Claims) { c.Subject += "\x00" }, "control characters"},
		{"C1 control in the scope", func(c *token.Claims) { c.Scope = "a\u0085b" }, "control characters"},
		{"line break in the instance", func(c *token.Claims) { c.Instance = "a\nb" }, "control characters"},
		{"invalid UTF-8 in the client", func(c *token.Claims) { c.ClientID = "shop\xff" }, "UTF-8"},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := claims()
			c.change(&in)
			got, err := token.Mint(s, in)
			if err == nil || !strings.Contains(err.Error(), c.want) || got != "" {
				t.Errorf("Mint(%+v) = %q, %v; want an error with %q", in, got, err, c.want)
			}
		})
	}
}

func TestNewIDHas128RandomBits(t *testing.T) {
	base32 := regexp.MustCompile(`^[A-Z2-7]{26,}$`) // 5 bits each
	seen := map[string]bool{}
	for range 1000 {
		id := token.NewID()
		if !base32.MatchString(id) || seen[id] {
			t.Fatalf("NewID() = %q (seen before: %v), want a new one like %s", id, seen[id], base32)
		}
		seen[id] = true
	}
}
