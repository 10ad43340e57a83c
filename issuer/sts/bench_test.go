package sts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// BenchmarkToken is the token endpoint without the network: one request after
// the other, from the header to the encoded answer. x-sign is its cost as a
// multiple of one bare ES256 signature. Signatures are timed between batches
// of requests, so that a busy machine slows both alike.
func BenchmarkToken(b *testing.B) {
	state, secret := newState(b)
	s := New(Config{Pepper: pepper, Rate: 1 << 30})
	s.SetState(state)
	const body = "grant_type=client_credentials&audience=orders"
	r := form(body)
	r.SetBasicAuth("shop", secret)
	sign := newBareSigner(b)
	const batch = 64

	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if i%batch == 0 {
			b.StopTimer()
			sign.run(b, batch/2)
			b.StartTimer()
		}
		r.Body = io.NopCloser(strings.NewReader(body))
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code != 200 {
			b.Fatalf("%d %s", w.Code, w.Body)
		}
	}
	perToken := b.Elapsed().Seconds() / float64(b.N)
	b.ReportMetric(1/perToken, "tokens/s")
	b.ReportMetric(perToken/sign.each(), "x-sign")
}

// bareSigner measures what an ES256 signature takes by itself.
type bareSigner struct {
	key   *ecdsa.PrivateKey
	input []byte
	n     int
	took  time.Duration
}

func newBareSigner(b *testing.B) *bareSigner {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	return &bareSigner{key: key, input: make([]byte, 350)} // about what a token of ours has
}

func (s *bareSigner) run(b *testing.B, n int) {
	began := time.Now()
	for range n {
		sum := sha256.Sum256(s.input)
		if _, err := ecdsa.SignASN1(rand.Reader, s.key, sum[:]); err != nil {
			b.Fatal(err)
		}
	}
	s.took += time.Since(began)
	s.n += n
}

// each is the seconds of one signature.
func (s *bareSigner) each() float64 { return s.took.Seconds() / float64(s.n) }
