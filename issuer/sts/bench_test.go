package sts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"
)

// BenchmarkToken is the token endpoint without the network: one request after
// the other, from the header to the encoded answer.
//
//	x-bare    its cost as a multiple of the bare ES256 operations that it can't
//	          do without: one signature; by an assertion one verification as well
//	x-secret  as a multiple of a request by a client secret
//
// What it is compared with is timed between batches of requests, so that a busy
// machine slows both alike.
func BenchmarkToken(b *testing.B) {
	t := newTokenBench(b)
	b.Run("secret", func(b *testing.B) {
		per, bare := t.measure(b, t.bySecret), t.bare.sign.each()
		b.ReportMetric(per/bare, "x-bare")
	})
	b.Run("assertion", func(b *testing.B) {
		per, bare := t.measure(b, t.byAssertion), t.bare.sign.each()+t.bare.verify.each()
		b.ReportMetric(per/bare, "x-bare")
		b.ReportMetric(per/t.secret.each(), "x-secret")
	})
}

// tokenBench is a server with a client of each kind.
type tokenBench struct {
	*mesh
	bySecret, byAssertion func(testing.TB) *http.Request
	bare                  *bareES256
	secret                stopwatch
}

func newTokenBench(b *testing.B) *tokenBench {
	m, instances, key := enrolledMesh(b)
	// Without the log of the tests, and what they gather of the audit.
	m.Server = New(Config{Pepper: pepper, Instances: instances, Now: m.clock.Now, Rate: 1 << 30})
	m.SetState(m.state)
	return &tokenBench{
		mesh:     m,
		bySecret: func(testing.TB) *http.Request { return m.tokenRequest("audience", "orders") },
		byAssertion: func(tb testing.TB) *http.Request {
			return assertedForm(m.assertion(tb, key, m.state.Issuer), "audience", "orders")
		},
		bare: newBareES256(b),
	}
}

// batch is how many requests are made before the clock runs.
const batch = 64

// measure returns the seconds of one request.
func (t *tokenBench) measure(b *testing.B, request func(testing.TB) *http.Request) float64 {
	b.ReportAllocs()
	var waiting []*http.Request
	var watch stopwatch
	t.bare.reset()
	t.secret = nil
	for b.Loop() {
		if len(waiting) == 0 {
			b.StopTimer()
			t.clock.Advance(10 * time.Second) // assertions of long ago are forgotten
			t.bare.run(b, batch/2)
			for range batch / 2 {
				r := t.bySecret(b)
				t.secret.time(1, func() { t.answer(b, r) })
			}
			for range batch {
				waiting = append(waiting, request(b))
			}
			b.StartTimer()
		}
		watch.time(1, func() { t.answer(b, waiting[0]) })
		waiting = waiting[1:]
	}
	per := watch.each()
	b.ReportMetric(1/per, "tokens/s")
	return per
}

func (t *tokenBench) answer(b *testing.B, r *http.Request) {
	w := httptest.NewRecorder()
	t.Handler().ServeHTTP(w, r)
	if w.Code != 200 {
		b.Fatalf("%d %s", w.Code, w.Body)
	}
}

// stopwatch takes the times of something that is done often.
type stopwatch []time.Duration

func (s *stopwatch) time(n int, do func()) {
	for range n {
		began := time.Now()
		do()
		*s = append(*s, time.Since(began))
	}
}

// each is the seconds that one takes mostly: the median, which others on the
// machine hardly move.
func (s stopwatch) each() float64 {
	slices.Sort(s)
	return s[len(s)/2].Seconds()
}

// bareES256 measures what a signature and a verification take by themselves.
type bareES256 struct {
	key          *ecdsa.PrivateKey
	input        []byte
	sign, verify stopwatch
}

func newBareES256(b *testing.B) *bareES256 {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	return &bareES256{key: key, input: make([]byte, 350)} // about what a token of ours has
}

func (s *bareES256) reset() { s.sign, s.verify = nil, nil }

func (s *bareES256) run(b *testing.B, n int) {
	var signature []byte
	s.sign.time(n, func() {
		sum := sha256.Sum256(s.input)
		var err error
		if signature, err = ecdsa.SignASN1(rand.Reader, s.key, sum[:]); err != nil {
			b.Fatal(err)
		}
	})
	s.verify.time(n, func() {
		sum := sha256.Sum256(s.input)
		if !ecdsa.VerifyASN1(&s.key.PublicKey, sum[:], signature) {
			b.Fatal("a signature of its own does not verify")
		}
	})
}
