package xds

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
)

const envoyConfig = `
node: {id: real, cluster: orders}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: 0}}}
dynamic_resources:
  ads_config:
    api_type: %s
    transport_api_version: V3
    grpc_services: [{envoy_grpc: {cluster_name: xds}}]
  cds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 60s}
  lds_config: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 60s}
static_resources:
  clusters:
  - name: xds
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: xds, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %d}}}}]}]}
`

// envoy starts the real one and returns the paths of the files that will hold its
// admin address and its log.
func envoy(t *testing.T, apiType string, port int) (admin, log string) {
	t.Helper()
	binary := os.Getenv("ENVOY")
	if binary == "" {
		binary = filepath.Join("..", "..", ".build", "envoy", "envoy")
	}
	admin, log = filepath.Join(t.TempDir(), "admin"), filepath.Join(t.TempDir(), "log")
	cmd := exec.Command(binary, "--config-yaml", fmt.Sprintf(envoyConfig, apiType, port), "--admin-address-path", admin,
		"--use-dynamic-base-id", "--concurrency", "1", "--log-path", log, "--file-flush-interval-msec", "50")
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting Envoy (set ENVOY to its path): %v", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return admin, log
}

// eventually polls what a real process does, and fails with its log.
func eventually(t *testing.T, what, log string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log)
			t.Fatalf("%s: not within %v; Envoy logged:\n%s", what, 2*patience, text)
		}
	}
}

func startTCP(t *testing.T) (*Server, int) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asReal := func(context.Context) (Identity, error) { return Identity{Service: "orders", Instance: "real"}, nil }
	g, s := grpc.NewServer(ServerOptions()...), New(Config{Identify: asReal}.forTest())
	s.Register(g)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(lis) }()
	t.Cleanup(func() { s.Close(); g.Stop(); <-done })
	return s, lis.Addr().(*net.TCPAddr).Port
}

// A real Envoy whose service has no clusters and listeners is ready without
// waiting for its fetch timeout, which here is a minute: it needs an answer to
// CDS before it asks for LDS, also if it is empty.
func TestEnvoyIsReadyWithoutResources(t *testing.T) {
	s, port := startTCP(t)
	s.Publish(Update{Revision: 1})
	admin, log := envoy(t, "DELTA_GRPC", port)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	eventually(t, "Envoy is ready", log, func() bool {
		address, err := os.ReadFile(admin)
		if err != nil {
			return false
		}
		resp, err := client.Get("http://" + strings.TrimSpace(string(address)) + "/ready")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	rows := s.DataPlanes("orders")
	if len(rows) != 1 || rows[0].Node != "real" || rows[0].Kind != "envoy" || rows[0].InSync || rows[0].Reason != "has not asked for any of its filters yet" {
		t.Errorf("got %+v, want one Envoy that has not asked for any of its filters", rows)
	}
}

// An Envoy on state-of-the-world ADS logs what its owner has to change.
func TestEnvoyLogsWhatToChange(t *testing.T) {
	s, port := startTCP(t)
	s.Publish(Update{Revision: 1})
	_, log := envoy(t, "GRPC", port)
	eventually(t, "Envoy logs DELTA_GRPC", log, func() bool {
		text, _ := os.ReadFile(log)
		return strings.Contains(string(text), "set api_type: DELTA_GRPC")
	})
}
