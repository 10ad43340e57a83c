package jose

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"testing"
	"time"
)

const benchClaims = `{"iss":"https://issuer.mesh","sub":"orders","aud":"payments","exp":1900000000,"iat":1899999700,"nbf":1899999700,"jti":"0123456789abcdef","client_id":"orders","scope":"read write"}`

// BenchmarkSignES256 reports as x-raw how many times the bare signature a token costs.
func BenchmarkSignES256(b *testing.B) {
	k, s := benchKey(b)
	raw := k.data.get().signer.(*ecdsa.PrivateKey)
	compare(b, func() error {
		_, err := s.Sign([]byte(benchClaims))
		return err
	}, func() error {
		sum := sha256.Sum256([]byte(benchClaims))
		_, err := ecdsa.SignASN1(rand.Reader, raw, sum[:])
		return err
	})
}

// BenchmarkVerifyES256 reports as x-raw how many times the bare check a token costs.
func BenchmarkVerifyES256(b *testing.B) {
	k, s := benchKey(b)
	token, err := s.Sign([]byte(benchClaims))
	if err != nil {
		b.Fatal(err)
	}
	keys := []Key{k.Public()}
	raw := k.data.get().signer.(*ecdsa.PrivateKey)
	sum := sha256.Sum256([]byte(token))
	sig, err := ecdsa.SignASN1(rand.Reader, raw, sum[:])
	if err != nil {
		b.Fatal(err)
	}
	compare(b, func() error {
		_, err := Verify(token, keys, VerifyOptions{})
		return err
	}, func() error {
		sum := sha256.Sum256([]byte(token))
		if !ecdsa.VerifyASN1(&raw.PublicKey, sum[:], sig) {
			return ErrSignature
		}
		return nil
	})
}

func benchKey(b *testing.B) (*PrivateKey, *Signer) {
	k, err := GenerateKey("ES256")
	if err != nil {
		b.Fatal(err)
	}
	return k, k.Signer("at+jwt")
}

// compare takes turns, so that other load on the machine meets both alike.
func compare(b *testing.B, ours, raw func() error) {
	var oursTime, rawTime time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		if err := ours(); err != nil {
			b.Fatal(err)
		}
		middle := time.Now()
		if err := raw(); err != nil {
			b.Fatal(err)
		}
		oursTime += middle.Sub(start)
		rawTime += time.Since(middle)
	}
	b.ReportMetric(float64(oursTime)/float64(b.N), "ns-ours/op")
	b.ReportMetric(float64(oursTime)/float64(rawTime), "x-raw")
}
