package jose

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
)

const someClaims = `{"iss":"https://a","sub":"b","n":[1,{"x":null}]}`

// signHS signs any header and claims text with the secret of RFC 7515, A.1.
func signHS(header, claims string) string {
	return sealHS(encode([]byte(header)) + "." + encode([]byte(claims)))
}

func sealHS(input string) string {
	h := hmac.New(sha256.New, mustDecode(k7515A1))
	h.Write([]byte(input))
	return input + "." + encode(h.Sum(nil))
}

// Every refusal of a token. All but those that say otherwise carry a right signature, so
// it is the strictness that refuses.
func TestVerifyRefuses(t *testing.T) {
	const hs = `{"alg":"HS256"}`
	keys := mustSet(t, SetOptions{}, with(octJWK, "kid", q("a")), with(ecJWK, "kid", q("e")))
	good := signHS(hs, someClaims)
	if _, err := Verify(good, keys, VerifyOptions{}); err != nil {
		t.Fatalf("Verify(%s) = %v, want no error", good, err)
	}
	parts := strings.Split(good, ".")
	deep := `{"a":` + strings.Repeat("[", 32) + strings.Repeat("]", 32) + "}"
	for name, tt := range map[string]struct {
		token string
		o     VerifyOptions
		want  error
		text  string
	}{
		"empty":              {token: "", want: ErrMalformed, text: "not three segments joined by dots (compact JWS)"},
		"two segments":       {token: parts[0] + "." + parts[1], want: ErrMalformed, text: "not three segments joined by dots (compact JWS)"},
		"four segments":      {token: good + ".", want: ErrMalformed, text: "not three segments joined by dots (compact JWS)"},
		"leading dot":        {token: "." + good, want: ErrMalformed, text: "not three segments joined by dots (compact JWS)"},
		"leading space":      {token: " " + good, want: ErrMalformed, text: "header is not canonical base64url without padding"},
		"trailing newline":   {token: good + "\n", want: ErrMalformed, text: "signature is not canonical base64url without padding"},
		"inner line break":   {token: sealHS(parts[0] + "." + parts[1][:4] + "\r\n" + parts[1][4:]), want: ErrMalformed, text: "claims is not canonical base64url without padding"},
		"padding":            {token: sealHS(parts[0]+"."+encode([]byte(`{"a":1}`))+"==") + "", want: ErrMalformed, text: "claims is not canonical base64url without padding"},
		"padded signature":   {token: good + "=", want: ErrMalformed, text: "signature is not canonical base64url without padding"},
		"standard alphabet":  {token: sealHS(parts[0] + "." + "eyJhIjoi8J+YgCJ9"), want: ErrMalformed, text: "claims is not canonical base64url without padding"},
		"spare bits":         {token: sealHS(parts[0] + "." + "e31"), want: ErrMalformed, text: "claims is not canonical base64url without padding"},
		"JSON serialisation": {token: fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2]), want: ErrMalformed, text: "not three segments joined by dots (compact JWS)"},
		"empty header":       {token: sealHS("." + parts[1]), want: ErrMalformed, text: "header: not JSON: syntax error at byte 0"},
		"header no object":   {token: signHS(`["HS256"]`, someClaims), want: ErrMalformed, text: "header: not a JSON object"},
		"header duplicate":   {token: signHS(`{"alg":"HS256","alg":"HS256"}`, someClaims), want: ErrMalformed, text: `header: member "alg" appears twice in one object; parsers disagree on which counts`},
		"header dup escaped": {token: signHS(`{"alg":"HS256","a\u006Cg":"none"}`, someClaims), want: ErrMalformed, text: `header: member "alg" appears twice in one object; parsers disagree on which counts`},
		"header over 4 KiB":  {token: signHS(`{"alg":"HS256","x":"`+strings.Repeat("a", 4096)+`"}`, someClaims), want: ErrMalformed, text: "header: 4118 bytes; at most 4096 are read"},
		"no alg":             {token: signHS(`{}`, someClaims), want: ErrMalformed, text: "header: no alg"},
		"ALG":                {token: signHS(`{"ALG":"HS256"}`, someClaims), want: ErrMalformed, text: "header: no alg"},
		"alg null":           {token: signHS(`{"alg":null}`, someClaims), want: ErrMalformed, text: "header: alg is not a string"},
		"kid number":         {token: signHS(`{"alg":"HS256","kid":1}`, someClaims), want: ErrMalformed, text: "header: kid is not a string"},
		"typ array":          {token: signHS(`{"alg":"HS256","typ":[]}`, someClaims), want: ErrMalformed, text: "header: typ is not a string"},
		"crit unknown":       {token: signHS(`{"alg":"HS256","crit":["x"],"x":1}`, someClaims), want: ErrMalformed, text: "header: crit is not accepted; sign without extensions"},
		"crit empty":         {token: signHS(`{"alg":"HS256","crit":[]}`, someClaims), want: ErrMalformed, text: "header: crit is not accepted; sign without extensions"},
		"crit null":          {token: signHS(`{"alg":"HS256","crit":null}`, someClaims), want: ErrMalformed, text: "header: crit is not accepted; sign without extensions"},
		"b64":                {token: signHS(`{"alg":"HS256","b64":true}`, someClaims), want: ErrMalformed, text: "header: b64 is not accepted; sign without extensions"},
		"claims no object":   {token: signHS(hs, `"text"`), want: ErrMalformed, text: "claims: not a JSON object"},
		"claims no JSON":     {token: signHS(hs, `{"a":1,}`), want: ErrMalformed, text: "claims: not JSON: syntax error at byte 8"},
		"claims empty":       {token: signHS(hs, ""), want: ErrMalformed, text: "claims: not JSON: syntax error at byte 0"},
		"claims duplicate":   {token: signHS(hs, `{"sub":"a","sub":"b"}`), want: ErrMalformed, text: `claims: member "sub" appears twice in one object; parsers disagree on which counts`},
		"claims dup deep":    {token: signHS(hs, `{"a":[{"b":{"c":1,"c":1}}]}`), want: ErrMalformed, text: `claims: member "c" appears twice in one object; parsers disagree on which counts`},
		"claims dup many":    {token: signHS(hs, manyMembers(40)+`,"m7":0}`), want: ErrMalformed, text: `claims: member "m7" appears twice in one object; parsers disagree on which counts`},
		"claims not UTF-8":   {token: signHS(hs, "{\"a\":\"\xff\"}"), want: ErrMalformed, text: "claims: not JSON: not UTF-8 text"},
		"claims surrogate":   {token: signHS(hs, `{"a":"\uDC00"}`), want: ErrMalformed, text: "claims: a string holds half of a surrogate pair"},
		"depth 33":           {token: signHS(hs, deep), want: ErrMalformed, text: "claims: JSON nested deeper than 32"},
		"over 16 KiB":        {token: signHS(hs, `{"a":"`+strings.Repeat("a", 16384)+`"}`), want: ErrMalformed, text: "21921 bytes; at most 16384 are read"},
		"none":               {token: encode([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".", want: ErrAlgorithm, text: `alg "none" means no signature at all and is never accepted; name the algorithm the key signs with`},
		"NonE":               {token: signHS(`{"alg":"NonE"}`, someClaims), want: ErrAlgorithm, text: `alg "NonE" means no signature at all and is never accepted; name the algorithm the key signs with`},
		"unknown alg":        {token: signHS(`{"alg":"ES256K"}`, someClaims), want: ErrAlgorithm, text: `alg "ES256K" is not known; ` + known},
		"alg of no key":      {token: signHS(`{"alg":"HS512"}`, someClaims), want: ErrAlgorithm, text: "no key that the token may use is for alg HS512"},
		"alg of other kid":   {token: signHS(`{"alg":"HS256","kid":"e"}`, someClaims), want: ErrAlgorithm, text: "no key that the token may use is for alg HS256"},
		"kid unknown":        {token: signHS(`{"alg":"HS256","kid":"b"}`, someClaims), want: ErrKeyUnknown, text: `no key has kid "b"`},
		"typ not accepted":   {token: signHS(`{"alg":"HS256","typ":"dpop+jwt"}`, someClaims), o: VerifyOptions{Types: []string{"at+jwt"}}, want: ErrMalformed, text: `typ "dpop+jwt" is not accepted; accepted: ["at+jwt"]`},
		"typ missing":        {token: good, o: VerifyOptions{Types: []string{"at+jwt"}}, want: ErrMalformed, text: `typ "" is not accepted; accepted: ["at+jwt"]`},
		"no signature":       {token: parts[0] + "." + parts[1] + ".", want: ErrSignature, text: "none of 1 keys verifies it (HS256)"},
		"changed claims":     {token: parts[0] + "." + encode([]byte(`{"sub":"root"}`)) + "." + parts[2], want: ErrSignature, text: "none of 1 keys verifies it (HS256)"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Verify(tt.token, keys, tt.o)
			if want := tt.want.Error() + ": " + tt.text; !errors.Is(err, tt.want) || err.Error() != want {
				t.Errorf("Verify(%.200s)\n got %v\nwant %s", tt.token, err, want)
			}
		})
	}
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"m%d":%d`, i, i)
	}
	return "{" + b.String()[1:]
}

// What looks odd but is one thing to every parser is accepted.
func TestVerifyAccepts(t *testing.T) {
	keys := mustSet(t, SetOptions{}, with(octJWK, "kid", q("a")))
	for name, tt := range map[string]struct {
		token string
		types []string
	}{
		"depth 32":            {token: signHS(`{"alg":"HS256"}`, `{"a":`+strings.Repeat("[", 31)+strings.Repeat("]", 31)+"}")},
		"pair and escapes":    {token: signHS(`{"alg":"HS256"}`, `{"\ud83d\ude00\"\\":"\ud83d\ude00\u00e9\n"}`)},
		"white space in JSON": {token: signHS("{ \"alg\" :\r\n \"HS256\" }", " { \"a\" : [ 1 , 2 , { } , [ ] ] , \"b\" : -1.5e3 } ")},
		"many members":        {token: signHS(`{"alg":"HS256"}`, manyMembers(40)+"}")},
		"empty kid":           {token: signHS(`{"alg":"HS256","kid":""}`, "{}")},
		"embedded keys":       {token: signHS(`{"alg":"HS256","jwk":{"kty":"oct","k":"AA"},"jku":"http://x","x5u":"http://x","x5c":[]}`, "{}")},
		"typ media type":      {token: signHS(`{"alg":"HS256","typ":"application/AT+JWT"}`, "{}"), types: []string{"JWT", "at+jwt"}},
		"typ absent, allowed": {token: signHS(`{"alg":"HS256"}`, "{}"), types: []string{"JWT", ""}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Verify(tt.token, keys, VerifyOptions{Types: tt.types}); err != nil {
				t.Errorf("Verify(%s) = %v, want no error", tt.token, err)
			}
		})
	}
}

// Which keys a token may use, as Envoy chooses: kid known, unknown or absent, with and
// without a kid-less key in the set. Only key "a" (or the kid-less one) made the signature.
func TestVerifyChoosesKeys(t *testing.T) {
	signer := with(octJWK, "kid", q("a"))
	bare := octJWK
	other := with(octJWK, "kid", q("z"), "k", q(encode(bytes.Repeat([]byte{7}, 32))))
	bareOther := with(octJWK, "k", q(encode(bytes.Repeat([]byte{8}, 32))))
	for name, tt := range map[string]struct {
		kid  string
		set  []string
		want error
	}{
		"its kid":                       {"a", []string{other, signer}, nil},
		"its kid beside a kid-less key": {"a", []string{bareOther, signer}, nil},
		"no kid tries all":              {"", []string{other, bareOther, signer}, nil},
		"unknown kid":                   {"b", []string{other, signer}, ErrKeyUnknown},
		"unknown kid, kid-less key":     {"b", []string{other, bare}, nil},
		"unknown kid, wrong kid-less":   {"b", []string{bareOther, signer}, ErrSignature},
		"kid of another, kid-less key":  {"z", []string{other, bare}, nil},
		"kid of another":                {"z", []string{other, signer}, ErrSignature},
	} {
		t.Run(name, func(t *testing.T) {
			header := `{"alg":"HS256"}`
			if tt.kid != "" {
				header = `{"alg":"HS256","kid":"` + tt.kid + `"}`
			}
			_, err := Verify(signHS(header, "{}"), mustSet(t, SetOptions{}, tt.set...), VerifyOptions{})
			if !errors.Is(err, tt.want) {
				t.Errorf("Verify with kid %q against %v = %v, want %v", tt.kid, tt.set, err, tt.want)
			}
		})
	}
}

// The public key of RS256 as secret of HS256 (PEM, DER, modulus) signs nothing.
func TestAlgorithmConfusion(t *testing.T) {
	k, err := GenerateKey("RS256")
	if err != nil {
		t.Fatal(err)
	}
	public := k.data.get().signer.Public()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range [][]byte{der, public.(*rsa.PublicKey).N.Bytes(), pemOf("PUBLIC KEY", der), []byte(k.Public().JWK())} {
		input := encode([]byte(`{"alg":"HS256","kid":"`+k.ID()+`"}`)) + "." + encode([]byte("{}"))
		h := hmac.New(sha256.New, secret)
		h.Write([]byte(input))
		_, err := Verify(input+"."+encode(h.Sum(nil)), []Key{k.Public()}, VerifyOptions{})
		if !errors.Is(err, ErrAlgorithm) {
			t.Errorf("Verify with the public key as secret = %v, want ErrAlgorithm", err)
		}
	}
}

// ES* signatures have one length, and are no ASN.1; a P-256 signature is none of P-384.
func TestECDSASignatureLength(t *testing.T) {
	for alg, size := range map[string]int{"ES256": 64, "ES384": 96} {
		k, err := GenerateKey(alg)
		if err != nil {
			t.Fatal(err)
		}
		token, err := k.Signer("").Sign([]byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		input, encodedSig, _ := cutLast(token)
		sig := mustDecode(encodedSig)
		if len(sig) != size {
			t.Errorf("%s signature of %d bytes, want %d", alg, len(sig), size)
		}
		der, err := k.data.get().signer.Sign(rand.Reader, algorithmByName[alg].digest([]byte(input)), algorithmByName[alg].hash)
		if err != nil {
			t.Fatal(err)
		}
		half := size / 2
		padded := append(append([]byte{0}, sig[:half]...), append([]byte{0}, sig[half:]...)...)
		for name, bad := range map[string][]byte{"ASN.1": der, "padded": padded, "short": sig[:size-1], "zero": make([]byte, size), "empty": nil} {
			if _, err := Verify(input+"."+encode(bad), []Key{k.Public()}, VerifyOptions{}); !errors.Is(err, ErrSignature) {
				t.Errorf("%s: Verify with %s signature = %v, want ErrSignature", alg, name, err)
			}
		}
	}
}

// keyPair is one algorithm's key as we see it and as jwx does.
type keyPair struct {
	private *PrivateKey // nil for HS*
	public  Key
	raw     any
}

func pairFor(t *testing.T, a *algorithm, rsaKey *rsa.PrivateKey) keyPair {
	t.Helper()
	if a.family == familyHMAC {
		secret := make([]byte, a.hash.Size())
		if _, err := rand.Read(secret); err != nil {
			t.Fatal(err)
		}
		jwk := with(octJWK, "k", q(encode(secret)), "alg", q(a.name))
		return keyPair{public: mustSet(t, SetOptions{}, jwk)[0], raw: secret}
	}
	var raw any = rsaKey
	if a.name == "ES512" {
		k, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		raw = k
	} else if a.kty != ktyRSA {
		k, err := GenerateKey(a.name)
		if err != nil {
			t.Fatal(err)
		}
		raw = k.data.get().signer
	}
	der, err := x509.MarshalPKCS8PrivateKey(raw)
	if err != nil {
		t.Fatal(err)
	}
	private, err := ParsePrivateKey(der, a.name)
	if err != nil {
		t.Fatal(err)
	}
	return keyPair{private: private, public: private.Public(), raw: raw}
}

// All 13 algorithms: what jwx signs we verify, what we sign jwx verifies with the JWK
// that we publish, our kid is jwx's thumbprint, and no algorithm verifies another's token.
func TestAlgorithmsAgainstJWX(t *testing.T) {
	rsaKey := mustRSA(t, 2048)
	var all []Key
	tokens := map[string]string{}
	for _, a := range algorithms {
		pair := pairFor(t, a, rsaKey)
		token, err := jws.Sign([]byte(someClaims), jws.WithKey(jwa.SignatureAlgorithm(a.name), pair.raw))
		if err != nil {
			t.Fatal(err)
		}
		tokens[a.name] = string(token)
		all = append(all, pair.public)
		got, err := Verify(string(token), []Key{pair.public}, VerifyOptions{})
		if err != nil || string(got.Claims) != someClaims || !got.Key.Equal(pair.public) {
			t.Errorf("%s: Verify of jwx's token = %q, %v", a.name, got.Claims, err)
		}
		theirs, err := jwk.ParseKey([]byte(pair.public.JWK()))
		if err != nil {
			t.Fatalf("%s: jwx on our JWK: %v", a.name, err)
		}
		if pair.private == nil {
			continue
		}
		ours, err := pair.private.Signer("at+jwt").Sign([]byte(someClaims))
		if err != nil {
			t.Fatal(err)
		}
		payload, err := jws.Verify([]byte(ours), jws.WithKey(jwa.SignatureAlgorithm(a.name), theirs))
		if err != nil || string(payload) != someClaims {
			t.Errorf("%s: jwx on our token: %q, %v", a.name, payload, err)
		}
		verified, err := Verify(ours, []Key{pair.public}, VerifyOptions{Types: []string{"at+jwt"}})
		if want := (Header{KeyID: pair.private.ID(), Algorithm: a.name, Type: "at+jwt"}); err != nil || verified.Header != want {
			t.Errorf("%s: Verify of our token: header %+v, %v; want %+v", a.name, verified.Header, err, want)
		}
		sum, err := theirs.Thumbprint(crypto.SHA256)
		if err != nil || encode(sum) != pair.private.ID() {
			t.Errorf("%s: ID %s, jwx says %s (%v)", a.name, pair.private.ID(), encode(sum), err)
		}
	}
	for alg, token := range tokens {
		for _, k := range all {
			if _, err := Verify(token, []Key{k}, VerifyOptions{}); (err == nil) != (k.Algorithm() == alg) {
				t.Errorf("token of %s with key of %s: %v", alg, k.Algorithm(), err)
			}
		}
	}
}

// A PS256 signature with another salt length is not what RFC 7518, section 3.5, defines.
func TestPSSSaltLength(t *testing.T) {
	k, err := GenerateKey("PS256")
	if err != nil {
		t.Fatal(err)
	}
	input := encode([]byte(`{"alg":"PS256"}`)) + "." + encode([]byte("{}"))
	a := algorithmByName["PS256"]
	sig, err := k.data.get().signer.Sign(rand.Reader, a.digest([]byte(input)), &rsa.PSSOptions{SaltLength: 20, Hash: a.hash})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(input+"."+encode(sig), []Key{k.Public()}, VerifyOptions{}); !errors.Is(err, ErrSignature) {
		t.Errorf("Verify with a salt of 20 bytes = %v, want ErrSignature", err)
	}
}

// Private keys survive storage, and show in no print or JSON.
func TestPrivateKey(t *testing.T) {
	for _, alg := range []string{"ES256", "ES384", "ES512", "EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"} {
		k, err := GenerateKey(alg)
		if err != nil {
			t.Fatal(err)
		}
		der, err := k.PKCS8()
		if err != nil {
			t.Fatal(err)
		}
		back, err := ParsePrivateKey(der, alg)
		if err != nil || back.ID() != k.ID() || !back.Public().Equal(k.Public()) || k.Public().ID() != k.ID() || back.Algorithm() != alg {
			t.Errorf("%s: ParsePrivateKey(PKCS8) = %v, %v; want %v", alg, back, err, k)
		}
		holder := struct {
			k PrivateKey
			p *PrivateKey
			s *Signer
			v Signer
		}{*k, k, k.Signer(""), *k.Signer("")}
		want := fmt.Sprintf("jose.PrivateKey(kid %q, %s)", k.ID(), alg)
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if got := fmt.Sprintf(verb, k) + fmt.Sprintf(verb, *k); got != want+want {
				t.Errorf("Sprintf(%s) = %s, want %s", verb, got, want)
			}
			// Only addresses and the public header: short. A key would be hundreds of characters.
			out := fmt.Sprintf(verb, holder) + fmt.Sprintf(verb, k.Signer(""))
			for _, secret := range []string{fmt.Sprintf("%x", der[len(der)-8:]), strings.Trim(fmt.Sprint(der[len(der)-8:]), "[]"), "PrivateKey:{", "Primes"} {
				if strings.Contains(out, secret) {
					t.Errorf("Sprintf(%s) of a struct with the key shows it: %s", verb, out)
				}
			}
		}
		if got, err := json.Marshal(map[string]any{"k": k, "v": *k}); err != nil || strings.Count(string(got), "jose.PrivateKey(kid") != 2 {
			t.Errorf("json.Marshal = %s, %v; want names only", got, err)
		}
	}
}

// Keys that cannot sign for alg are refused in words without the key.
func TestPrivateKeyRefuses(t *testing.T) {
	k, err := GenerateKey("ES256")
	if err != nil {
		t.Fatal(err)
	}
	der, err := k.PKCS8()
	if err != nil {
		t.Fatal(err)
	}
	weak, err := x509.MarshalPKCS8PrivateKey(mustRSA(t, 1024))
	if err != nil {
		t.Fatal(err)
	}
	const convert = "convert it with openssl pkcs8 -topk8 -nocrypt -outform DER"
	for name, tt := range map[string]struct {
		der       []byte
		alg, want string
	}{
		"other curve":   {der, "ES384", "signing key: alg ES384 does not fit a key of type EC P-256; use ES256"},
		"HMAC":          {der, "HS256", "signing key: alg HS256 does not fit a key of type EC P-256; use ES256"},
		"unknown alg":   {der, "x", `reading a signing key: alg "x" is not known; ` + known},
		"RSA 1024":      {weak, "RS256", "signing key: RSA key of 1024 bits; use 2048 to 8192"},
		"trailing data": {append(bytes.Clone(der), 0), "ES256", "reading a signing key: not one PKCS #8 structure in DER; " + convert},
		"PEM":           {pemOf("PRIVATE KEY", der), "ES256", "reading a signing key: not one PKCS #8 structure in DER; " + convert},
		"not PKCS #8":   {[]byte{0x30, 0}, "ES256", "reading a signing key: not a PKCS #8 key that can be used; " + convert},
	} {
		if _, err := ParsePrivateKey(tt.der, tt.alg); err == nil || err.Error() != tt.want {
			t.Errorf("%s: ParsePrivateKey\n got %v\nwant %s", name, err, tt.want)
		}
	}
	const want = `generating a signing key: alg "HS256" cannot be generated; use ES256, ES384, ES512, EdDSA, or one of RS and PS with 256, 384 or 512`
	if _, err := GenerateKey("HS256"); err == nil || err.Error() != want {
		t.Errorf("GenerateKey(HS256) = %v, want %s", err, want)
	}
}

// An algorithm that nobody verifies is the first thing that is wrong with a token, as it is
// for Envoy; a critical extension is the last, so that it says that the signature is right.
func TestVerifyOrder(t *testing.T) {
	keys := mustSet(t, SetOptions{}, with(octJWK, "kid", q("a")))
	forged := encode([]byte(`{"alg":"HS256","crit":["x"]}`)) + ".e30.AAAA"
	for name, tt := range map[string]struct {
		token   string
		want    error
		notAlso error
	}{
		"none, no claims":    {encode([]byte(`{"alg":"none"}`)) + ".!.!", ErrAlgorithm, ErrMalformed},
		"none, kid a number": {signHS(`{"kid":1,"alg":"none"}`, "{}"), ErrAlgorithm, ErrMalformed},
		"crit":               {signHS(`{"alg":"HS256","crit":["x"]}`, "{}"), ErrCritical, ErrSignature},
		"crit is malformed":  {signHS(`{"alg":"HS256","crit":["x"]}`, "{}"), ErrMalformed, ErrSignature},
		"b64":                {signHS(`{"alg":"HS256","b64":false}`, "{}"), ErrCritical, ErrSignature},
		"crit, unknown kid":  {signHS(`{"alg":"HS256","crit":["x"],"kid":"b"}`, "{}"), ErrKeyUnknown, ErrCritical},
		"crit, forged":       {forged, ErrSignature, ErrCritical},
	} {
		if _, err := Verify(tt.token, keys, VerifyOptions{}); !errors.Is(err, tt.want) || errors.Is(err, tt.notAlso) {
			t.Errorf("%s: Verify(%s) = %v, want %v, not %v", name, tt.token, err, tt.want, tt.notAlso)
		}
	}
}

// Only strings of the header are read by name.
func TestHeaderText(t *testing.T) {
	u, err := ParseUnverified(signHS(`{"alg":"HS256","x":"y\u0041","n":1,"z":null,"e":""}`, "{}"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		s  string
		ok bool
	}{"x": {"yA", true}, "e": {"", true}, "n": {}, "z": {}, "absent": {}, "X": {}} {
		if s, ok := u.HeaderText(name); s != want.s || ok != want.ok {
			t.Errorf("HeaderText(%q) = %q, %v, want %q, %v", name, s, ok, want.s, want.ok)
		}
	}
}
