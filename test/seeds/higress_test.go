package seeds

import (
	"crypto/rsa"
	"encoding/base64"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/controlplane/importer"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// What stands in seeds/001: the shared secret of consumer1, the public key of
// consumer2, and the token of consumer1, which expires in 2029.
const (
	higressSecret = "hM0k3AbXBPpKOGg__Ql2Obcq7s60myWDpbHXzgKUQdYo7YCRp0gUqkCnbGSvZ2rGEl4YFkKqIqW7mTHdj-bcqXpNr-NOznEyMpVPOIlqG_NWVC3dydBgcsIZIdD-MR2AQceEaxriPA_VmiUCwfwL2Bhs6_i7eolXoY11EapLQtutz0BV6ZxQQ4dYUmct--7PLNb4BWJyQeWu0QfbIthnvhYllyl2dgeLTEJT58wzFz5HeNMNz8ohY5K0XaKAe5cepryqoXLhA-V-O1OjSG8lCNdKS09OY6O0fkyweKEtuDfien5tHHSsHXoAxYEHPFcSRL4bFPLZ0orTt1_4zpyfew"
	higressRSA    = `{
          "kty": "RSA",
          "e": "AQAB",
          "use": "sig",
          "kid": "123",
          "alg": "RS256",
          "n": "i0B67f1jggT9QJlZ_8QL9QQ56LfurrqDhpuu8BxtVcfxrYmaXaCtqTn7OfCuca7cGHdrJIjq99rz890NmYFZuvhaZ-LMt2iyiSb9LZJAeJmHf7ecguXS_-4x3hvbsrgUDi9tlg7xxbqGYcrco3anmalAFxsbswtu2PAXLtTnUo6aYwZsWA6ksq4FL3-anPNL5oZUgIp3HGyhhLTLdlQcC83jzxbguOim-0OEz-N4fniTYRivK7MlibHKrJfO3xa_6whBS07HW4Ydc37ZN3Rx9Ov3ZyV0idFblU519nUdqp_inXj1eEpynlxH60Ys_aTU2POGZh_25KXGdF_ZC_MSRw"
        }`
	higressToken = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6IjEyMyJ9.eyJpc3MiOiJhYmNkIiwic3ViIjoidGVzdCIsImlhdCI6MTY2NTY2MDUyNywiZXhwIjoxODY1NjczODE5fQ.-vBSV0bKeDwQcuS6eeSZN9dLTUnSnZVk8eVCXdooCQ4"
	// Section 1.3.2 shows how a token looks; it has neither iss nor exp.
	higressShown = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiYWRtaW4iOnRydWV9.TJVA95OrM7E2cBab30RMHrHDcEfxjoYZgeFONFh7HgQ"

	higressMissing  = "Jwt missing"
	higressExpired  = "Jwt expired"
	higressFails    = "Jwt verification fails"
	higressDenied   = "Access Denied"
	higressGateway  = "gateway"
	higressConsumer = "X-Mse-Consumer"
)

// higressConsumers are those of the document, where the second one may have
// another key and each more fields.
func higressConsumers(key2 string, fields1, fields2 []string) string {
	one := higressEntry("consumer1", "abcd", `{
          "kty": "oct",
          "kid": "123",
          "k": "`+higressSecret+`",
          "alg": "HS256"
        }`, fields1...)
	return "consumers:\n" + one + higressEntry("consumer2", "abc", key2, fields2...)
}

// higressEntry is one of consumers; fields are more lines of it.
func higressEntry(name, issuer, keys string, fields ...string) string {
	lines := ""
	for _, f := range fields {
		lines += "  " + strings.ReplaceAll(f, "\n", "\n  ") + "\n"
	}
	return fmt.Sprintf("- name: %s\n  issuer: %s\n%s  jwks: |\n    {\n      \"keys\": [\n        %s\n      ]\n    }\n", name, issuer, lines, keys)
}

// higressRules are the two rules of the document: allow lists for route-a and
// route-b, and for two domains.
const higressRules = `
_rules_:
- _match_route_:
  - route-a
  - route-b
  allow:
  - consumer1
- _match_domain_:
  - "*.example.com"
  - test.com
  allow:
  - consumer2
`

// higressRoutes are what the routes match, which stands in the gateway alone.
const higressRoutes = `
route-a: {hosts: [xxx.hello.com], paths: [/test]}
route-b: {hosts: [xxx.hello.com], paths: [/b, /b/*], methods: [GET]}
`

func higress(t *testing.T, config string) importer.Result {
	t.Helper()
	return imported(t, importer.Higress, config, importer.Options{Routes: &importer.File{Name: "routes", Content: []byte(higressRoutes)}})
}

// higressKeyPair is the one that section 2.2 of the document prints. It takes
// the place of the key of consumer2, whose private part is not in the document.
func higressKeyPair(t *testing.T) *meshtest.Signer {
	t.Helper()
	number := func(s string) *big.Int {
		raw, err := base64.RawURLEncoding.DecodeString(s)
		if err != nil {
			t.Fatal(err)
		}
		return new(big.Int).SetBytes(raw)
	}
	key := &rsa.PrivateKey{
		D: number("O9MJSOgcjjiVMNJ4jmBAh0mRHF_TlaVva70Imghtlgwxl8BLfcf1S8ueN1PD7xV6Cnq8YenSKsfiNOhC6yZ_fjW1syn5raWfj68eR7cjHWjLOvKjwVY33GBPNOvspNhVAFzeqfWneRTBbga53Agb6jjN0SUcZdJgnelzz5JNdOGaLzhacjH6YPJKpbuzCQYPkWtoZHDqWTzCSb4mJ3n0NRTsWy7Pm8LwG_Fd3pACl7JIY38IanPQDLoighFfo-Lriv5z3IdlhwbPnx0tk9sBwQBTRdZ8JkqqYkxUiB06phwr7mAnKEpQJ6HvhZBQ1cCnYZ_nIlrX9-I7qomrlE1UoQ"),
	}
	key.N = number("vCuB8MgwPZfziMSytEbBoOEwxsG7XI3MaVMoocziP4SjzU4IuWuE_DodbOHQwb_thUru57_Efe--sfATHEa0Odv5ny3QbByqsvjyeHk6ZE4mSAV9BsHYa6GWAgEZtnDceeeDc0y76utXK2XHhC1Pysi2KG8KAzqDa099Yh7s31AyoueoMnrYTmWfEyDsQL_OAIiwgXakkS5U8QyXmWicCwXntDzkIMh8MjfPskesyli0XQD1AmCXVV3h2Opm1Amx0ggSOOiINUR5YRD6mKo49_cN-nrJWjtwSouqDdxHYP-4c7epuTcdS6kQHiQERBd1ejdpAxV4c0t0FHF7MOy9kw")
	key.E = 65537
	return &meshtest.Signer{Alg: "RS256", KID: "uniq_key", Private: key}
}

// higressKey1 signs as consumer1 does.
func higressKey1(t *testing.T) *meshtest.Signer {
	t.Helper()
	secret, err := base64.RawURLEncoding.DecodeString(higressSecret)
	if err != nil {
		t.Fatal(err)
	}
	return &meshtest.Signer{Alg: "HS256", KID: "123", Secret: secret}
}

// asConsumer is what the service sees of a consumer's request, beside all that
// was sent.
func asConsumer(name, sub, iss string) map[string]string {
	out := caller(sub, iss, name)
	out[higressConsumer] = name
	return out
}

func TestSeedHigress(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	key1, key2 := higressKey1(t), higressKeyPair(t)
	now := time.Now()
	claims1 := meshtest.Claims{"iss": "abcd", "sub": "test", "exp": now.Add(time.Hour).Unix()}
	// The claims of the document's Java program. It sets no iss, which each
	// consumer has; here it does.
	claims2 := meshtest.Claims{
		"iss": "abc", "jti": "1", "iat": now.Unix(), "exp": now.Add(2 * time.Hour).Unix(), "nbf": now.Add(-time.Minute).Unix(),
		"sub": "YOUR_SUBJECT", "aud": "YOUR_AUDIENCE", "userId": "1213234", "email": "userEmail@youapp.com",
	}
	token2 := key2.Token(t, claims2)
	one, two := asConsumer("consumer1", "test", "abcd"), asConsumer("consumer2", "YOUR_SUBJECT", "abc")
	call := func(host, path, token string) meshtest.Call {
		return meshtest.Call{Host: host, Path: path, Token: token}
	}
	hello := func(path, token string) meshtest.Call { return call("xxx.hello.com", path, token) }
	ago := func(d time.Duration) string { return key1.Token(t, claims1.With("exp", now.Add(-d).Unix())) }
	forged := func(c meshtest.Call) meshtest.Call { c.Header = header(higressConsumer, "root"); return c }

	// The first configuration: global_auth false, and two rules.
	protected := func(key2 string) {
		m.deploy(t, higress(t, "global_auth: false\n"+higressConsumers(key2, nil, nil)+higressRules))
	}
	protected(higressRSA)
	m.check(t, higressGateway,
		row{"the token in the query", hello("/test?access_token="+higressToken, ""), allowed(one)},
		row{"the token in the header", hello("/test", higressToken), allowed(one)},
		row{"no token", hello("/test", ""), refused(401, "token_missing", higressMissing)},
		row{"a consumer that is not in the domain's list", call("xxx.example.com", "/test", higressToken), refused(403, "consumer_denied", higressDenied)},

		row{"the other route", hello("/b/c?d=e", higressToken), allowed(one)},
		row{"the other route without a token", hello("/b", ""), refused(401, "token_missing", higressMissing)},
		row{"the other domain", call("test.com", "/", higressToken), refused(403, "consumer_denied", higressDenied)},
		row{"a subdomain of a subdomain", call("a.b.example.com:8080", "/", higressToken), refused(403, "consumer_denied", higressDenied)},
		row{"the domain without a token", call("xxx.example.com", "/", ""), refused(401, "token_missing", higressMissing)},
		row{"what no rule names: another path", hello("/other", ""), allowed()},
		row{"what no rule names: another host", call("example.com", "/test", ""), allowed()},
		row{"what no rule names: another method", meshtest.Call{Method: http.MethodPost, Host: "xxx.hello.com", Path: "/b"}, allowed()},
		row{"what no rule names: no token is looked at", hello("/other", "rubbish"), allowed()},
		row{"a forged consumer", forged(hello("/test", higressToken)), allowed(one)},
		row{"a forged consumer where nothing is looked at", forged(hello("/other", "")), allowed(map[string]string{higressConsumer: ""})},

		row{"expired", hello("/test", ago(90*time.Second)), refused(401, "token_expired", higressExpired)},
		row{"expired within the skew of 60 s", hello("/test", ago(30*time.Second)), allowed(one)},
		row{"expired, of a consumer that is not allowed", call("test.com", "/", ago(time.Hour)), refused(401, "token_expired", higressExpired)},
		// The skew is for exp and iat.
		row{"issued in the future", hello("/test", key1.Token(t, claims1.With("iat", now.Add(90*time.Second).Unix()))), refused(401, "token_not_yet_valid", higressFails)},
		row{"issued in the future, within the skew", hello("/test", key1.Token(t, claims1.With("iat", now.Add(30*time.Second).Unix()))), allowed(one)},
		// "The time of expiry must be set."
		row{"without exp", hello("/test", key1.Token(t, claims1.With("exp", nil))), refused(401, "claim_missing", higressFails)},
		row{"another issuer", hello("/test", key1.Token(t, claims1.With("iss", "other"))), refused(401, "credential_unknown", higressFails)},
		row{"the other consumer's issuer", hello("/test", key1.Token(t, claims1.With("iss", "abc"))), refused(401, "key_unknown", higressFails)},
		row{"the token that only shows the form", hello("/test", higressShown), refused(401, "credential_unknown", higressFails)},
		row{"a changed signature", hello("/test", flip(higressToken)), refused(401, "signature_invalid", higressFails)},
		row{"no JWT", hello("/test", "abc"), refused(401, "token_malformed", higressFails)},
		row{"another key of consumer2", call("test.com", "/", token2), refused(401, "key_unknown", higressFails)},
	)

	protected(key2.JWK())
	m.check(t, higressGateway,
		row{"consumer2 on its domain", call("xxx.example.com", "/test", token2), allowed(two)},
		row{"consumer2 on its other domain", call("TEST.com", "/?access_token="+token2, ""), allowed(two)},
		row{"consumer2 on consumer1's route", hello("/test", token2), refused(403, "consumer_denied", higressDenied)},
		row{"consumer1 still on its own", hello("/test", higressToken), allowed(one)},
	)

	// The second configuration: global_auth true, and no rules.
	m.deploy(t, higress(t, "global_auth: true\n"+higressConsumers(key2.JWK(), nil, nil)))
	m.check(t, higressGateway,
		row{"global: no token", hello("/other", ""), refused(401, "token_missing", higressMissing)},
		row{"global: no token, any host", call("any.host", "/", ""), refused(401, "token_missing", higressMissing)},
		row{"global: consumer1", call("any.host", "/", higressToken), allowed(one)},
		row{"global: consumer2", hello("/test", token2), allowed(two)},
	)
	// With rules beside it, their lists hold where they are, and every consumer
	// gets in elsewhere.
	m.deploy(t, higress(t, "global_auth: true\n"+higressConsumers(key2.JWK(), nil, nil)+higressRules))
	m.check(t, higressGateway,
		row{"global with rules: elsewhere", hello("/other", token2), allowed(two)},
		row{"global with rules: elsewhere without a token", hello("/other", ""), refused(401, "token_missing", higressMissing)},
		row{"global with rules: on a route", hello("/test", token2), refused(403, "consumer_denied", higressDenied)},
	)
	// Not set: it holds everywhere if there are no rules, else only for them.
	m.deploy(t, higress(t, higressConsumers(key2.JWK(), nil, nil)))
	m.check(t, higressGateway, row{"unset, no rules", call("any.host", "/", ""), refused(401, "token_missing", higressMissing)})
	m.deploy(t, higress(t, higressConsumers(key2.JWK(), nil, nil)+higressRules))
	m.check(t, higressGateway,
		row{"unset, rules: elsewhere", call("any.host", "/", ""), allowed()},
		row{"unset, rules: on a route", hello("/test", ""), refused(401, "token_missing", higressMissing)},
	)
}

// Fields of a consumer: where its token is, what of it goes to the service, and
// how late it may be.
func TestSeedHigressFields(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	key1, key2 := higressKey1(t), higressKeyPair(t)
	now := time.Now()
	claims1 := meshtest.Claims{"iss": "abcd", "sub": "test", "exp": now.Add(time.Hour).Unix()}
	claims2 := claims1.With("iss", "abc").With("userId", "1213234").With("level", 7)
	one, two := asConsumer("consumer1", "test", "abcd"), asConsumer("consumer2", "test", "abc")
	deploy := func(fields1, fields2 []string) {
		m.deploy(t, higress(t, "global_auth: true\n"+higressConsumers(key2.JWK(), fields1, fields2)))
	}
	with := func(path string, headers ...string) meshtest.Call {
		c := meshtest.Call{Path: path, Header: http.Header{}}
		for i := 0; i < len(headers); i += 2 {
			c.Header.Add(headers[i], headers[i+1])
		}
		return c
	}
	deploy(
		[]string{`from_headers: [{name: X-Token, value_prefix: "Token "}]`, "from_params: [jwt]", "from_cookies: [session]", "clock_skew_seconds: 20"},
		[]string{"claims_to_headers:\n- {claim: userId, header: X-User}\n- {claim: level, header: X-Level, override: false}", "keep_token: false"},
	)
	token1, token2 := higressToken, key2.Token(t, claims2)
	m.check(t, higressGateway,
		row{"its header", with("/", "X-Token", "Token "+token1), allowed(one)},
		row{"its parameter", with("/?a=b&jwt=" + token1), allowed(one)},
		row{"its cookie", with("/", "Cookie", "a=b; session="+token1), allowed(one)},
		row{"a default that holds no more: the header", meshtest.Call{Token: token1}, refused(401, "credential_unknown", higressFails)},
		row{"a default that holds no more: the parameter", with("/?access_token=" + token1), refused(401, "credential_unknown", higressFails)},
		row{"the prefix is missing", with("/", "X-Token", token1), refused(401, "token_missing", higressMissing)},
		row{"a skew of 20 s: within", with("/?jwt=" + key1.Token(t, claims1.With("exp", time.Now().Add(-2*time.Second).Unix()))), allowed(one)},
		row{"a skew of 20 s: beyond", with("/?jwt=" + key1.Token(t, claims1.With("exp", now.Add(-40*time.Second).Unix()))), refused(401, "token_expired", higressExpired)},

		row{"claims to headers, and the token is removed", meshtest.Call{Token: token2},
			allowed(two, map[string]string{"X-User": "1213234", "X-Level": "7", "Authorization": ""})},
		row{"the token is removed from the query", with("/?a=b&access_token=" + token2),
			allowed(two, map[string]string{"X-User": "1213234", "X-Level": "7"}).withQuery("a=b")},
		row{"override true replaces, override false adds", with("/", "Authorization", "Bearer "+token2, "X-User", "made up", "X-Level", "1"),
			allowed(two, map[string]string{"X-User": "1213234", "X-Level": "1,7", "Authorization": ""})},
		row{"override true replaces in any spelling", with("/", "Authorization", "Bearer "+token2, "x-user", "made up"),
			allowed(two, map[string]string{"X-User": "1213234", "X-Level": "7", "Authorization": ""})},
		row{"another consumer's claims to headers: override true removes", with("/?jwt="+token1, "X-User", "made up"), allowed(one, map[string]string{"X-User": ""})},
	)

	deploy([]string{"from_cookies: [session]", "keep_token: false"}, nil)
	m.check(t, higressGateway, row{"the token is removed from a cookie", with("/", "Cookie", "a=b; session="+token1+"; c=d"),
		allowed(one, map[string]string{"Cookie": "a=b; c=d"})})
}

// If a token matches several, the first consumer in the order of the
// configuration is who calls.
func TestSeedHigressFirstConsumer(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	shared, own := meshtest.NewSigner(t, "ES256"), meshtest.NewSigner(t, "ES256")
	claims := meshtest.Claims{"iss": "abcd", "sub": "test", "exp": time.Now().Add(time.Hour).Unix()}
	wide := func(name string) string { return higressEntry(name, "abcd", shared.JWK()+","+own.JWK()) }
	narrow := func(name string) string {
		return higressEntry(name, "abcd", shared.JWK(), "from_headers: [{name: Authorization, value_prefix: \"Bearer \"}]")
	}
	inHeader := meshtest.Call{Token: shared.Token(t, claims)}
	inQuery := meshtest.Call{Path: "/?access_token=" + inHeader.Token}

	m.deploy(t, higress(t, "global_auth: true\nconsumers:\n"+narrow("first")+wide("second")))
	m.check(t, higressGateway,
		row{"both match", inHeader, allowed(asConsumer("first", "test", "abcd"))},
		row{"only the second looks there", inQuery, allowed(asConsumer("second", "test", "abcd"))},
		row{"only the second has the key", meshtest.Call{Token: own.Token(t, claims)}, allowed(asConsumer("second", "test", "abcd"))},
	)
	m.deploy(t, higress(t, "global_auth: true\nconsumers:\n"+higressEntry("second", "abcd", shared.JWK())+wide("first")))
	m.check(t, higressGateway,
		row{"both match, in the other order", inHeader, allowed(asConsumer("second", "test", "abcd"))},
		row{"only the last has the key", meshtest.Call{Token: own.Token(t, claims)}, allowed(asConsumer("first", "test", "abcd"))},
	)
}

// "The gateway supports these algorithms": each verifies what was signed with
// it, and nothing that was signed with another one by the same key.
func TestSeedHigressAlgorithms(t *testing.T) {
	t.Parallel()
	m := startMesh(t)
	claims := func(alg string) meshtest.Claims {
		return meshtest.Claims{"iss": "iss-" + alg, "sub": "test", "exp": time.Now().Add(time.Hour).Unix()}
	}
	keys := keysOfAll(t, func(t *testing.T, alg string) *meshtest.Signer { return meshtest.NewSigner(t, alg) })
	config := ""
	for _, alg := range strings.Fields("ES256 ES384 ES512 HS256 HS384 HS512 RS256 RS384 RS512 PS256 PS384 PS512 EdDSA") {
		config += higressEntry(strings.ToLower(alg), "iss-"+alg, keys[alg].JWK())
	}
	m.deploy(t, higress(t, "global_auth: true\nconsumers:\n"+config))
	for alg, key := range keys {
		token := key.Token(t, claims(alg))
		m.check(t, higressGateway,
			row{alg, meshtest.Call{Token: token}, allowed(asConsumer(strings.ToLower(alg), "test", "iss-"+alg))},
			row{alg + ", a changed signature", meshtest.Call{Token: flip(token)}, refused(401, "signature_invalid", higressFails)},
			row{alg + ", a changed payload", meshtest.Call{Token: strings.Replace(token, ".", ".e", 1)}, refused(401, "token_malformed", higressFails)},
		)
	}
	m.check(t, higressGateway,
		row{"RS256 signed as PS256", meshtest.Call{Token: keys["PS256"].Token(t, claims("RS256"))}, refused(401, "key_unknown", higressFails)},
		row{"RS256 signed as HS256 with the public key", meshtest.Call{Token: meshtest.SignHS256([]byte(keys["RS256"].PEM(t)), keys["RS256"].KID, claims("RS256"))}, refused(401, "key_unknown", higressFails)},
	)
}
