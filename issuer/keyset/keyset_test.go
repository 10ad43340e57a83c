package keyset_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/watchword-mesh/watchword/internal/jose"
	"github.com/watchword-mesh/watchword/issuer/keyset"
)

var created = time.Date(2027, 3, 1, 12, 0, 0, 0, time.FixedZone("UTC+8", 8*60*60))

func first(t *testing.T, alg string) keyset.Record {
	t.Helper()
	r, err := keyset.First(alg, created)
	if err != nil {
		t.Fatalf("First(%q): %v", alg, err)
	}
	return r
}

// The first key is active at once, and what it signs verifies with what is
// published.
func TestFirstKeySignsAndIsPublished(t *testing.T) {
	for _, alg := range []string{"ES256", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			r := first(t, alg)
			if r.State != keyset.Active || r.Algorithm != alg || !r.Created.Equal(created) || r.Created.Location() != time.UTC {
				t.Errorf("First(%q) = %v, created %v; want it active, with that algorithm, created %v in UTC", alg, r, r.Created, created.UTC())
			}
			set, err := keyset.NewSet([]keyset.Record{r})
			if err != nil {
				t.Fatalf("NewSet: %v", err)
			}
			signed, err := set.Signer().Sign([]byte(`{"a":1}`))
			if err != nil {
				t.Fatalf("Sign: %v", err)
			}
			published, faults := jose.ParseSet(set.JWKS(), jose.SetOptions{})
			if len(faults) > 0 {
				t.Fatalf("ParseSet(%s): %v", set.JWKS(), faults)
			}
			got, err := jose.Verify(signed, published, jose.VerifyOptions{Types: []string{"at+jwt"}})
			if err != nil {
				t.Fatalf("Verify with the published keys: %v", err)
			}
			want := jose.Header{KeyID: r.KeyID, Algorithm: alg, Type: "at+jwt"}
			if diff := cmp.Diff(want, got.Header); diff != "" {
				t.Errorf("header (-want +got):\n%s", diff)
			}
		})
	}
}

// The published set has nothing of the private key, and equal records give
// equal bytes.
func TestJWKSIsPublicAndStable(t *testing.T) {
	r := first(t, "ES256")
	var published [2]string
	for i := range published {
		set, err := keyset.NewSet([]keyset.Record{r})
		if err != nil {
			t.Fatalf("NewSet: %v", err)
		}
		published[i] = string(set.JWKS())
	}
	if published[0] != published[1] {
		t.Errorf("JWKS of equal records: %s and %s", published[0], published[1])
	}
	var got struct{ Keys []map[string]string }
	if err := json.Unmarshal([]byte(published[0]), &got); err != nil {
		t.Fatalf("JWKS %s: %v", published[0], err)
	}
	if len(got.Keys) != 1 || got.Keys[0]["d"] != "" || got.Keys[0]["kid"] != r.KeyID || got.Keys[0]["alg"] != "ES256" || got.Keys[0]["use"] != "sig" {
		t.Errorf("JWKS = %s; want one public key with kid %s, alg ES256, use sig", published[0], r.KeyID)
	}
}

// Records that don't agree with themselves or each other are refused.
func TestNewSetRefuses(t *testing.T) {
	a, b := first(t, "ES256"), first(t, "ES256")
	change := func(f func(*keyset.Record)) []keyset.Record {
		r := a
		f(&r)
		return []keyset.Record{r}
	}
	for _, c := range []struct {
		name    string
		records []keyset.Record
		want    string
	}{
		{"no key", nil, "there is no active signing key"},
		{"two active keys", []keyset.Record{a, b}, "are both active"},
		{"the same key twice", []keyset.Record{a, a}, "is there twice"},
		{"a state of a later version", change(func(r *keyset.Record) { r.State = "standby" }), `state "standby"`},
		{"another kid", change(func(r *keyset.Record) { r.KeyID = "other" }), "has the thumbprint " + a.KeyID},
		{"another public key", change(func(r *keyset.Record) { r.PublicJWK = b.PublicJWK }), "is not that of its private key"},
		{"another private key", change(func(r *keyset.Record) { r.PrivatePKCS8 = b.PrivatePKCS8 }), "has the thumbprint " + b.KeyID},
		{"another algorithm", change(func(r *keyset.Record) { r.Algorithm = "RS256" }), "reading signing key"},
		{"no private key", change(func(r *keyset.Record) { r.PrivatePKCS8 = nil }), "reading signing key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := keyset.NewSet(c.records)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("NewSet(%v) = %v; want an error with %q", c.records, err, c.want)
			}
		})
	}
}

func TestFirstRefusesAlgorithm(t *testing.T) {
	for _, alg := range []string{"", "none", "HS256"} {
		if r, err := keyset.First(alg, created); err == nil {
			t.Errorf("First(%q) = %v; want an error", alg, r)
		}
	}
}

// However a record is printed, the private key isn't there.
func TestRecordIsPrintedWithoutItsKey(t *testing.T) {
	r := first(t, "ES256")
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		got := fmt.Sprintf(format, r)
		if want := "signing key " + r.KeyID + " (ES256, active)"; got != want {
			t.Errorf("Sprintf(%q) = %q, want %q", format, got, want)
		}
	}
}
