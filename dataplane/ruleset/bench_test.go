package ruleset

import (
	"fmt"
	"strings"
	"testing"

	"github.com/watchword-mesh/watchword/internal/jose"
)

// BenchmarkEvaluate has one verified request per algorithm.
func BenchmarkEvaluate(b *testing.B) {
	key, err := jose.GenerateKey("ES256")
	if err != nil {
		b.Fatal(err)
	}
	es256, err := key.Signer("at+jwt").Sign([]byte(claimsOf("scope", "read write")))
	if err != nil {
		b.Fatal(err)
	}
	public := fmt.Sprintf(`{"kid": %q, "algorithm": "ES256", "jwk": %q}`, key.ID(), key.Public().JWK())
	text := oneRoute("STRICT", rule(`"types": ["at+jwt"], "outputClaims": [{"claimPath": ["scope"], "header": "x-scope"}]`), `, "authorization": {"restricted": true, "allow": [{"name": "a/0", "from": [{"issuer": "sts"}]}]}`)
	for name, bench := range map[string]struct{ text, token string }{
		"ES256": {strings.Replace(text, hsKey("k1", secretA), public, 1), es256},
		"HS256": {text, jwt("scope", "read write")},
	} {
		b.Run(name, func(b *testing.B) {
			rs := ready(b, bench.text)
			evaluate(b, rs, bench.token)
		})
	}
}

// BenchmarkCredentials looks one of many credentials up: with 1000 it costs what it
// costs with 10.
func BenchmarkCredentials(b *testing.B) {
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			rs := parse(b, oneRoute("STRICT", kongRule, ""))
			for i := range n {
				extra := parse(b, fmt.Sprintf(`{"credentialSets": [{"credentials": [{"key": "key-%d", "keys": [%s], "consumer": "bob"}]}]}`, i, hsKey("", secretA)))
				rs.CredentialSets[0].Credentials = append(rs.CredentialSets[0].Credentials, extra.CredentialSets[0].Credentials...)
			}
			compiled, err := Compile(rs)
			if err != nil {
				b.Fatal(err)
			}
			evaluate(b, compiled, sign(hsHeader, fmt.Sprintf(`{"iss":"key-%d","exp":%d}`, n-1, now.Unix()+30), secretA))
		})
	}
}

func evaluate(b *testing.B, rs *Ruleset, token string) {
	r := get("/a/b?c=d", "user-agent: x", "accept: */*", bearer(token))
	if d := rs.Evaluate(r, now); !d.Allowed {
		b.Fatalf("Evaluate = %+v", d)
	}
	b.ReportAllocs()
	for b.Loop() {
		rs.Evaluate(r, now)
	}
}

// memo remembers everything.
type memo map[string]*VerifiedToken

func (m memo) Get(text string) *VerifiedToken    { return m[text] }
func (m memo) Put(text string, t *VerifiedToken) { m[text] = t }

// BenchmarkDecide is the decision alone: with a token that is new, and with one that was
// verified before.
func BenchmarkDecide(b *testing.B) {
	rs := ready(b, oneRoute("STRICT", rule(`"types": ["at+jwt"]`), `, "authorization": {"restricted": true, "allow": [{"name": "a/0", "from": [{"issuer": "sts"}]}]}`))
	r := get("/a/b?c=d", "User-Agent: x", "Accept: */*", "Accept-Encoding: gzip", bearer(jwt("scope", "read write")))
	for name, m := range map[string]Memo{"fresh": nil, "remembered": memo{}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := rs.Decide(r, now, m).Decision(); !d.Allowed {
					b.Fatalf("Decide = %+v", d)
				}
			}
		})
	}
}
