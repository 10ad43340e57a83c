package dataplane_test

import (
	"context"
	"errors"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/watchword-mesh/watchword/dataplane"
	"github.com/watchword-mesh/watchword/test/examplemesh"
)

// Server and client of gRPC. The server here is grpc-go's own health service.
func ExampleDataPlane_UnaryInterceptor() {
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
	server, err := serveGRPC(ctx, orders, listener)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer server.GracefulStop()

	shop, err := open(ctx, mesh, "shop")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer shop.Close()
	if err := callGRPC(ctx, shop); err != nil {
		fmt.Println(err)
	}
	// Output:
	// with the token of shop: SERVING
	// without a token: rpc error: code = Unauthenticated desc = token_missing
}

// serveGRPC is the service orders, with TLS of the mesh.
func serveGRPC(ctx context.Context, orders *dataplane.DataPlane, listener net.Listener) (*grpc.Server, error) {
	identity, err := orders.Identity(ctx)
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(identity.ServerTLS())),
		grpc.UnaryInterceptor(orders.UnaryInterceptor()),
		grpc.StreamInterceptor(orders.StreamInterceptor()))
	healthv1.RegisterHealthServer(server, health.NewServer())
	go func() { _ = server.Serve(listener) }()
	return server, nil
}

// callGRPC is what shop does, with a token and without one.
func callGRPC(ctx context.Context, shop *dataplane.DataPlane) error {
	orders, ok := shop.Callee("orders")
	if !ok {
		return errors.New("shop may not call orders")
	}
	tls := grpc.WithTransportCredentials(credentials.NewTLS(shop.CalleeTLS(orders)))
	tokens := shop.GRPC(orders.Audience)
	conn, err := grpc.NewClient(orders.Endpoints[0], tls,
		grpc.WithUnaryInterceptor(tokens.UnaryInterceptor()),
		grpc.WithStreamInterceptor(tokens.StreamInterceptor()))
	if err != nil {
		return err
	}
	defer conn.Close()
	resp, err := healthv1.NewHealthClient(conn).Check(ctx, new(healthv1.HealthCheckRequest))
	if err != nil {
		return err
	}
	fmt.Println("with the token of shop:", resp.GetStatus())

	anonymous, err := grpc.NewClient(orders.Endpoints[0], tls)
	if err != nil {
		return err
	}
	defer anonymous.Close()
	_, err = healthv1.NewHealthClient(anonymous).Check(ctx, new(healthv1.HealthCheckRequest))
	fmt.Println("without a token:", err)
	return nil
}
