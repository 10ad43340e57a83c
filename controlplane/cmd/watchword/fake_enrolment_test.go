package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/controlplane/xds"
	"github.com/watchword-mesh/watchword/internal/identity"
	"github.com/watchword-mesh/watchword/internal/jointoken"
	"github.com/watchword-mesh/watchword/issuer/ca"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

const fakeTrustDomain = "mesh.fake"

// fakeEnrolment enrols who has the join token, for the service orders only. Its
// certificates are to be renewed at once.
type fakeEnrolment struct {
	enrolmentv1.UnimplementedEnrolmentServiceServer
	authority *ca.Authority
	token     string
	renewals  atomic.Int64
	revoked   atomic.Bool

	credentials credentials.TransportCredentials
}

// newFakeEnrolment is served by the gRPC server.
func newFakeEnrolment() (*fakeEnrolment, *grpc.Server, error) {
	record, err := ca.First(fakeTrustDomain, time.Now())
	if err != nil {
		return nil, nil, err
	}
	f := new(fakeEnrolment)
	if f.authority, err = ca.NewAuthority([]ca.Record{record}); err != nil {
		return nil, nil, err
	}
	f.token = jointoken.New(f.authority.Pin()).Text()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	chain, err := f.authority.IssueServer(ca.Server{TrustDomain: fakeTrustDomain}, key.Public(), time.Now(), time.Hour)
	if err != nil {
		return nil, nil, err
	}
	f.credentials = credentials.NewTLS(&tls.Config{
		Certificates: []tls.Certificate{{Certificate: chain, PrivateKey: key}},
		ClientAuth:   tls.VerifyClientCertIfGiven, ClientCAs: f.authority.Pool(),
	})
	g := grpc.NewServer(append(xds.ServerOptions(), grpc.Creds(f.credentials))...)
	enrolmentv1.RegisterEnrolmentServiceServer(g, f)
	return f, g, nil
}

// serveGRPC serves on a free port until the end of a test.
func serveGRPC(g *grpc.Server, atEnd func(func())) (address string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	atEnd(func() { g.Stop(); <-done })
	return l.Addr().String(), nil
}

// adminPort refuses every call as the admin API does, with the certificate of the
// same CA.
func (f *fakeEnrolment) adminPort() *grpc.Server {
	return grpc.NewServer(grpc.Creds(f.credentials), grpc.UnknownServiceHandler(func(any, grpc.ServerStream) error {
		return status.Error(codes.Unauthenticated, "this call needs a credential: authorization: Bearer TOKEN")
	}))
}

// startEnrolment serves at $ADS, and at $ADMIN_PORT what refuses it, for the join token $JOIN_TOKEN, which is in the
// file join.token too.
func startEnrolment(env *testscript.Env) error {
	f, g, err := newFakeEnrolment()
	if err != nil {
		return err
	}
	address, err := serveGRPC(g, env.Defer)
	if err != nil {
		return err
	}
	admin, err := serveGRPC(f.adminPort(), env.Defer)
	if err != nil {
		return err
	}
	env.Setenv("ADMIN_PORT", admin)
	env.Setenv("ADS", address)
	env.Setenv("JOIN_TOKEN", f.token)
	return os.WriteFile(filepath.Join(env.WorkDir, "join.token"), []byte(f.token+"\n"), 0o600)
}

// instance is who calls, by its certificate.
func (f *fakeEnrolment) instance(ctx context.Context) (identity.ID, *x509.Certificate, error) {
	from, _ := peer.FromContext(ctx)
	shown := from.AuthInfo.(credentials.TLSInfo).State.PeerCertificates
	if f.revoked.Load() {
		return identity.ID{}, nil, status.Error(codes.PermissionDenied, "this instance was revoked")
	}
	if len(shown) == 0 {
		return identity.ID{}, nil, status.Error(codes.Unauthenticated, "no certificate")
	}
	id, err := f.authority.Instance(shown[0])
	return id, shown[0], err
}

func (f *fakeEnrolment) Enrol(_ context.Context, req *enrolmentv1.EnrolRequest) (*enrolmentv1.EnrolResponse, error) {
	public, spki, err := ca.ParseRequest(req.GetCertificateRequest())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	id := identity.ID{TrustDomain: fakeTrustDomain, Service: req.GetService(), Instance: identity.InstanceOf(spki)}
	if req.GetJoinToken() != f.token || req.GetService() != "orders" {
		return nil, status.Error(codes.PermissionDenied, "this join token is not for service "+req.GetService())
	}
	m, err := f.give(id, public)
	return &enrolmentv1.EnrolResponse{Identity: m}, err
}

func (f *fakeEnrolment) Renew(ctx context.Context, _ *enrolmentv1.RenewRequest) (*enrolmentv1.RenewResponse, error) {
	id, shown, err := f.instance(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	f.renewals.Add(1)
	m, err := f.give(id, shown.PublicKey)
	return &enrolmentv1.RenewResponse{Identity: m}, err
}

// give makes a certificate that is to be renewed in a tenth of a second.
func (f *fakeEnrolment) give(id identity.ID, public any) (*enrolmentv1.Identity, error) {
	now := time.Now()
	chain, err := f.authority.IssueInstance(id, public, now, time.Hour)
	if err != nil {
		return nil, err
	}
	m := &enrolmentv1.Identity{Service: id.Service, Instance: id.Instance, Certificates: chain, TrustDomain: fakeTrustDomain,
		Issuer: "https://sts.fake", Expires: timestamppb.New(now.Add(time.Hour)), Renew: timestamppb.New(now.Add(100 * time.Millisecond))}
	for _, c := range f.authority.Certificates() {
		m.Authorities = append(m.Authorities, c.Raw)
	}
	return m, nil
}
