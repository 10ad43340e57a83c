package envoy

import (
	"strings"
	"testing"
)

// A bootstrap that can't work, or that would speak in plain text though nobody
// asked for that, is not written.
func TestBootstrapRefuses(t *testing.T) {
	socket := &BootstrapIdentity{TrustDomain: "mesh.test", SDSSocket: "/s"}
	with := func(id BootstrapIdentity) BootstrapOptions {
		return BootstrapOptions{Service: "orders", ADSAddress: "localhost:7401", Identity: &id}
	}
	for _, tt := range []struct {
		o    BootstrapOptions
		says string
	}{
		{BootstrapOptions{}, "service is not named"},
		{BootstrapOptions{Service: "orders", Identity: socket}, "address of the control plane"},
		{BootstrapOptions{Service: "orders", Identity: socket, ADSAddress: "localhost"}, "address of the control plane"},
		{BootstrapOptions{Service: "orders", Identity: socket, ADSAddress: ":7401"}, "address of the control plane"},
		{BootstrapOptions{Service: "orders", Identity: socket, ADSAddress: "localhost:70000"}, "address of the control plane"},
		{BootstrapOptions{Service: "orders", Identity: socket, ADSAddress: "localhost:7401", AdminAddress: "9901"}, "address of the admin interface"},
		{BootstrapOptions{Service: "orders", Identity: socket, ADSAddress: "localhost:7401", AdminAddress: "/" + strings.Repeat("a", 107)}, "107 bytes"},
		{BootstrapOptions{Service: "orders", ADSAddress: "localhost:7401"}, "no identity"},
		{BootstrapOptions{Service: "orders", ADSAddress: "localhost:7401", Identity: socket, Unprotected: true}, "without protection"},
		{with(BootstrapIdentity{SDSSocket: "/s"}), "trust domain"},
		{with(BootstrapIdentity{TrustDomain: "mesh.test"}), "name one"},
		{with(BootstrapIdentity{TrustDomain: "mesh.test", SDSSocket: "/s", Folder: "/f"}), "name one"},
		{with(BootstrapIdentity{TrustDomain: "mesh.test", SDSSocket: "s"}), "absolute"},
		{with(BootstrapIdentity{TrustDomain: "mesh.test", Folder: "f"}), "absolute"},
	} {
		if b, err := Bootstrap(tt.o); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("Bootstrap(%+v) = %s, %v; want an error with %q", tt.o, b, err, tt.says)
		}
	}
}
