package jose

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// with returns the JWK with members set; a value of "" removes the member, others are JSON text.
func with(jwk string, nameValue ...string) string {
	m := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(jwk), &m); err != nil {
		panic(err)
	}
	for i := 0; i < len(nameValue); i += 2 {
		if nameValue[i+1] == "" {
			delete(m, nameValue[i])
		} else {
			m[nameValue[i]] = json.RawMessage(nameValue[i+1])
		}
	}
	out, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return string(out)
}

func q(s string) string { return `"` + s + `"` }

// rsaOf is an RSA JWK whose modulus has that many bits.
func rsaOf(bits int, even bool) string {
	n := new(big.Int).Lsh(big.NewInt(1), uint(bits-1))
	if !even {
		n.SetBit(n, 0, 1)
	}
	return with(rsaJWK, "n", q(encode(n.Bytes())))
}

const (
	notCanonical = " is not canonical base64url (RFC 7515, section 2): no padding, no white space, no spare bits"
	known        = "use one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA, HS256, HS384, HS512"
	smallOrder   = "x is an Ed25519 point of small order, for which anybody can sign; generate a new key"
)

// Every refusal of a whole set, and of single keys, in the words an operator reads.
func TestParseSetRefuses(t *testing.T) {
	deep := strings.Repeat("[", 40) + strings.Repeat("]", 40)
	var many []string
	for i := range 101 {
		many = append(many, with(octJWK, "kid", q(fmt.Sprint(i))))
	}
	for name, tt := range map[string]struct {
		set  string
		o    SetOptions
		want []string
	}{
		"not JSON":            {set: `{"keys":[}`, want: []string{`JWK set is not JSON: syntax error at byte 10; expected {"keys":[...]}`}},
		"empty text":          {set: ``, want: []string{`JWK set is not JSON: syntax error at byte 0; expected {"keys":[...]}`}},
		"not UTF-8":           {set: "{\"keys\":[],\"\xff\":1}", want: []string{`JWK set is not JSON: not UTF-8 text; expected {"keys":[...]}`}},
		"trailing data":       {set: set(ecJWK) + "{}", want: []string{`JWK set is not JSON: syntax error at byte 138; expected {"keys":[...]}`}},
		"array":               {set: `[` + ecJWK + `]`, want: []string{`JWK set is not a JSON object; expected {"keys":[...]}`}},
		"PEM":                 {set: "-----BEGIN PUBLIC KEY-----", want: []string{`PEM text, not a JWK set; give it as pem, or convert it to {"keys":[...]}`}},
		"duplicate keys":      {set: `{"keys":[],"k\u0065ys":[]}`, want: []string{`JWK set: member "keys" appears twice in one object; parsers disagree on which counts`}},
		"lone surrogate":      {set: `{"\ud800":1,"keys":[]}`, want: []string{"JWK set: a string holds half of a surrogate pair"}},
		"too deep":            {set: `{"a":` + deep + `}`, want: []string{"JWK set: JSON nested deeper than 32"}},
		"no keys":             {set: `{}`, want: []string{`JWK set has no "keys"; expected {"keys":[...]}`}},
		"empty keys":          {set: `{"keys": [ ]}`, want: []string{`"keys" is empty; a set needs at least one key`}},
		"keys no array":       {set: `{"keys":null}`, want: []string{`"keys" is not an array; expected {"keys":[...]}`}},
		"bare JWK":            {set: ecJWK, want: []string{`a single JWK, not a set; wrap it as {"keys":[...]}`}},
		"101 keys":            {set: set(many...), want: []string{"JWK set of 101 keys; at most 100 are read"}},
		"over 64 KiB":         {set: strings.Repeat(" ", 65537), want: []string{"JWK set of 65537 bytes; at most 65536 are read"}},
		"allow-list unknown":  {set: set(ecJWK), o: SetOptions{Algorithms: []string{"ES257"}}, want: []string{`allowed algorithms: alg "ES257" is not known; ` + known}},
		"allow-list none":     {set: `{}`, o: SetOptions{Algorithms: []string{"none"}}, want: []string{`allowed algorithms: alg "none" means no signature at all and is never accepted; name the algorithm the key signs with`, `JWK set has no "keys"; expected {"keys":[...]}`}},
		"key no object":       {set: set(`7`), want: []string{"key 0: not a JSON object; each key is one"}},
		"duplicate member":    {set: set(`{"kty":"EC","kty":"RSA"}`), want: []string{`key 0: member "kty" appears twice in one object; parsers disagree on which counts`}},
		"duplicate deep":      {set: set(with(ecJWK, "z", `{"a":[{"b":1,"b":2}]}`)), want: []string{`key 0: member "b" appears twice in one object; parsers disagree on which counts`}},
		"no kty":              {set: set(`{}`), want: []string{"key 0: no kty; use RSA, EC, OKP or oct"}},
		"unknown kty":         {set: set(`{"kty":"AKP"}`), want: []string{`key 0: kty "AKP" is not supported; use RSA, EC, OKP or oct`}},
		"kty no string":       {set: set(`{"kty":1}`), want: []string{"key 0: kty is not a string"}},
		"secp256k1":           {set: set(with(ecJWK, "crv", q("secp256k1"))), want: []string{`key 0: crv "secp256k1" is not supported for kty EC; use P-256, P-384 or P-521`}},
		"X25519":              {set: set(with(okpJWK, "crv", q("X25519"))), want: []string{`key 0: crv "X25519" is not supported for kty OKP; use Ed25519`}},
		"Ed448":               {set: set(with(okpJWK, "crv", q("Ed448"))), want: []string{`key 0: crv "Ed448" is not supported for kty OKP; use Ed25519`}},
		"no crv":              {set: set(with(ecJWK, "crv", "")), want: []string{"key 0: EC key without crv; use P-256, P-384 or P-521"}},
		"unknown alg":         {set: set(with(ecJWK, "alg", q("ES256K"))), want: []string{`key 0: alg "ES256K" is not known; ` + known}},
		"alg none":            {set: set(with(ecJWK, "alg", q("none"))), want: []string{`key 0: alg "none" means no signature at all and is never accepted; name the algorithm the key signs with`}},
		"alg no string":       {set: set(with(ecJWK, "alg", "null")), want: []string{"key 0: alg is not a string"}},
		"alg of other kty":    {set: set(with(ecJWK, "alg", q("RS256"))), want: []string{"key 0: alg RS256 does not fit a key of type EC P-256; use ES256"}},
		"alg of other crv":    {set: set(with(ecJWK, "alg", q("ES384"))), want: []string{"key 0: alg ES384 does not fit a key of type EC P-256; use ES256"}},
		"alg not allowed":     {set: set(with(ecJWK, "alg", q("ES256"))), o: SetOptions{Algorithms: []string{"RS256", "PS256"}}, want: []string{"key 0: alg ES256 is not allowed here; allowed: RS256, PS256"}},
		"none allowed fits":   {set: set(rsaJWK), o: SetOptions{Algorithms: []string{"ES256"}}, want: []string{"key 0: none of the allowed algorithms (ES256) fits a key of type RSA; allow one of RS256, RS384, RS512, PS256, PS384, PS512"}},
		"use enc":             {set: set(with(ecJWK, "use", q("enc"))), want: []string{`key 0: use is "enc"; a key that verifies tokens has "sig", or no use`}},
		"use no string":       {set: set(with(ecJWK, "use", "[]")), want: []string{"key 0: use is not a string"}},
		"key_ops sign":        {set: set(with(ecJWK, "key_ops", `["sign"]`)), want: []string{`key 0: key_ops lacks "verify"; a key that verifies tokens has ["verify"], or no key_ops`}},
		"key_ops string":      {set: set(with(ecJWK, "key_ops", `"verify"`)), want: []string{`key 0: key_ops is not an array; a key that verifies tokens has ["verify"], or no key_ops`}},
		"key_ops twice":       {set: set(with(ecJWK, "key_ops", `["verify","verify"]`)), want: []string{"key 0: key_ops must hold strings, each once"}},
		"private d":           {set: set(with(ecJWK, "d", q("AA"))), want: []string{"key 0: " + privateKeyFault}},
		"private RSA":         {set: set(with(rsaJWK, "p", q("AA"), "qi", q("AA"))), want: []string{"key 0: " + privateKeyFault}},
		"private oth":         {set: set(with(rsaJWK, "oth", "[]")), want: []string{"key 0: " + privateKeyFault}},
		"RSA 1024":            {set: set(rsaOf(1024, false)), want: []string{"key 0: RSA key of 1024 bits; use 2048 to 8192"}},
		"RSA 2047":            {set: set(rsaOf(2047, false)), want: []string{"key 0: RSA key of 2047 bits; use 2048 to 8192"}},
		"RSA 16384":           {set: set(rsaOf(16384, false)), want: []string{"key 0: RSA key of 16384 bits; use 2048 to 8192"}},
		"RSA even n":          {set: set(rsaOf(2048, true)), want: []string{"key 0: RSA modulus n is even, so it is not a product of two primes; generate a new key"}},
		"RSA e 1":             {set: set(with(rsaJWK, "e", q("AQ"))), want: []string{"key 0: RSA exponent e is 1; it must be odd and at least 3, usually 65537 (AQAB)"}},
		"RSA e even":          {set: set(with(rsaJWK, "e", q("BA"))), want: []string{"key 0: RSA exponent e is 4; it must be odd and at least 3, usually 65537 (AQAB)"}},
		"RSA e 2^31+1":        {set: set(with(rsaJWK, "e", q("gAAAAQ"))), want: []string{"key 0: RSA exponent e is 2^31 or more; use 65537 (AQAB)"}},
		"RSA e 2^64+1":        {set: set(with(rsaJWK, "e", q("AQAAAAAAAAAB"))), want: []string{"key 0: RSA exponent e is 2^31 or more; use 65537 (AQAB)"}},
		"RSA no n":            {set: set(with(rsaJWK, "n", "")), want: []string{"key 0: n is missing"}},
		"RSA n padded":        {set: set(with(rsaJWK, "n", q(n7638+"=="))), want: []string{"key 0: n" + notCanonical}},
		"RSA n number":        {set: set(with(rsaJWK, "n", "5")), want: []string{"key 0: n is not a string"}},
		"EC off curve":        {set: set(with(ecJWK, "y", q(x7515A3))), want: []string{"key 0: x and y are not a point on P-256"}},
		"EC zero":             {set: set(with(ecJWK, "x", q(strings.Repeat("A", 43)), "y", q(strings.Repeat("A", 43)))), want: []string{"key 0: x and y are not a point on P-256"}},
		"EC x long":           {set: set(with(ecJWK, "x", q("AA"+x7515A3[:42]))), want: []string{"key 0: x of P-256 is 33 bytes; it must be 32, with leading zeros"}},
		"EC x and y bad":      {set: set(with(ecJWK, "x", q("AA"), "y", "")), want: []string{"key 0: x of P-256 is 1 bytes; it must be 32, with leading zeros", "key 0: y is missing"}},
		"EC x line break":     {set: set(with(ecJWK, "x", `"`+x7515A3+`\n"`)), want: []string{"key 0: x" + notCanonical}},
		"EC x spare bits":     {set: set(with(ecJWK, "x", q(x7515A3[:42]+"V"))), want: []string{"key 0: x" + notCanonical}},
		"OKP not on curve":    {set: set(with(okpJWK, "x", q(encode(append([]byte{2}, make([]byte, 31)...))))), want: []string{"key 0: x is not a point on Ed25519"}},
		"OKP small order":     {set: set(with(okpJWK, "x", q(encode(append([]byte{1}, make([]byte, 31)...))))), want: []string{"key 0: " + smallOrder}},
		"OKP order 4":         {set: set(with(okpJWK, "x", q(encode(make([]byte, 32))))), want: []string{"key 0: " + smallOrder}},
		"OKP order 8":         {set: set(with(okpJWK, "x", q("JuiVj8KyJ7BFw_SJ8u-Y8NXfrAXTxjM5sTgCiG1T_AU"))), want: []string{"key 0: " + smallOrder}},
		"OKP y over p":        {set: set(with(okpJWK, "x", q(encode(append([]byte(strings.Repeat("\xff", 31)), 0x7f))))), want: []string{"key 0: x is not a point on Ed25519"}},
		"HS256 short":         {set: set(with(octJWK, "k", q(encode(make([]byte, 31))))), want: []string{"key 0: secret k of 31 bytes is too short for HS256; use at least 32 random bytes"}},
		"HS384 short":         {set: set(with(octJWK, "alg", q("HS384"), "k", q(encode(make([]byte, 47))))), want: []string{"key 0: secret k of 47 bytes is too short for HS384; use at least 48 random bytes"}},
		"HS512 short":         {set: set(with(octJWK, "alg", q("HS512"), "k", q(encode(make([]byte, 63))))), want: []string{"key 0: secret k of 63 bytes is too short for HS512; use at least 64 random bytes"}},
		"oct k plain":         {set: set(with(octJWK, "k", q("a plain secret"))), want: []string{"key 0: k" + notCanonical}},
		"oct k empty":         {set: set(with(octJWK, "k", q(""))), want: []string{"key 0: k is empty"}},
		"kid number":          {set: set(with(ecJWK, "kid", "1")), want: []string{"key 0: kid is not a string"}},
		"kid long":            {set: set(with(ecJWK, "kid", q(strings.Repeat("a", 257)))), want: []string{"key 0: kid of 257 bytes; at most 256"}},
		"kid control":         {set: set(with(ecJWK, "kid", `"a\u0007"`)), want: []string{"key 0: kid has a control character; use printable text"}},
		"kid twice":           {set: set(with(ecJWK, "kid", q("a")), with(okpJWK, "kid", q("a"))), want: []string{`key 1 (kid "a"): kid is already that of key 0; give each key its own`}},
		"kid twice, two algs": {set: set(with(rsaJWK, "kid", q("a"), "alg", q("RS256")), with(rsaJWK, "kid", q("a"), "alg", q("PS256"))), want: []string{`key 1 (kid "a"): kid is already that of key 0; give each key its own`, `key 1 (kid "a"): same key material as key 0; list each key once`}},
		"two without kid":     {set: set(ecJWK, with(okpJWK, "kid", q(""))), want: []string{"key 1: no kid, and key 0 has none either; at most one key of a set may lack it"}},
		"material twice":      {set: set(with(ecJWK, "kid", q("a")), ecJWK), want: []string{"key 1: same key material as key 0; list each key once"}},
		"all at once": {set: set(with(ecJWK, "kid", q("a"), "use", q("enc"), "d", q("AA"), "alg", q("none")), with(octJWK, "kid", q("b")), `{"kid":"c","kty":"x"}`), want: []string{
			`key 0 (kid "a"): use is "enc"; a key that verifies tokens has "sig", or no use`,
			`key 0 (kid "a"): alg "none" means no signature at all and is never accepted; name the algorithm the key signs with`,
			`key 0 (kid "a"): ` + privateKeyFault,
			`key 2 (kid "c"): kty "x" is not supported; use RSA, EC, OKP or oct`,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, faults := ParseSet([]byte(tt.set), tt.o)
			if diff := cmp.Diff(tt.want, messages(faults)); diff != "" {
				t.Errorf("ParseSet(%.300s) faults, -want +got:\n%s", tt.set, diff)
			}
		})
	}
}

func messages(faults []Fault) []string {
	var out []string
	for _, f := range faults {
		out = append(out, f.Error())
	}
	return out
}

// A faulty key leaves the others usable: the good of a set come out beside the faults.
func TestParseSetKeepsSoundKeys(t *testing.T) {
	keys, faults := ParseSet([]byte(set(`{"kty":"AKP"}`, with(ecJWK, "kid", q("a")))), SetOptions{})
	if len(keys) != 1 || keys[0].ID() != "a" || len(faults) != 1 || faults[0].Index != 0 {
		t.Errorf("ParseSet = %v, %v; want key a and one fault of key 0", keys, faults)
	}
}

// JWK is canonical: sorted, only what defines the key, with alg, kid and use; extras go.
func TestJWKCanonical(t *testing.T) {
	for jwk, want := range map[string]string{
		with(ecJWK, "kid", q("a<b"), "x5c", `["AA"]`, "x5u", q("http://x"), "key_ops", `["verify"]`, "foo", "1"): `{"alg":"ES256","crv":"P-256","kid":"a<b","kty":"EC","use":"sig","x":"` + x7515A3 + `","y":"` + y7515A3 + `"}`,
		with(okpJWK, "kid", q("")): `{"alg":"EdDSA","crv":"Ed25519","kty":"OKP","use":"sig","x":"` + x8037 + `"}`,
		octJWK:                     `{"alg":"HS256","k":"` + k7515A1 + `","kty":"oct","use":"sig"}`,
		with(rsaJWK, "alg", q("PS512"), "n", q(encode(append([]byte{0}, mustDecode(n7638)...)))): `{"alg":"PS512","e":"AQAB","kty":"RSA","n":"` + n7638 + `","use":"sig"}`,
	} {
		if got := mustSet(t, SetOptions{}, jwk)[0].JWK(); got != want {
			t.Errorf("JWK of %s\n got %s\nwant %s", jwk, got, want)
		}
	}
}

func mustDecode(s string) []byte {
	b, err := decodeBase64(s)
	if err != nil {
		panic(err)
	}
	return b
}

// A key without alg stands for every allowed algorithm that fits and that it is strong
// enough for; a key with alg for that one.
func TestAllowListFansOut(t *testing.T) {
	o := SetOptions{Algorithms: []string{"PS256", "ES256", "RS256", "PS256", "HS256", "HS512"}}
	keys := mustSet(t, o, with(rsaJWK, "kid", q("r")), with(octJWK, "kid", q("o"), "k", q(encode(make([]byte, 32)))), with(ecJWK, "alg", q("ES256")))
	var got []string
	for _, k := range keys {
		got = append(got, k.ID()+" "+k.Algorithm())
	}
	if diff := cmp.Diff([]string{"r PS256", "r RS256", "o HS256", " ES256"}, got); diff != "" {
		t.Errorf("keys, -want +got:\n%s", diff)
	}
}

// Secrets show in no format verb, not even when the key is inside another struct.
func TestKeyIsNotPrinted(t *testing.T) {
	k := mustSet(t, SetOptions{}, with(octJWK, "kid", q("a")))[0]
	holder := struct {
		k Key
		p *Key
	}{k, &k}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, v := range []any{k, &k, holder, []Key{k}} {
			out := fmt.Sprintf(verb, v)
			if strings.Contains(out, k7515A1[:8]) || strings.Contains(out, fmt.Sprintf("%x", mustDecode(k7515A1)[:4])) || strings.Contains(out, "3 35 53") {
				t.Errorf("Sprintf(%s, %T) shows the secret: %s", verb, v, out)
			}
		}
	}
}

// The zero Key is harmless.
func TestZeroKey(t *testing.T) {
	var k Key
	if k.ID()+k.Algorithm()+k.JWK()+k.Thumbprint() != "" || k.Symmetric() || !k.Equal(Key{}) {
		t.Errorf("zero Key is %v", k)
	}
	if _, err := Verify(token7515A1, []Key{k}, VerifyOptions{}); err == nil {
		t.Error("zero Key verified a token")
	}
}

// Keys that Go makes for every curve are accepted: the point checks refuse no good key.
func TestGeneratedPublicKeysParse(t *testing.T) {
	for _, alg := range []string{"ES256", "ES384", "ES512", "EdDSA"} {
		for range 20 {
			k, err := GenerateKey(alg)
			if err != nil {
				t.Fatal(err)
			}
			if got := mustSet(t, SetOptions{}, k.Public().JWK())[0]; !got.Equal(k.Public()) {
				t.Errorf("%s parsed as %s", k.Public().JWK(), got.JWK())
			}
		}
	}
}

func mustRSA(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}
