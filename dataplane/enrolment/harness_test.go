package enrolment

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/watchword-mesh/watchword/internal/identity"
	"github.com/watchword-mesh/watchword/internal/jointoken"
	"github.com/watchword-mesh/watchword/issuer/ca"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

const lifetime = time.Hour

var noon = time.Date(2027, 3, 1, 12, 0, 0, 0, time.UTC)

// plane is a control plane that does nothing but enrol, over real TLS.
type plane struct {
	enrolmentv1.UnimplementedEnrolmentServiceServer
	address string
	token   jointoken.Token
	clock   *clock

	mu        sync.Mutex
	records   []ca.Record
	authority *ca.Authority
	requests  []*enrolmentv1.EnrolRequest
	renewals  []string
	// answers are errors for the next requests, after the work was done; nil is none.
	answers []error
	// change is done to each identity that is given.
	change func(*enrolmentv1.Identity)
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) set(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = now
}

func newPlane(tb testing.TB) *plane {
	tb.Helper()
	p := &plane{clock: &clock{now: noon}, change: func(*enrolmentv1.Identity) {}}
	p.addCA(tb)
	p.token = jointoken.New(p.authority.Pin())
	p.address = p.listen(tb, p.serverCertificate(tb))
	return p
}

// addCA makes a CA that signs from now on.
func (p *plane) addCA(tb testing.TB) {
	tb.Helper()
	r, err := ca.First("mesh.local", p.clock.Now())
	if err != nil {
		tb.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.records = append(p.records, r)
	if p.authority, err = ca.NewAuthority(p.records); err != nil {
		tb.Fatal(err)
	}
}

func (p *plane) serverCertificate(tb testing.TB) tls.Certificate {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	chain, err := p.authority.IssueServer(ca.Server{TrustDomain: "mesh.local"}, key.Public(), p.clock.Now(), 10*24*time.Hour)
	if err != nil {
		tb.Fatal(err)
	}
	return tls.Certificate{Certificate: chain, PrivateKey: key}
}

// listen serves with this certificate, and gives the address.
func (p *plane) listen(tb testing.TB, certificate tls.Certificate) string {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{certificate}, Time: p.clock.Now,
		ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: p.authority.Pool(),
	}
	s := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	enrolmentv1.RegisterEnrolmentServiceServer(s, p)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(l)
	}()
	tb.Cleanup(func() {
		s.Stop()
		<-done
	})
	return l.Addr().String()
}

func (p *plane) Enrol(_ context.Context, req *enrolmentv1.EnrolRequest) (*enrolmentv1.EnrolResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests = append(p.requests, req)
	public, spki, err := ca.ParseRequest(req.GetCertificateRequest())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	id := identity.ID{TrustDomain: "mesh.local", Service: req.GetService(), Instance: identity.InstanceOf(spki)}
	m, err := p.give(id, public)
	return &enrolmentv1.EnrolResponse{Identity: m}, err
}

func (p *plane) Renew(ctx context.Context, _ *enrolmentv1.RenewRequest) (*enrolmentv1.RenewResponse, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	from, _ := peer.FromContext(ctx)
	shown := from.AuthInfo.(credentials.TLSInfo).State.PeerCertificates
	if len(shown) == 0 {
		return nil, status.Error(codes.Unauthenticated, "no certificate")
	}
	id, err := p.authority.Instance(shown[0])
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	p.renewals = append(p.renewals, id.String())
	m, err := p.give(id, shown[0].PublicKey)
	return &enrolmentv1.RenewResponse{Identity: m}, err
}

func (p *plane) give(id identity.ID, public any) (*enrolmentv1.Identity, error) {
	now := p.clock.Now()
	chain, err := p.authority.IssueInstance(id, public, now, lifetime)
	if err != nil {
		return nil, err
	}
	if len(p.answers) > 0 {
		next := p.answers[0]
		p.answers = p.answers[1:]
		if next != nil {
			return nil, next
		}
	}
	m := &enrolmentv1.Identity{
		Service: id.Service, Instance: id.Instance, Certificates: chain,
		Expires: timestamppb.New(now.Add(lifetime)), Renew: timestamppb.New(now.Add(lifetime / 2)),
		Issuer: "https://sts.mesh.local", TrustDomain: "mesh.local",
	}
	for _, c := range p.authority.Certificates() {
		m.Authorities = append(m.Authorities, c.Raw)
	}
	p.change(m)
	return m, nil
}

// answer makes the next requests fail like that.
func (p *plane) answer(errs ...error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answers = errs
}

// asked takes the requests since the last call.
func (p *plane) asked() []*enrolmentv1.EnrolRequest {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.requests
	p.requests = nil
	return r
}

// config enrols the service orders with the join token.
func (p *plane) config() Config {
	return Config{Addresses: []string{p.address}, Service: "orders", Node: "pod-1", Credential: JoinToken(p.token.Text()), Now: p.clock.Now}
}

func enrol(tb testing.TB, c Config) *Identity {
	tb.Helper()
	i, err := Enrol(tb.Context(), c)
	if err != nil {
		tb.Fatalf("Enrol: %v", err)
	}
	return i
}

// logged gives a logger at the lowest level, and what it has written.
func logged() (hclog.Logger, *bytes.Buffer) {
	var out bytes.Buffer
	return hclog.New(&hclog.LoggerOptions{Level: hclog.Trace, Output: &out, Mutex: &sync.Mutex{}}), &out
}

func pemOf(tb testing.TB, certificates []*x509.Certificate) []byte {
	tb.Helper()
	var out bytes.Buffer
	for _, c := range certificates {
		out.Write(encodePEM(blockCertificate, c.Raw))
	}
	return out.Bytes()
}
