package jose

import (
	"strings"
	"testing"
)

// Keys that come out of a set come out of the set of their JWKs again, and no key is
// both refused and returned.
func FuzzParseSet(f *testing.F) {
	for _, s := range []string{set(rsaJWK), set(ecJWK, okpJWK), set(octJWK, with(ecJWK, "kid", q("a"), "x5c", "[]")), ecJWK, `{"keys":[{}]}`, `{"keys":["\ud83d\ude00",{"a":{"b":[1,{}]}}]}`, "-----BEGIN"} {
		f.Add(s, "")
		f.Add(s, "RS256,PS256,HS256,HS384,ES256")
	}
	f.Fuzz(func(t *testing.T, text, allowed string) {
		o := SetOptions{}
		if allowed != "" {
			o.Algorithms = strings.Split(allowed, ",")
		}
		keys, faults := ParseSet([]byte(text), o)
		if len(keys) == 0 && len(faults) == 0 {
			t.Errorf("ParseSet(%q) = no keys and no faults", text)
		}
		checkKeys(t, keys, o)
	})
}

// A text gives one Key or faults, never both or neither, and the Key is as sound as one of a set.
func FuzzParsePEM(f *testing.F) {
	public, pkcs1, cert, private := rsaPEMs(f, 2048)
	for _, s := range []string{public, pkcs1, cert, private, public + cert, "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"} {
		f.Add(s, "a")
	}
	f.Fuzz(func(t *testing.T, text, kid string) {
		keys, faults := ParsePEM(text, kid, SetOptions{})
		if (len(keys) == 0) != (len(faults) > 0) {
			t.Errorf("ParsePEM(%q, %q) = %d keys and faults %v", text, kid, len(keys), faults)
		}
		checkKeys(t, keys, SetOptions{})
	})
}

func checkKeys(t *testing.T, keys []Key, o SetOptions) {
	t.Helper()
	var jwks []string
	for _, k := range keys {
		again, faults := ParseSet([]byte(set(k.JWK())), o)
		if len(faults) > 0 || len(again) != 1 || !again[0].Equal(k) {
			t.Errorf("JWK %s parses as %v, %v", k.JWK(), again, faults)
		}
		jwks = append(jwks, k.JWK())
	}
	// With an allow-list one JWK may have become several of one kid.
	if len(keys) == 0 || len(o.Algorithms) > 0 || len(set(jwks...)) > maxSetBytes {
		return
	}
	again, faults := ParseSet([]byte(set(jwks...)), o)
	if len(faults) > 0 || len(again) != len(keys) {
		t.Fatalf("%s parses as %v, %v", set(jwks...), again, faults)
	}
	for i := range keys {
		if !keys[i].Equal(again[i]) {
			t.Errorf("key %d of %s changed to %s", i, set(jwks...), again[i].JWK())
		}
	}
}

// Whatever verifies is one text: its three segments, decoded and encoded again, are the token.
func FuzzVerify(f *testing.F) {
	for _, s := range []string{token7515A1, token7515A2, token7515A3, token7515A5, token8037A4, signHS(`{"alg":"HS256","kid":"a"}`, someClaims)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, token string) {
		keys := mustSet(t, SetOptions{}, ecJWK, with(octJWK, "kid", q("a")), with(okpJWK, "kid", q("b")))
		u, err := ParseUnverified(token)
		got, verr := Verify(token, keys, VerifyOptions{})
		if err != nil && verr == nil {
			t.Fatalf("Verify(%q) accepts what ParseUnverified refuses: %v", token, err)
		}
		if err != nil {
			return
		}
		_, sig, _ := cutLast(token)
		header, rest, _ := strings.Cut(token, ".")
		if back := header + "." + encode(u.Claims()) + "." + encode(u.signature); back != token || rest == "" || encode(mustDecode(sig)) != sig {
			t.Errorf("token %q reads back as %q", token, back)
		}
		if verr == nil && !got.Key.Equal(keys[0]) && !got.Key.Equal(keys[1]) && !got.Key.Equal(keys[2]) {
			t.Errorf("Verify(%q) used key %v, which is none of ours", token, got.Key)
		}
	})
}
