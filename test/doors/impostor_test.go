package doors

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	"github.com/watchword-mesh/watchword/internal/jointoken"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
)

// thief is a server that would take whatever it is sent.
type thief struct {
	enrolmentv1.UnimplementedEnrolmentServiceServer
	// heard, if not nil, is called at each request.
	heard func()
	mu    sync.Mutex
	sent  strings.Builder
}

func (f *thief) note(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent.WriteString(text)
}

func (f *thief) Enrol(_ context.Context, req *enrolmentv1.EnrolRequest) (*enrolmentv1.EnrolResponse, error) {
	f.note(req.String())
	if f.heard != nil {
		f.heard()
	}
	return nil, status.Error(codes.Unavailable, "try again")
}

// start serves with a certificate and returns the address.
func (f *thief) start(t *testing.T, cert *tls.Certificate) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(cert)))
	enrolmentv1.RegisterEnrolmentServiceServer(g, f)
	var serving sync.WaitGroup
	serving.Go(func() { _ = g.Serve(l) })
	t.Cleanup(func() { g.Stop(); serving.Wait() })
	return l.Addr().String()
}

// wrongPin: whoever is not the control plane of the token's mesh is not shown the
// token, nor any other credential.
func wrongPin(t *testing.T, m *mesh) {
	token := m.newJoinToken(t, "target")
	parsed, err := jointoken.Parse(token)
	if err != nil {
		t.Fatal(err)
	}
	kubernetes := filepath.Join(t.TempDir(), "token")
	writeFile(t, kubernetes, "a-token-of-kubernetes")
	instance := certificateOf(m.enrol(t, "other"))
	for what, cert := range map[string]*tls.Certificate{
		"a server of another CA":  newAuthority(t, "foreign").server(t, "mesh.local"),
		"an instance of the mesh": {Certificate: append(instance.Certificate, caCertificate(t, m)), PrivateKey: instance.PrivateKey},
	} {
		for _, credential := range []enrolment.Credential{
			enrolment.JoinToken(token), enrolment.KubernetesTokenFile{File: kubernetes, Pin: parsed.Pin}, enrolment.KubernetesTokenFile{File: kubernetes, CAFile: filepath.Join(m.Config.DataDir, "ca.pem")},
		} {
			f := &thief{}
			_, err := enrolment.Enrol(patient(t), enrolment.Config{Addresses: []string{f.start(t, cert)}, Service: "target", Credential: credential})
			if !errors.Is(err, enrolment.ErrRefused) || !strings.Contains(err.Error(), "not the control plane") {
				t.Errorf("enrolling at %s by %T: %v, want it refused as not the control plane", what, credential, err)
			}
			f.mu.Lock()
			if got := f.sent.String(); got != "" {
				t.Errorf("enrolling at %s by %T: it was sent %q, want nothing", what, credential, got)
			}
			f.mu.Unlock()
		}
	}
	m.wantUses(t, "after all", token, 0)
	wantBite(t, m, token)
}

// wantBite proves that the thief takes what it is sent, by a client that trusts it.
func wantBite(t *testing.T, m *mesh, token string) {
	t.Helper()
	ctx, cancel := context.WithCancel(patient(t))
	f, foreign := &thief{heard: cancel}, newAuthority(t, "foreign") // else it would try again
	parts := strings.Split(token, ".")
	parts[2] = jointoken.PinOf(foreign.certificate)
	_, _ = enrolment.Enrol(ctx, enrolment.Config{Addresses: []string{f.start(t, foreign.server(t, "mesh.local"))}, Service: "target", Credential: enrolment.JoinToken(strings.Join(parts, "."))})
	f.mu.Lock()
	defer f.mu.Unlock()
	if !strings.Contains(f.sent.String(), parts[1]) {
		t.Errorf("the server got %q, want the join token in it: this test proves nothing", f.sent.String())
	}
}

func caCertificate(t *testing.T, m *mesh) []byte {
	t.Helper()
	conn, err := tls.Dial("tcp", m.Config.XDSListen, clientTLS(m.CA(t), nil))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	shown := conn.ConnectionState().PeerCertificates
	return shown[len(shown)-1].Raw
}
