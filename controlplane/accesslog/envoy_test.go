package accesslog

import (
	"bufio"
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
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
	"syscall"
	"testing"
	"time"

	filterchainv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/filter_chain/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"github.com/google/go-cmp/cmp"
	logsv1 "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"sigs.k8s.io/yaml"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
	"github.com/watchword-mesh/watchword/controlplane/xds"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// patience is how long another process may take for what it must do.
const patience = 30 * time.Second

var secret = bytes.Repeat([]byte("k"), 32)

// token for a subject, with a claim that nobody but the service should see.
func token(subject string) string {
	part := base64.RawURLEncoding.EncodeToString
	claims := fmt.Sprintf(`{"iss":"https://a.example","sub":"%s","exp":%d,"email":"private@a.example"}`, subject, time.Now().Add(time.Hour).Unix())
	text := part([]byte(`{"alg":"HS256","kid":"k1","typ":"at+jwt"}`)) + "." + part([]byte(claims))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(text))
	return text + "." + part(mac.Sum(nil))
}

// chain is testdata/chain.yaml as an ECDS resource.
func chain(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/chain.yaml")
	if err != nil {
		t.Fatal(err)
	}
	jwks := fmt.Sprintf(`{"keys":[{"kty":"oct","kid":"k1","alg":"HS256","k":%q}]}`, base64.RawURLEncoding.EncodeToString(secret))
	text, err = yaml.YAMLToJSON(bytes.ReplaceAll(text, []byte("JWKS"), []byte(jwks)))
	if err != nil {
		t.Fatal(err)
	}
	config := new(filterchainv3.FilterChainConfig)
	if err := protojson.Unmarshal(text, config); err != nil {
		t.Fatal(err)
	}
	packed, err := anypb.New(config)
	if err != nil {
		t.Fatal(err)
	}
	body, err := proto.Marshal(&corev3.TypedExtensionConfig{Name: envoy.InboundName("orders"), TypedConfig: packed})
	if err != nil {
		t.Fatal(err)
	}
	return body
}

// resources are those of a managed Envoy, with the chain of this test.
func resources(t *testing.T, port, upstream int) []xds.Resource {
	t.Helper()
	rss, err := envoy.Resources(&dataplanev1.Ruleset{
		Service: "orders",
		Routes:  []*dataplanev1.Route{{Match: new(dataplanev1.RequestMatch), Authentication: &dataplanev1.Authentication{Mode: dataplanev1.Authentication_OFF}}},
		Inbound: &dataplanev1.Inbound{Address: "127.0.0.1", Port: uint32(port), LocalIp: "127.0.0.1", LocalPort: uint32(upstream)},
	})
	if err != nil {
		t.Fatal(err)
	}
	var out []xds.Resource
	for _, r := range rss {
		if r.Name == envoy.InboundName("orders") {
			r.Body = chain(t)
		}
		out = append(out, xds.Resource(r))
	}
	return out
}

// recorder is the codec of the gRPC server. It keeps the bytes of each report.
type recorder struct {
	encoding.CodecV2
	mu    sync.Mutex
	bytes []byte
}

func (r *recorder) Unmarshal(data mem.BufferSlice, v any) error {
	if _, ok := v.(*logsv1.ExportLogsServiceRequest); ok {
		r.mu.Lock()
		r.bytes = append(r.bytes, data.Materialize()...)
		r.mu.Unlock()
	}
	return r.CodecV2.Unmarshal(data, v)
}

func (r *recorder) received() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	return bytes.Clone(r.bytes)
}

// plane is a control plane with a managed Envoy.
type plane struct {
	*Server
	recorder
	resources []xds.Resource
	address   string
	port      int
	admin     string
	stop      func()
}

func startPlane(t *testing.T, c Config) *plane {
	t.Helper()
	upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusNoContent)
	}))
	upstream.Config.Protocols = new(http.Protocols)
	upstream.Config.Protocols.SetHTTP1(true)
	upstream.Config.Protocols.SetUnencryptedHTTP2(true)
	upstream.Start()
	t.Cleanup(upstream.Close)
	p := &plane{Server: New(c.forTest()), port: freePort(t), admin: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	p.CodecV2 = encoding.GetCodecV2("proto")
	p.resources = resources(t, p.port, upstream.Listener.Addr().(*net.TCPAddr).Port)
	p.address = fmt.Sprintf("127.0.0.1:%d", freePort(t))
	p.serve(t)
	t.Cleanup(func() { p.stop() })
	p.runEnvoy(t)
	return p
}

// serve runs the control plane until stop.
func (p *plane) serve(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", p.address)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(append(xds.ServerOptions(), grpc.ForceServerCodecV2(&p.recorder))...)
	x := xds.New(xds.Config{VersionKey: bytes.Repeat([]byte("v"), 32),
		Identify: func(context.Context) (xds.Identity, error) {
			return xds.Identity{Service: "orders", Instance: "one"}, nil
		}})
	x.Register(g)
	p.Register(g)
	x.Publish(xds.Update{Revision: 1, Services: map[string][]xds.Resource{"orders": p.resources}})
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	p.stop = sync.OnceFunc(func() { x.Close(); g.Stop(); <-done; p.Wait() })
}

func (p *plane) runEnvoy(t *testing.T) {
	t.Helper()
	binary := os.Getenv("ENVOY")
	if binary == "" {
		binary = filepath.Join("..", "..", ".build", "envoy", "envoy")
	}
	config, err := envoy.Bootstrap(envoy.BootstrapOptions{Node: "orders-1", Service: "orders", ADSAddress: p.address, AdminAddress: p.admin, Unprotected: true})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-c", file, "-l", "warning", "--concurrency", "1", "--disable-hot-restart")
	cmd.Stderr = log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting Envoy (run `make setup`, or set ENVOY to its path): %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if text, err := os.ReadFile(log.Name()); t.Failed() && err == nil {
			t.Logf("Envoy logged:\n%s", text)
		}
	})
	eventually(t, func() error {
		_, err := p.get("/ready")
		return err
	})
}

func (p *plane) get(path string) (string, error) {
	res, err := http.Get("http://" + p.admin + path)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, res.Status)
	}
	return string(body), err
}

func eventually(t *testing.T, f func() error) {
	t.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := f()
		if err == nil {
			return
		}
		if time.Since(began) > patience {
			t.Fatalf("not within %s: %v", patience, err)
		}
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// send makes a request as it is written, and returns the status.
func (p *plane) send(t *testing.T, method, target string) int {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", p.port))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	request := method + " " + target + " HTTP/1.1\r\nhost: orders\r\n\r\n"
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatalf("%v\nrequest:\n%s", err, request)
	}
	return res.StatusCode
}

// callGRPC makes a request as gRPC callers do, and returns the grpc-status.
func (p *plane) callGRPC(t *testing.T, target string) string {
	t.Helper()
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d%s", p.port, target), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	res, err := (&http.Client{Transport: transport, Timeout: patience}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	return res.Header.Get("Grpc-Status")
}

// counted waits until n refusals were counted.
func (p *plane) counted(t *testing.T, n uint64) Report {
	t.Helper()
	var r Report
	eventually(t, func() error {
		r = p.Report("orders")
		got := uint64(0)
		for _, c := range r.Counts {
			got += c.Count
		}
		if got != n {
			return fmt.Errorf("%d refusals were counted, want %d: %+v", got, n, r.Counts)
		}
		return nil
	})
	return r
}

// What a real Envoy refuses, or would refuse, is counted here with the caller,
// the reason and the rule; what it lets through is not even sent; and of tokens
// and claims that nobody asked for nothing arrives or stays.
func TestEnvoyReportsRefusals(t *testing.T) {
	var mu sync.Mutex
	var keyUnknown []string
	p := startPlane(t, Config{
		RouteName:  func(service, id string) (string, bool) { return service + "/" + id, true },
		KeyUnknown: func(service string) { mu.Lock(); defer mu.Unlock(); keyUnknown = append(keyUnknown, service) },
	})
	alice, app := token("alice"), token("app")
	astray := token("astray") // in what a client has made a part of the path
	began := time.Now()
	for _, tt := range []struct {
		method, target string
		want           int
	}{
		{"GET", "/open?token=" + alice, 204},
		{"GET", "/x?token=" + alice, 204},
		{"GET", "/missing/%3Ftoken=" + astray + "?token=broken" + alice, 403},
		{"GET", "/unknown-key?token=" + alice, 403},
		{"GET", "/unknown-key?token=" + alice, 403},
		{"DELETE", "/x?a=b&token=" + alice, 403},
		{"DELETE", "/x?token=" + app, 403},
		{"DELETE", "/x?token=" + token("zoë"), 403},
		{"GET", "/later?token=" + app, 204},
		{"GET", "/later?token=" + app, 204},
		{"GET", "/bytes\xff\xfe\x80?token=no", 400}, // by Envoy itself
		{"GET", "/x?token=" + token("\xff\xfe"), 403},
		{"GET", "/" + strings.Repeat("long", 1000) + "?token=no", 403},
	} {
		if got := p.send(t, tt.method, tt.target); got != tt.want {
			t.Errorf("%s %s: status %d, want %d", tt.method, tt.target, got, tt.want)
		}
	}
	if got := p.callGRPC(t, "/orders.v1.Orders/Get?token=no"); got != "7" {
		t.Errorf("grpc-status %q, want 7", got)
	}
	report := p.counted(t, 11)

	aliceCalls := Caller{Issuer: "https://a.example", Subject: "alice"}
	appCalls := Caller{Consumer: "acme", Issuer: "https://a.example", Subject: "app"}
	zoeCalls := Caller{Issuer: "https://a.example", Subject: "zoë"}
	var counts []Count
	for _, c := range report.Counts {
		if c.Last.Before(began) || c.Last.After(time.Now()) {
			t.Errorf("%+v was last seen at an impossible time", c)
		}
		c.Last = time.Time{}
		counts = append(counts, c)
	}
	want := []Count{
		{Service: "orders", Reason: "token_missing", Count: 4},
		{Service: "orders", Caller: appCalls, Reason: "consumer_denied", Observed: true, Count: 2},
		{Service: "orders", Caller: aliceCalls, Reason: "key_unknown", Count: 2},
		{Service: "orders", Caller: aliceCalls, Reason: "consumer_denied", Count: 1},
		{Service: "orders", Caller: zoeCalls, Reason: "consumer_denied", Count: 1},
		{Service: "orders", Caller: appCalls, Reason: "consumer_denied", Count: 1},
	}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("counts (-want +got):\n%s", diff)
	}

	var sample []Refusal
	for _, r := range report.Sample {
		if r.Time.Before(began.Add(-time.Second)) || r.Time.After(time.Now()) {
			t.Errorf("%+v has an impossible time", r)
		}
		r.Time = time.Time{}
		if r.Node != "orders-1" || r.Service != "orders" || r.Peer != "127.0.0.1" || r.Route != "orders/route-0003" {
			t.Errorf("%+v: want node orders-1, service orders, peer 127.0.0.1, route orders/route-0003", r)
		}
		r.Node, r.Service, r.Peer, r.Route = "", "", "", ""
		sample = append(sample, r)
	}
	wantSample := []Refusal{ // the newest first
		{Method: "POST", Path: "/orders.v1.Orders/Get", Status: 200, Reason: "token_missing"},
		{Method: "GET", Path: "/" + strings.Repeat("long", 63) + "lon", Status: 403, Reason: "token_missing"},
		{Method: "GET", Path: "/x", Status: 403, Reason: "token_missing"},
		{Method: "GET", Path: "/later", Status: 204, Caller: appCalls, Reason: "consumer_denied", Rule: "later/1", Observed: true},
		{Method: "GET", Path: "/later", Status: 204, Caller: appCalls, Reason: "consumer_denied", Rule: "later/1", Observed: true},
		{Method: "DELETE", Path: "/x", Status: 403, Caller: zoeCalls, Reason: "consumer_denied", Rule: "no-delete/0"},
		{Method: "DELETE", Path: "/x", Status: 403, Caller: appCalls, Reason: "consumer_denied", Rule: "no-delete/0"},
		{Method: "DELETE", Path: "/x", Status: 403, Caller: aliceCalls, Reason: "consumer_denied", Rule: "no-delete/0"},
		{Method: "GET", Path: "/unknown-key", Status: 403, Caller: aliceCalls, Reason: "key_unknown"},
		{Method: "GET", Path: "/unknown-key", Status: 403, Caller: aliceCalls, Reason: "key_unknown"},
		{Method: "GET", Path: "/missing/%3Ftoken=[redacted]", Status: 403, Reason: "token_missing"},
	}
	if diff := cmp.Diff(wantSample, sample); diff != "" {
		t.Errorf("sample (-want +got):\n%s", diff)
	}

	mu.Lock()
	if len(keyUnknown) == 0 || keyUnknown[0] != "orders" {
		t.Errorf("KeyUnknown was called for %q, want orders", keyUnknown)
	}
	mu.Unlock()
	eventually(t, func() error { // Envoy counts once it has our answer
		if got := p.logged(t, "logs_written"); got != 11 {
			return fmt.Errorf("Envoy has written %d records, want 11: one for each refusal, none for what it let through", got)
		}
		return nil
	})
	received := p.received()
	for _, there := range []string{"/unknown-key", "alice"} { // the bytes are readable
		if !bytes.Contains(received, []byte(there)) {
			t.Errorf("%q is not among the %d bytes that were received", there, len(received))
		}
	}
	for _, secret := range []string{"token=no", "broken", alice, app, "private@"} {
		if bytes.Contains(received, []byte(secret)) {
			t.Errorf("%q is among the bytes that were received", secret)
		}
	}
	for _, secret := range []string{"astray", astray} {
		if kept := fmt.Sprintf("%+v", report); strings.Contains(kept, secret) {
			t.Errorf("%q is kept: %s", secret, kept)
		}
	}
}

// While the control plane is away, or takes connections and answers nothing,
// Envoy goes on refusing, and does not gather what it can't send: Envoy's own
// access log for TCP would, without bound. Afterwards it reports again.
func TestEnvoyOutlivesControlPlane(t *testing.T) {
	p := startPlane(t, Config{})
	p.send(t, "GET", "/before")
	p.counted(t, 1)
	p.stop()
	p.flood(t, 100)
	hang := hangAt(t, p.address)
	t.Cleanup(hang)
	const flood = 5000
	p.flood(t, flood)
	gathered := 1 + 100 + flood - p.logged(t, "logs_written") - p.logged(t, "logs_dropped")
	// Those that wait for an answer, for a connection, and the next; and those
	// of before.
	const most = (2*8+1)*16<<10/300 + 101 // bytes of a record, at least
	if gathered > most {
		t.Errorf("Envoy has gathered %d records of %d, want at most %d", gathered, flood, most)
	}
	hang()
	p.serve(t)
	eventually(t, func() error {
		p.send(t, "GET", "/after")
		if newest := p.Report("orders").Sample[0]; newest.Path != "/after" {
			return fmt.Errorf("the newest refusal that was reported is %+v, want one of /after", newest)
		}
		return nil
	})
}

// flood sends requests that are refused, on one connection.
func (p *plane) flood(t *testing.T, n int) {
	t.Helper()
	client := &http.Client{Transport: new(http.Transport), Timeout: patience}
	defer client.CloseIdleConnections()
	for range n {
		res, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d/flood", p.port))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Fatalf("status %d, want 403", res.StatusCode)
		}
	}
}

// logged is a counter of Envoy's log.
func (p *plane) logged(t *testing.T, counter string) int {
	t.Helper()
	stats, err := p.get("/stats?filter=" + counter)
	if err != nil {
		t.Fatal(err)
	}
	var n int
	if _, err := fmt.Sscanf(stats, "access_logs.open_telemetry_access_log."+counter+": %d", &n); err != nil {
		t.Fatalf("%q: %v", stats, err)
	}
	return n
}

// hangAt takes connections and reads nothing, until what it returns is called.
func hangAt(t *testing.T, address string) func() {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	var conns []net.Conn
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conns = append(conns, c)
		}
	}()
	return sync.OnceFunc(func() {
		_ = l.Close()
		<-done
		for _, c := range conns {
			_ = c.Close()
		}
	})
}
