package sds

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/testing/protocmp"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// held is a Source that a test sets.
type held struct {
	mu      sync.Mutex
	chain   [][]byte
	cas     []*x509.Certificate
	key     crypto.Signer
	changed chan struct{}
}

func (h *held) Certificate() ([][]byte, crypto.Signer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.chain, h.key
}

func (h *held) Authorities() []*x509.Certificate {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.cas
}

func (h *held) Changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.changed
}

func (h *held) set(do func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	do()
	close(h.changed)
	h.changed = make(chan struct{})
}

func private(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "private")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "sds.sock")
}

// subscribe opens a delta stream for one secret, as Envoy does for each.
func subscribe(t *testing.T, path, name string) secretv3.SecretDiscoveryService_DeltaSecretsClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+path, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(func() { cancel(); conn.Close() })
	stream, err := secretv3.NewSecretDiscoveryServiceClient(conn).DeltaSecrets(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&discovery.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "e"}, TypeUrl: resource.SecretType, ResourceNamesSubscribe: []string{name}}); err != nil {
		t.Fatal(err)
	}
	return stream
}

// want receives the next secret, and confirms it.
func want(t *testing.T, stream secretv3.SecretDiscoveryService_DeltaSecretsClient, want *tlsv3.Secret) {
	t.Helper()
	for {
		resp, err := stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: resource.SecretType, ResponseNonce: resp.GetNonce()}); err != nil {
			t.Fatal(err)
		}
		if len(resp.GetResources()) == 0 { // that there is none yet
			continue
		}
		got := new(tlsv3.Secret)
		if err := resp.GetResources()[0].GetResource().UnmarshalTo(got); err != nil || len(resp.GetResources()) != 1 {
			t.Fatalf("%v in %v, want one secret", err, resp)
		}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Fatalf("secret differs (-want +got):\n%s", diff)
		}
		return
	}
}

func block(kind, content string) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: []byte(content)}))
}

func certificate(chain, key string) *tlsv3.Secret {
	return &tlsv3.Secret{Name: "identity", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inline([]byte(chain)), PrivateKey: inline([]byte(block("PRIVATE KEY", key)))}}}
}

func authorities(text string) *tlsv3.Secret {
	return &tlsv3.Secret{Name: "authorities", Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline([]byte(text))}}}
}

// Who asks gets what there is, also if it comes later, and each change of what it
// asked for; and nothing is left running.
func TestServe(t *testing.T) {
	path := private(t)
	socket, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	h := &held{changed: make(chan struct{}), cas: []*x509.Certificate{{Raw: []byte("ca1")}, {Raw: []byte("ca2")}}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, socket, h) }()
	cas := subscribe(t, path, "authorities")
	want(t, cas, authorities(block("CERTIFICATE", "ca1")+block("CERTIFICATE", "ca2")))
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	id := subscribe(t, path, "identity")
	h.set(func() { h.chain, h.key = [][]byte{[]byte("leaf"), []byte("root")}, key })
	want(t, id, certificate(block("CERTIFICATE", "leaf")+block("CERTIFICATE", "root"), string(der)))
	h.set(func() { h.chain = [][]byte{[]byte("leaf 2")} })
	want(t, id, certificate(block("CERTIFICATE", "leaf 2"), string(der)))
	h.set(func() { h.cas = []*x509.Certificate{{Raw: []byte("ca2")}} })
	want(t, cas, authorities(block("CERTIFICATE", "ca2")))
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Serve = %v after the end of its context, want nil", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is still there (%v)", err)
	}
}

// A socket is made only where others can't reach it, and for its user alone; what
// an earlier process has left is no hindrance.
func TestListen(t *testing.T) {
	path := private(t)
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 || info.Mode()&os.ModeSocket == 0 {
		t.Errorf("%s has mode %v (%v), want a socket with 0600", path, info.Mode(), err)
	}
	if err := os.Chmod(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "make it 0700") {
		t.Errorf("Listen in a folder with mode 0750 = %v, want an error that says what to do", err)
	}
	if _, err := Listen(filepath.Join(t.TempDir(), "none", "s")); err == nil {
		t.Error("Listen in no folder worked, want an error")
	}
}

// The kernel says who connects, and only the same user and root may.
func TestPeer(t *testing.T) {
	s, err := Listen(private(t))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	client, err := net.Dial("unix", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	c, err := s.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if uid, err := peerUser(c.(*net.UnixConn)); err != nil || uid != os.Getuid() {
		t.Errorf("peerUser = %d, %v, want %d", uid, err, os.Getuid())
	}
	for _, tt := range []struct {
		uid, own int
		want     bool
	}{{1000, 1000, true}, {0, 1000, true}, {0, 0, true}, {1000, 0, false}, {1001, 1000, false}} {
		if got := mayConnect(tt.uid, tt.own); got != tt.want {
			t.Errorf("mayConnect(%d, %d) = %v, want %v", tt.uid, tt.own, got, tt.want)
		}
	}
}
