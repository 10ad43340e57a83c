package envoy

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// What mesh.revoked is made of, with each form of a revocation; and the same input gives
// the same bytes.
func TestRevokedGolden(t *testing.T) {
	r := &dataplanev1.Revocations{Service: "orders", Consumers: []string{"acme"}, Issuers: []*dataplanev1.RevokedOfIssuer{
		{Issuer: "idp", IssuedUntil: 1_700_000_001, Subjects: []*dataplanev1.RevokedSubject{{Subject: "ann"}, {Subject: "bert", IssuedUntil: 1_800_000_001}, {Subject: "cy", IssuedUntil: 1_600_000_001}}},
		{Issuer: "watchword", Tokens: []string{"j1", "j2"}, Instances: []*dataplanev1.RevokedInstance{{Subject: "spiffe://mesh.local/shop", Instance: "i1"}}},
	}}
	made, err := Revoked("orders", r)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Revoked("orders", proto.CloneOf(r))
	if err != nil || !bytes.Equal(made.Body, again.Body) {
		t.Errorf("equal input gives other bytes, or %v", err)
	}
	got := shown(t, []Resource{made})
	const file = "testdata/revoked.golden"
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("-want +got (rewrite with -update):\n%s", diff)
	}
}

// Without a revocation the filter is the one that lets everything through, whatever the
// service: that of Resources.
func TestNothingRevoked(t *testing.T) {
	var want []byte
	for _, r := range []*dataplanev1.Revocations{nil, {Service: "orders"}, {Service: "orders", Issuers: []*dataplanev1.RevokedOfIssuer{{Issuer: "idp"}}}} {
		got, err := Revoked("orders", r)
		if err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = got.Body
		}
		if !bytes.Equal(got.Body, want) {
			t.Errorf("%v gives another filter than none", r)
		}
	}
}

// BenchmarkRevoked is how long a list takes to translate, and how large it gets.
func BenchmarkRevoked(b *testing.B) {
	for _, n := range []int{0, 1, 1_000, 10_000} {
		is := &dataplanev1.RevokedOfIssuer{Issuer: "watchword"}
		for i := range n {
			is.Tokens = append(is.Tokens, fmt.Sprintf("00000000-0000-4000-8000-%012d", i))
		}
		r := &dataplanev1.Revocations{Service: "orders", Issuers: []*dataplanev1.RevokedOfIssuer{is}}
		b.Run(fmt.Sprint("entries=", n), func(b *testing.B) {
			size := 0
			for b.Loop() {
				made, err := Revoked("orders", r)
				if err != nil {
					b.Fatal(err)
				}
				size = len(made.Body)
			}
			b.ReportMetric(float64(size), "B/resource")
		})
	}
}
