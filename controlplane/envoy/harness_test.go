package envoy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	extensionv3 "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// envoyBinary is $ENVOY, or where the build puts it.
func envoyBinary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("ENVOY")
	if path == "" {
		path = filepath.Join("..", "..", ".build", "envoy", "envoy")
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("Envoy is needed (set ENVOY, or put it into .build/envoy): %v", err)
	}
	return path
}

// validate asks Envoy whether it would take a config, in YAML or JSON.
func validate(t *testing.T, config []byte) error {
	t.Helper()
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(envoyBinary(t), "--mode", "validate", "-c", file, "-l", "error", "--disable-hot-restart").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// key signs tokens as an issuer does.
type key struct {
	kid     string
	private *ecdsa.PrivateKey
}

func newKey(t *testing.T, kid string) *key {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &key{kid, k}
}

func (k *key) proto() *dataplanev1.Key {
	b, err := k.private.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	return &dataplanev1.Key{Kid: k.kid, Algorithm: "ES256", Jwk: fmt.Sprintf(
		`{"kty":"EC","crv":"P-256","x":%q,"y":%q,"kid":%q,"alg":"ES256"}`, b64(b[1:33]), b64(b[33:]), k.kid)}
}

func (k *key) sign(claims map[string]any) string {
	part := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err)
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := part(map[string]string{"alg": "ES256", "kid": k.kid, "typ": "at+jwt"}) + "." + part(claims)
	sum := sha256.Sum256([]byte(text))
	r, s, err := ecdsa.Sign(rand.Reader, k.private, sum[:])
	if err != nil {
		panic(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

// adsServer hands out what it was given over delta ADS, one ECDS resource a
// response, and fails the test when Envoy refuses any.
type adsServer struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	extensionv3.UnimplementedExtensionConfigDiscoveryServiceServer
	t         *testing.T
	resources []Resource

	mu      sync.Mutex
	nonce   int
	streams []deltaStream
}

type deltaStream interface {
	Recv() (*discoveryv3.DeltaDiscoveryRequest, error)
	Send(*discoveryv3.DeltaDiscoveryResponse) error
}

func (s *adsServer) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return s.serve(stream)
}

// DeltaExtensionConfigs is the stream of an Envoy whose ADS is somebody else's.
func (s *adsServer) DeltaExtensionConfigs(stream extensionv3.ExtensionConfigDiscoveryService_DeltaExtensionConfigsServer) error {
	return s.serve(stream)
}

func (s *adsServer) serve(stream deltaStream) error {
	s.mu.Lock()
	s.streams = append(s.streams, stream)
	s.mu.Unlock()
	for {
		req, err := stream.Recv()
		if err != nil {
			return nil
		}
		if e := req.GetErrorDetail(); e != nil {
			s.t.Errorf("Envoy refused %s: %s", req.GetTypeUrl(), e.GetMessage())
			continue
		}
		if req.GetResponseNonce() != "" && len(req.GetResourceNamesSubscribe()) == 0 {
			continue
		}
		if !s.answer(stream, req) {
			return nil
		}
	}
}

func (s *adsServer) answer(stream deltaStream, req *discoveryv3.DeltaDiscoveryRequest) bool {
	s.mu.Lock() // against push
	defer s.mu.Unlock()
	for _, res := range s.answers(req) {
		if err := stream.Send(res); err != nil {
			return false
		}
	}
	return true
}

// answers is called under the lock.
func (s *adsServer) answers(req *discoveryv3.DeltaDiscoveryRequest) []*discoveryv3.DeltaDiscoveryResponse {
	wanted := map[string]bool{}
	for _, n := range req.GetResourceNamesSubscribe() {
		wanted[n] = true
	}
	var out []*discoveryv3.DeltaDiscoveryResponse
	for _, r := range s.resources {
		if r.TypeURL != req.GetTypeUrl() || len(wanted) > 0 && !wanted[r.Name] && !wanted["*"] {
			continue
		}
		s.nonce++
		out = append(out, &discoveryv3.DeltaDiscoveryResponse{
			TypeUrl: r.TypeURL, Nonce: fmt.Sprint(s.nonce),
			Resources: []*discoveryv3.Resource{{
				Name: r.Name, Version: "1",
				Resource: &anypb.Any{TypeUrl: r.TypeURL, Value: r.Body},
			}},
		})
	}
	return out
}

func serveADS(t *testing.T, resources []Resource) string {
	t.Helper()
	_, address, _ := startADS(t, resources)
	return address
}

func startADS(t *testing.T, resources []Resource) (s *adsServer, address string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	s = &adsServer{t: t, resources: resources}
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(srv, s)
	extensionv3.RegisterExtensionConfigDiscoveryServiceServer(srv, s)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	stop = func() { srv.Stop(); <-done }
	t.Cleanup(stop)
	return s, l.Addr().String(), stop
}

// proxy is a running Envoy.
type proxy struct {
	admin string
	log   *buffer
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// runEnvoy starts Envoy and waits until it is ready.
func runEnvoy(t *testing.T, config []byte, admin string) *proxy {
	t.Helper()
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	p := &proxy{admin: admin, log: new(buffer)}
	cmd := exec.Command(envoyBinary(t), "-c", file, "-l", "warning", "--concurrency", "2",
		"--disable-hot-restart", "--file-flush-interval-msec", "50")
	cmd.Stdout, cmd.Stderr = p.log, p.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	eventually(t, 20*time.Second, func() error {
		res, err := http.Get("http://" + admin + "/ready")
		if err != nil {
			return fmt.Errorf("%w\n%s", err, p.log)
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("Envoy is not ready: %s\n%s", res.Status, p.log)
		}
		return nil
	})
	return p
}

// eventually polls, for what another process does in its own time.
func eventually(t *testing.T, limit time.Duration, f func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("not within %v: %v", limit, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func freePort(t *testing.T) uint32 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return uint32(l.Addr().(*net.TCPAddr).Port)
}

// seen is what the service got.
type seen struct {
	Method, URI, Proto string
	Header             http.Header
}

// serveUpstream is the service: it answers with what it got, over HTTP/1.1 and
// HTTP/2.
func serveUpstream(t *testing.T) uint32 {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(seen{r.Method, r.RequestURI, r.Proto, r.Header})
	}))
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	return uint32(srv.Listener.Addr().(*net.TCPAddr).Port)
}

// raw sends a request as it is written, since http.Request would tidy it up.
func raw(t *testing.T, port uint32, request string) (int, string, *seen) {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%v\nrequest:\n%s", err, request)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var s *seen
	if res.StatusCode == http.StatusOK {
		s = new(seen)
		if err := json.Unmarshal(body, s); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
	}
	return res.StatusCode, string(body), s
}

// ruleset reads a Ruleset in proto JSON.
func ruleset(t *testing.T, text string) *dataplanev1.Ruleset {
	t.Helper()
	rs := new(dataplanev1.Ruleset)
	if err := protojson.Unmarshal([]byte(text), rs); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return rs
}
