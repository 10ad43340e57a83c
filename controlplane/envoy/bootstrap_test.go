package envoy

import (
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
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

// An Envoy knows all replicas of its control plane, by name or address, each once; one
// that is no address spoils all.
func TestBootstrapOfReplicas(t *testing.T) {
	all, discovery, err := replicas("control-plane", "10.0.0.1:7401, 10.0.0.2:7402")
	if err != nil || discovery != clusterv3.Cluster_STATIC || len(all.GetEndpoints()) != 1 || len(all.GetEndpoints()[0].GetLbEndpoints()) != 2 {
		t.Fatalf("two addresses: %v, %s, %v; want two endpoints of one place, static", all, discovery, err)
	}
	for n, want := range []uint32{7401, 7402} {
		if got := all.GetEndpoints()[0].GetLbEndpoints()[n].GetEndpoint().GetAddress().GetSocketAddress().GetPortValue(); got != want {
			t.Errorf("endpoint %d has port %d, want %d", n, got, want)
		}
	}
	if _, discovery, err := replicas("control-plane", "10.0.0.1:7401,b.example:7401"); err != nil || discovery != clusterv3.Cluster_STRICT_DNS {
		t.Errorf("one of them a name: %s, %v; want STRICT_DNS", discovery, err)
	}
	if _, _, err := replicas("control-plane", "10.0.0.1:7401,"); err == nil {
		t.Error("an empty second address is taken")
	}
}
