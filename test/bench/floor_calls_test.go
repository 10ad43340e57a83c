package bench

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"google.golang.org/grpc"

	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
)

// floorOfCalls answers GetSelf to whoever asks, behind net/http and TLS as the
// admin API is.
type floorOfCalls struct {
	adminv1.UnimplementedAdminServiceServer
	address string
}

func newFloorOfCalls() server { return &floorOfCalls{} }

// GetSelf implements adminv1.AdminServiceServer.
func (*floorOfCalls) GetSelf(context.Context, *adminv1.GetSelfRequest) (*adminv1.GetSelfResponse, error) {
	return &adminv1.GetSelfResponse{Actor: "service:" + serviceName(0), Roles: []*adminv1.HeldRole{{Role: "VIEWER"}}}, nil
}

func (f *floorOfCalls) Start(address, dir string, _ int) (string, error) {
	d, err := newDoor(dir)
	if err != nil {
		return "", err
	}
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.authority.Certificates()[0].Raw})
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), root, 0o600); err != nil {
		return "", err
	}
	g := grpc.NewServer()
	adminv1.RegisterAdminServiceServer(g, f)
	lis, err := net.Listen("tcp", address)
	if err != nil {
		return "", err
	}
	f.address = lis.Addr().String()
	d.config.NextProtos = []string{"h2"}
	srv := &http.Server{Handler: g, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP2(true)
	go func() { _ = srv.Serve(tls.NewListener(lis, d.config)) }()
	return f.address, nil
}

func (f *floorOfCalls) Admin() string                  { return f.address }
func (*floorOfCalls) JoinTokens(int) ([]string, error) { return nil, errNothing }
func (*floorOfCalls) Served(int) error                 { return errNothing }
func (*floorOfCalls) Change(int) error                 { return errNothing }
