package bench

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"math/big"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/dataplane/ruleset"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// What a decision of the Go data plane costs, against the bare check of the same
// signature with the raw key, in turns:
//
//	us/fresh     a request with a token that was not seen before
//	x-crypto     the same as a multiple of the bare check
//	ns/cached    a request with a token that was verified before, all else as above
//	allocs/cached
func BenchmarkDecision(b *testing.B) {
	for _, alg := range []string{"ES256", "RS256", "EdDSA", "HS256"} {
		b.Run(alg, func(b *testing.B) {
			s := meshtest.NewSigner(b, alg)
			rs, err := ruleset.Compile(issuerRuleset(s))
			if err != nil {
				b.Fatal(err)
			}
			req := requestWith(s.Token(b, meshtest.NewClaims("https://a.example", "alice", "orders")))
			bare := bareCheck(s, strings.TrimPrefix(req.Header[3].Value, "Bearer "))
			decide := func(m ruleset.Memo) {
				if d := rs.Decide(req, time.Now(), m).Decision(); !d.Allowed {
					b.Fatalf("Decide = %+v", d)
				}
			}
			var ours, raw time.Duration
			for b.Loop() {
				start := time.Now()
				decide(nil)
				middle := time.Now()
				if !bare() {
					b.Fatal("the bare check fails")
				}
				ours += middle.Sub(start)
				raw += time.Since(middle)
			}
			b.ReportMetric(float64(ours.Nanoseconds())/float64(b.N)/1e3, "us/fresh")
			b.ReportMetric(float64(ours)/float64(raw), "x-crypto")
			b.ReportMetric(0, "ns/op")
			remembered := new(memo)
			decide(remembered)
			const n = 200_000
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			for range n {
				decide(remembered)
			}
			took := time.Since(start)
			runtime.ReadMemStats(&after)
			b.ReportMetric(float64(took.Nanoseconds())/n, "ns/cached")
			b.ReportMetric(float64(after.Mallocs-before.Mallocs)/n, "allocs/cached")
		})
	}
}

func requestWith(token string) ruleset.Request {
	return ruleset.Request{Method: "GET", Authority: "orders", Path: "/orders/7?x=1", Header: []ruleset.Field{
		{Name: "User-Agent", Value: "bench"}, {Name: "Accept", Value: "*/*"}, {Name: "Accept-Encoding", Value: "gzip"},
		{Name: "Authorization", Value: "Bearer " + token},
	}}
}

// memo forgets nothing.
type memo struct{ known sync.Map }

func (m *memo) Get(text string) *ruleset.VerifiedToken {
	t, _ := m.known.Load(text)
	v, _ := t.(*ruleset.VerifiedToken)
	return v
}

func (m *memo) Put(text string, t *ruleset.VerifiedToken) { m.known.Store(text, t) }

// bareCheck verifies the signature of one token, and does nothing else: not even its
// base64.
func bareCheck(s *meshtest.Signer, token string) func() bool {
	i := strings.LastIndexByte(token, '.')
	input := []byte(token[:i])
	sig, err := base64.RawURLEncoding.DecodeString(token[i+1:])
	if err != nil {
		return func() bool { return false }
	}
	switch s.Alg {
	case "ES256":
		r, t := new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])
		return func() bool {
			sum := sha256.Sum256(input)
			return ecdsa.Verify(s.Private.Public().(*ecdsa.PublicKey), sum[:], r, t)
		}
	case "RS256":
		return func() bool {
			sum := sha256.Sum256(input)
			return rsa.VerifyPKCS1v15(s.Private.Public().(*rsa.PublicKey), crypto.SHA256, sum[:], sig) == nil
		}
	case "EdDSA":
		return func() bool { return ed25519.Verify(s.Private.Public().(ed25519.PublicKey), input, sig) }
	}
	return func() bool {
		h := hmac.New(sha256.New, s.Secret)
		h.Write(input)
		return hmac.Equal(h.Sum(nil), sig)
	}
}
