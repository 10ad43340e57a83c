package identity_test

import (
	"testing"

	"github.com/watchword-mesh/watchword/internal/identity"
)

// What is written can be read, and there is one spelling of each ID.
func TestParse(t *testing.T) {
	for _, want := range []identity.ID{
		{TrustDomain: "mesh.local", Service: "orders"},
		{TrustDomain: "mesh.local", Service: "orders", Instance: identity.InstanceOf([]byte("a key"))},
	} {
		if got, err := identity.Parse(want.String()); err != nil || got != want {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", want.String(), got, err, want)
		}
	}
	for _, text := range []string{
		"", "spiffe://", "spiffe://mesh.local", "spiffe://mesh.local/", "spiffe://mesh.local//i", "spiffe://mesh.local/orders/",
		"spiffe://mesh.local/orders/i/x", "SPIFFE://mesh.local/orders", "spiffe://Mesh.local/orders", "spiffe://mesh.local/Orders",
		"spiffe://mesh.local/orders?x", "spiffe://mesh.local:1/orders", "https://mesh.local/orders", "spiffe://mesh.local/orders/..",
		"spiffe://mesh.local/orders\n", identity.ControlPlane("mesh.local"), "spiffe://mesh.local/%6frders",
	} {
		if got, err := identity.Parse(text); err == nil {
			t.Errorf("Parse(%q) = %+v; want an error", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("spiffe://mesh.local/orders/abc")
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := identity.Parse(text); err == nil && id.String() != text {
			t.Errorf("Parse(%q) = %+v, which is written %q", text, id, id.String())
		}
	})
}
