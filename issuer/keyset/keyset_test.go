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
			set, err := keyset.NewSet(only(r))
			if err != nil {
				t.Fatalf("NewSet: %v", err)
			}
			signed, err := set.SignerFor("orders").Sign([]byte(`{"a":1}`))
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
		set, err := keyset.NewSet(only(r))
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

// only is one key, which signs.
func only(r keyset.Record) keyset.Keys {
	return keyset.Keys{Records: map[string]keyset.Record{r.KeyID: r}, Open: keyset.Open{Active: r.KeyID}}
}

// Records that don't agree with themselves or each other are refused.
func TestNewSetRefuses(t *testing.T) {
	a, b := first(t, "ES256"), first(t, "ES256")
	change := func(f func(*keyset.Record)) keyset.Keys {
		k := only(a)
		r := a
		f(&r)
		k.Records[a.KeyID] = r
		return k
	}
	open := func(o keyset.Open) keyset.Keys { return keyset.Keys{Records: only(a).Records, Open: o} }
	for _, c := range []struct {
		name string
		keys keyset.Keys
		want string
	}{
		{"no key", keyset.Keys{}, "no signing key is open"},
		{"a key that is not there", open(keyset.Open{Active: b.KeyID}), "is not an active key"},
		{"an older key that is not there", open(keyset.Open{Active: a.KeyID, Except: map[string]string{"orders": b.KeyID}}), "is not an active key"},
		{"a standby that is to sign", change(func(r *keyset.Record) { r.State = keyset.Standby }), "is not an active key"},
		{"a revoked key that is to sign", change(func(r *keyset.Record) { r.State = keyset.Revoked }), "is not an active key"},
		{"a state of a later version", change(func(r *keyset.Record) { r.State = "dormant" }), `state "dormant"`},
		{"another kid", change(func(r *keyset.Record) { r.KeyID = "other" }), "has the thumbprint " + a.KeyID},
		{"another public key", change(func(r *keyset.Record) { r.PublicJWK = b.PublicJWK }), "is not that of its private key"},
		{"another private key", change(func(r *keyset.Record) { r.PrivatePKCS8 = b.PrivatePKCS8 }), "has the thumbprint " + b.KeyID},
		{"another algorithm", change(func(r *keyset.Record) { r.Algorithm = "RS256" }), "reading signing key"},
		{"no private key", change(func(r *keyset.Record) { r.PrivatePKCS8 = nil }), "reading signing key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := keyset.NewSet(c.keys)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("NewSet(%v) = %v; want an error with %q", c.keys, err, c.want)
			}
		})
	}
}

// Each audience has the key that is open for it; revoked keys are not published.
func TestSetSignsAudienceByAudience(t *testing.T) {
	k := keyset.Keys{Records: map[string]keyset.Record{}}
	for _, state := range []keyset.State{keyset.Active, keyset.Active, keyset.Standby, keyset.Retiring, keyset.Revoked} {
		r := first(t, "ES256")
		switch r.State = state; {
		case state == keyset.Revoked:
			r.PrivatePKCS8 = nil
		case state == keyset.Active && k.Open.Active == "":
			k.Open.Active = r.KeyID
		case state == keyset.Active:
			k.Open.Except = map[string]string{"payments": r.KeyID}
		}
		k.Records[r.KeyID] = r
	}
	set, err := keyset.NewSet(k)
	if err != nil {
		t.Fatalf("NewSet(%v): %v", k, err)
	}
	for audience, want := range map[string]string{"orders": k.Open.Active, "payments": k.Open.Except["payments"], "new": k.Open.Active} {
		if got := set.SignerFor(audience).KeyID(); got != want {
			t.Errorf("key for %s: got %s, want %s (open: %v)", audience, got, want, k.Open)
		}
	}
	for _, key := range set.Keys() {
		if k.Records[key.ID()].State == keyset.Revoked {
			t.Errorf("published: %s, which is revoked", key.ID())
		}
	}
	if got := len(set.Keys()); got != 4 {
		t.Errorf("published %d keys, want 4 of %v", got, k)
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
