package tokens

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/internal/jose"
)

func selfSigned(tb testing.TB, change ...func(*SelfSignedConfig)) (*SelfSigned, *ecdsa.PrivateKey) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	c := SelfSignedConfig{Issuer: "https://robot.test", Subject: "spiffe://mesh.test/robot", Key: key, KeyID: "robot-1", Algorithm: "ES256"}
	for _, do := range change {
		do(&c)
	}
	s, err := NewSelfSigned(c)
	if err != nil {
		tb.Fatalf("NewSelfSigned: %v", err)
	}
	return s, key
}

// A token says what verifiers ask of services that sign for themselves, under the
// key's kid, and is signed anew after half of its life.
func TestSelfSigned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, key := selfSigned(t)
		first := mustToken(t, s, "orders")
		k, err := jose.NewPrivateKey(key, "ES256")
		if err == nil {
			k, err = k.WithID("robot-1")
		}
		if err != nil {
			t.Fatal(err)
		}
		verified, err := jose.Verify(first.Value, []jose.Key{k.Public()}, jose.VerifyOptions{Types: []string{"at+jwt"}})
		if err != nil || verified.Header.KeyID != "robot-1" {
			t.Fatalf("Verify: %v, kid %q", err, verified.Header.KeyID)
		}
		var claims map[string]any
		if err := json.Unmarshal(verified.Claims, &claims); err != nil {
			t.Fatal(err)
		}
		now := float64(time.Now().Unix())
		want := map[string]any{"iss": "https://robot.test", "sub": "spiffe://mesh.test/robot", "aud": "orders", "jti": claims["jti"], "iat": now, "nbf": now, "exp": now + 60}
		if diff := cmp.Diff(want, claims); diff != "" || len(claims["jti"].(string)) < 26 {
			t.Errorf("claims (-want +got):\n%s", diff)
		}
		time.Sleep(29 * time.Second)
		if !mustToken(t, s, "orders").same(first) {
			t.Error("signed anew before half of its life")
		}
		time.Sleep(time.Second)
		if mustToken(t, s, "orders").same(first) {
			t.Error("not signed anew after half of its life")
		}
	})
}

// A refused token is signed anew, not at each call.
func TestSelfSignedRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := selfSigned(t)
		first := mustToken(t, s, "orders")
		if !s.Refused("orders", first) || mustToken(t, s, "orders").same(first) {
			t.Error("the refused token is given out again")
		}
		second := mustToken(t, s, "orders")
		if !s.Refused("orders", first) || !mustToken(t, s, "orders").same(second) {
			t.Error("a late refusal of the first: want true, and the second stays")
		}
		if s.Refused("orders", second) || s.Refused("unknown", second) {
			t.Error("a second refusal a moment later: want false")
		}
		time.Sleep(refusedPause)
		if !s.Refused("orders", second) {
			t.Error("after the pause: want true")
		}
	})
}

// Many ask at once: one signature each audience, and no more audiences than allowed.
func TestSelfSignedIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := selfSigned(t, func(c *SelfSignedConfig) { c.MaxAudiences = 2 })
		first := mustToken(t, s, "a")
		mustToken(t, s, "b")
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if !mustToken(t, s, "a").same(first) {
					t.Error("signed twice")
				}
				if _, err := s.Token(t.Context(), "c"); err == nil || !strings.Contains(err.Error(), "raise MaxAudiences") {
					t.Errorf("a third audience: %v", err)
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Minute)
		mustToken(t, s, "c")
		if _, err := s.Token(t.Context(), ""); err == nil {
			t.Error("a token for no audience")
		}
	})
}

// Neither the key nor a token is in what is printed.
func TestSelfSignedIsNotShown(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := SelfSignedConfig{Issuer: "i", Subject: "s", Key: key, KeyID: "k", Algorithm: "EdDSA"}
	s, err := NewSelfSigned(c)
	if err != nil {
		t.Fatal(err)
	}
	token := mustToken(t, s, "orders")
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%d", "%s"} {
		out := fmt.Sprintf(verb, s) + fmt.Sprintf(verb, c) + fmt.Sprintf(verb, &c)
		for _, secret := range []string{token.Value, fmt.Sprintf("%x", []byte(key)), strings.Trim(fmt.Sprint([]byte(key)), "[]"), fmt.Sprintf("%#v", []byte(key))} {
			if strings.Contains(out, secret[:40]) {
				t.Errorf("%s shows a secret: %s", verb, out)
			}
		}
	}
}

// What verifiers would refuse is not made.
func TestSelfSignedRefuses(t *testing.T) {
	_, key := selfSigned(t)
	good := SelfSignedConfig{Issuer: "i", Subject: "s", Key: key, KeyID: "k", Algorithm: "ES256"}
	for _, c := range []struct {
		change func(*SelfSignedConfig)
		want   string
	}{
		{func(c *SelfSignedConfig) { c.Issuer = "" }, "no Issuer"},
		{func(c *SelfSignedConfig) { c.Subject = "" }, "no Subject"},
		{func(c *SelfSignedConfig) { c.KeyID = "" }, "no KeyID"},
		{func(c *SelfSignedConfig) { c.Key = nil }, "there is none"},
		{func(c *SelfSignedConfig) { c.Algorithm = "RS256" }, "use ES256"},
		{func(c *SelfSignedConfig) { c.Lifetime = 2 * time.Hour }, "to an hour"},
		{func(c *SelfSignedConfig) { c.Lifetime = -1 }, "to an hour"},
	} {
		config := good
		c.change(&config)
		if _, err := NewSelfSigned(config); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("NewSelfSigned: %v; want an error with %q", err, c.want)
		}
	}
}
