package jose

import (
	"errors"
	"strings"
	"testing"
)

// Members of keys that the RFCs print, so that anybody can check the tests against them.
const (
	// RFC 7638, section 3.1
	n7638          = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"
	thumbprint7638 = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"
	// RFC 7515, appendix A.1 to A.3
	k7515A1 = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
	n7515A2 = "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"
	x7515A3 = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"
	y7515A3 = "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
	// RFC 8037, appendix A.2 and A.3
	x8037          = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
	thumbprint8037 = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"

	rsaJWK = `{"kty":"RSA","n":"` + n7638 + `","e":"AQAB"}`
	ecJWK  = `{"kty":"EC","crv":"P-256","x":"` + x7515A3 + `","y":"` + y7515A3 + `"}`
	okpJWK = `{"kty":"OKP","crv":"Ed25519","x":"` + x8037 + `"}`
	octJWK = `{"kty":"oct","k":"` + k7515A1 + `"}`
)

const (
	token7515A1 = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
	token7515A2 = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
	token7515A3 = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
	token7515A5 = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ."
	token8037A4 = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
)

// The thumbprints printed in RFC 7638 and RFC 8037 are what Thumbprint gives, whatever
// kid and alg say.
func TestRFCThumbprint(t *testing.T) {
	for jwk, want := range map[string]string{rsaJWK: thumbprint7638, okpJWK: thumbprint8037} {
		k := mustSet(t, SetOptions{}, jwk)[0]
		if got := k.Thumbprint(); got != want {
			t.Errorf("Thumbprint of %s = %s, want %s", jwk, got, want)
		}
	}
}

// The compact examples of RFC 7515, appendix A, verify, and their signatures count.
func TestRFC7515Examples(t *testing.T) {
	for name, tt := range map[string]struct{ jwk, token string }{
		"A.1 HS256": {octJWK, token7515A1},
		"A.2 RS256": {`{"kty":"RSA","n":"` + n7515A2 + `","e":"AQAB"}`, token7515A2},
		"A.3 ES256": {ecJWK, token7515A3},
	} {
		t.Run(name, func(t *testing.T) {
			keys := mustSet(t, SetOptions{}, tt.jwk)
			got, err := Verify(tt.token, keys, VerifyOptions{})
			if err != nil || !strings.Contains(string(got.Claims), `"iss":"joe"`) {
				t.Fatalf("Verify = %q, %v; want joe's claims", got.Claims, err)
			}
			head, sig, _ := cutLast(tt.token)
			other := "B" + sig[1:]
			if sig[0] == 'B' {
				other = "C" + sig[1:]
			}
			if _, err := Verify(head+"."+other, keys, VerifyOptions{}); !errors.Is(err, ErrSignature) {
				t.Errorf("Verify with a changed signature = %v, want ErrSignature", err)
			}
		})
	}
}

// Examples that are no JWT are refused: A.5 is unsigned, RFC 8037 A.4 signs plain text
// (its signature alone is right).
func TestRFCExamplesRefused(t *testing.T) {
	keys := mustSet(t, SetOptions{}, okpJWK)
	if _, err := Verify(token7515A5, keys, VerifyOptions{}); !errors.Is(err, ErrAlgorithm) {
		t.Errorf("Verify(RFC 7515 A.5) = %v, want ErrAlgorithm", err)
	}
	if _, err := Verify(token8037A4, keys, VerifyOptions{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("Verify(RFC 8037 A.4) = %v, want ErrMalformed", err)
	}
	input, encodedSig, _ := cutLast(token8037A4)
	sig, err := decodeBase64(encodedSig)
	if err != nil || !keys[0].data.get().verify(input, sig) {
		t.Errorf("signature of RFC 8037 A.4 does not verify (%v)", err)
	}
}

func cutLast(token string) (before, after string, ok bool) {
	i := strings.LastIndexByte(token, '.')
	return token[:i], token[i+1:], i >= 0
}

func set(jwks ...string) string { return `{"keys":[` + strings.Join(jwks, ",") + `]}` }

func mustSet(t testing.TB, o SetOptions, jwks ...string) []Key {
	t.Helper()
	keys, faults := ParseSet([]byte(set(jwks...)), o)
	if len(faults) > 0 || len(keys) == 0 {
		t.Fatalf("ParseSet(%s) = %v, %v; want keys and no faults", set(jwks...), keys, faults)
	}
	return keys
}
