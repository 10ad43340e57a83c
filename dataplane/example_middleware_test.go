package dataplane_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	"github.com/watchword-mesh/watchword/dataplane"
	"github.com/watchword-mesh/watchword/test/examplemesh"
)

// The service orders protects itself, and the service shop calls it. Here both are in
// one process; as a rule they are two.
func ExampleDataPlane_Middleware() {
	ctx := context.Background()
	mesh, err := examplemesh.Start() // a control plane: `watchword serve`
	if err != nil {
		fmt.Println(err)
		return
	}
	defer mesh.Close()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := mesh.Apply(fmt.Sprintf(twoServices, listener.Addr())); err != nil {
		fmt.Println(err)
		return
	}

	orders, err := open(ctx, mesh, "orders")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer orders.Close()
	server, err := serve(ctx, orders, listener)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.Close()

	shop, err := open(ctx, mesh, "shop")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer shop.Close()
	if err := call(ctx, shop); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 200 OK: caller: shop
	// 200 OK: caller: shop
}

// serve is the service orders, with TLS of the mesh.
func serve(ctx context.Context, orders *dataplane.DataPlane, listener net.Listener) (*http.Server, error) {
	identity, err := orders.Identity(ctx)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /orders/{id}", func(w http.ResponseWriter, r *http.Request) {
		caller, _ := dataplane.FromContext(r.Context())
		_, _ = fmt.Fprintf(w, "caller: %s", caller.Service)
	})
	server := &http.Server{Handler: orders.Middleware(mux)} // around the mux, not in it
	go func() { _ = server.Serve(tls.NewListener(listener, identity.ServerTLS())) }()
	return server, nil
}

// call is what shop does: its client knows orders by its host, and adds the token.
func call(ctx context.Context, shop *dataplane.DataPlane) error {
	client := &http.Client{Transport: shop.Transport(nil)}
	defer client.CloseIdleConnections()
	for range 2 { // the second one finds the token in memory
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://orders/orders/7", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		body, err := io.ReadAll(resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			return err
		}
		fmt.Printf("%s: %s\n", resp.Status, body)
	}
	return nil
}
