package doors

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/watchword-mesh/watchword/controlplane/audit"
	controlenrolment "github.com/watchword-mesh/watchword/controlplane/enrolment"
	"github.com/watchword-mesh/watchword/controlplane/store"
	"github.com/watchword-mesh/watchword/dataplane/enrolment"
	"github.com/watchword-mesh/watchword/internal/jointoken"
	adminv1 "github.com/watchword-mesh/watchword/proto/watchword/admin/v1"
	enrolmentv1 "github.com/watchword-mesh/watchword/proto/watchword/enrolment/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// kept is what the control plane keeps of a join token.
func (m *mesh) kept(t *testing.T, token string) *adminv1.JoinToken {
	t.Helper()
	parsed, err := jointoken.Parse(token)
	if err != nil {
		t.Fatal(err)
	}
	list, err := m.root.ListJoinTokens(t.Context(), &adminv1.ListJoinTokensRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range list.GetJoinTokens() {
		if k.GetId() == parsed.ID {
			return k
		}
	}
	t.Fatalf("there is no join token %s", parsed.ID)
	return nil
}

func (m *mesh) wantUses(t *testing.T, what, token string, want int) {
	t.Helper()
	if got := m.kept(t, token).GetInstances(); len(got) != want {
		t.Errorf("%s: the join token was used by %q, want %d", what, got, want)
	}
}

// Join tokens over the wire: each counts for its service, as often as it says, and
// as long as it says.
func TestEnrolment(t *testing.T) {
	t.Parallel()
	m := startMesh(t, resource("Service", "target", "{}")+resource("Service", "other", "{}"))
	t.Run("replay", func(t *testing.T) { replays(t, m) })
	t.Run("wrong service", func(t *testing.T) { wrongService(t, m) })
	t.Run("race for the last use", func(t *testing.T) { raceForUses(t, m) })
	t.Run("interrupted", func(t *testing.T) { interrupted(t, m) })
	t.Run("wrong pin", func(t *testing.T) { wrongPin(t, m) })
	t.Run("expired", func(t *testing.T) { expired(t, m) }) // the last, since it stops the control plane for a while
}

// enrols sends a request on a connection of its own.
func enrols(t *testing.T, m *mesh, req *enrolmentv1.EnrolRequest) codes.Code {
	t.Helper()
	_, err := enrolmentv1.NewEnrolmentServiceClient(m.dial(t, m.Config.XDSListen, nil)).Enrol(patient(t), req)
	return status.Code(err)
}

func wantCode(t *testing.T, what string, got, want codes.Code) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %s, want %s", what, got, want)
	}
}

func replays(t *testing.T, m *mesh) {
	token, key := m.newJoinToken(t, "target"), newKey(t)
	wantCode(t, "the first", enrols(t, m, enrolRequest(t, "target", token, key)), codes.OK)
	wantCode(t, "another key", enrols(t, m, enrolRequest(t, "target", token, newKey(t))), codes.PermissionDenied)
	wantCode(t, "the same key", enrols(t, m, enrolRequest(t, "target", token, key)), codes.OK)
	m.wantUses(t, "after all", token, 1)
}

func wrongService(t *testing.T, m *mesh) {
	token := m.newJoinToken(t, "target")
	wantCode(t, "another service", enrols(t, m, enrolRequest(t, "other", token, newKey(t))), codes.PermissionDenied)
	wantCode(t, "no service", enrols(t, m, enrolRequest(t, "", token, newKey(t))), codes.PermissionDenied)
	wantCode(t, "a service that is not there", enrols(t, m, enrolRequest(t, "nobody", token, newKey(t))), codes.PermissionDenied)
	m.wantUses(t, "before its own service", token, 0)
	wantCode(t, "its own service", enrols(t, m, enrolRequest(t, "target", token, newKey(t))), codes.OK)
}

// raceForUses lets many clients, each with a connection that is open already, send
// at one moment what only some can have.
func raceForUses(t *testing.T, m *mesh) {
	const clients, uses, rounds = 6, 2, 5
	conns := make([]*grpc.ClientConn, clients)
	for i := range conns {
		conns[i] = m.dial(t, m.Config.XDSListen, nil)
		conns[i].Connect()
	}
	for range rounds {
		resp, err := m.root.CreateJoinToken(t.Context(), &adminv1.CreateJoinTokenRequest{Service: "target", Uses: uses})
		if err != nil {
			t.Fatal(err)
		}
		start := make(chan struct{})
		var won, lost atomic.Int32
		var all sync.WaitGroup
		for _, conn := range conns {
			req := enrolRequest(t, "target", resp.GetToken(), newKey(t))
			all.Go(func() {
				<-start
				_, err := enrolmentv1.NewEnrolmentServiceClient(conn).Enrol(t.Context(), req)
				switch status.Code(err) {
				case codes.OK:
					won.Add(1)
				case codes.PermissionDenied, codes.ResourceExhausted: // the latter for who fails often
					lost.Add(1)
				default:
					t.Errorf("enrolling: %v", err)
				}
			})
		}
		close(start)
		all.Wait()
		if won.Load() != uses || lost.Load() != clients-uses {
			t.Errorf("%d enrolled and %d were refused, want %d and %d", won.Load(), lost.Load(), uses, clients-uses)
		}
		m.wantUses(t, "after the race", resp.GetToken(), uses)
	}
}

// interrupted cuts the connection when the enrolment is in force, and before its
// answer gets through. The client tries again by itself, with the same key.
func interrupted(t *testing.T, m *mesh) {
	token := m.newJoinToken(t, "target")
	cut := newCutter(t, m.Config.XDSListen, func() bool { return len(m.kept(t, token).GetInstances()) > 0 })
	id := meshtest.Enrol(t, cut.address, "target", token)
	if n := cut.cuts.Load(); n != 1 {
		t.Errorf("the connection was cut %d times, want once", n)
	}
	kept := m.kept(t, token)
	if len(kept.GetInstances()) != 1 || kept.GetInstances()[0] != id.Instance() {
		t.Errorf("the join token was used by %q, want %q alone", kept.GetInstances(), id.Instance())
	}
}

// cutter is a TCP proxy that cuts the first connection on which the server says
// something after a condition has come true.
type cutter struct {
	address string
	cuts    atomic.Int32
}

func newCutter(t *testing.T, to string, when func() bool) *cutter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cutter{address: l.Addr().String()}
	var all sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			all.Go(func() { defer server.Close(); _, _ = io.Copy(server, client) })
			all.Go(func() { defer client.Close(); c.answers(client, server, when) })
		}
	})
	return c
}

// answers passes on what the server says, until it is to be cut.
func (c *cutter) answers(client, server net.Conn, when func() bool) {
	buf := make([]byte, 32<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		if c.cuts.Load() == 0 && when() {
			c.cuts.Add(1)
			return
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

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

// expired: the shortest life that the API gives is a minute, so that the records
// are written as they will be when it has passed, and one that has a minute left.
func expired(t *testing.T, m *mesh) {
	tokens := map[time.Duration]string{-time.Second: "", time.Minute: ""}
	pin := jointokenPin(t, m)
	m.atRest(t, func(s *store.Store, pepper []byte) {
		for left := range tokens {
			token, now := jointoken.New(pin), time.Now().UTC()
			tokens[left] = token.Text()
			err := s.AddJoinToken(t.Context(), store.JoinToken{
				ID: token.ID, Service: "target", Hash: controlenrolment.Hash(pepper, "target", token), Uses: 1, Created: now.Add(-time.Hour), Expires: now.Add(left),
			}, audit.Entry{})
			if err != nil {
				t.Fatal(err)
			}
		}
	})
	wantCode(t, "expired", enrols(t, m, enrolRequest(t, "target", tokens[-time.Second], newKey(t))), codes.PermissionDenied)
	wantCode(t, "a minute left", enrols(t, m, enrolRequest(t, "target", tokens[time.Minute], newKey(t))), codes.OK)
}

func jointokenPin(t *testing.T, m *mesh) string {
	t.Helper()
	parsed, err := jointoken.Parse(m.newJoinToken(t, "target"))
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Pin
}
