package dataplane

import (
	"testing"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// A callee is found by each of its hosts however they are spelt, and by nothing else.
func TestCallee(t *testing.T) {
	d := plane(t, nil)
	if _, ok := d.Callee("orders"); ok {
		t.Error("a callee before anything is known")
	}
	d.outbound.put(&dataplanev1.Outbound{Service: "orders", Callees: []*dataplanev1.Callee{
		{Service: "orders", Audience: "orders", Hosts: []string{"orders", "::1", "10.0.0.1"}},
	}})
	for host, want := range map[string]bool{
		"orders": true, "ORDERS": true, "orders.": true, "::1": true, "10.0.0.1": true,
		"orders:1": false, "[::1]": false, "::2": false, "payments": false, "": false, "x.orders": false,
	} {
		if c, ok := d.Callee(host); ok != want || ok && c.Audience != "orders" {
			t.Errorf("Callee(%q) = %+v, %v; want %v", host, c, ok, want)
		}
	}
	for address, want := range map[string]bool{"orders:443": true, "[::1]:443": true, "10.0.0.1:80": true, "[orders:1]:80": false, "orders": false} {
		if got := d.calleeAt(address) != nil; got != want {
			t.Errorf("calleeAt(%q) is there: %v, want %v", address, got, want)
		}
	}
}
