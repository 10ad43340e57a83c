package ca

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A real Envoy shows the certificate of an instance, and takes the control
// plane's by its SPIFFE ID, of each of two CAs; of another mesh it takes none.
func TestEnvoyTakesTheCertificates(t *testing.T) {
	now := time.Now()
	older, newer := first(t, "mesh.local", now.Add(-time.Hour)), first(t, "mesh.local", now)
	both, before := authorityOf(t, newer, older), authorityOf(t, older)
	client := instanceCertificate(t, both, "orders", now)
	want := instanceOf(t, "mesh.local", "orders", client.PrivateKey.(*ecdsa.PrivateKey)).String()
	for _, c := range []struct {
		name   string
		server tls.Certificate
		status int
	}{
		{"of the CA that signs", serverCertificate(t, both, now), 200},
		{"of the CA before", serverCertificate(t, before, now), 200},
		{"of an instance", instanceCertificate(t, both, "shop", now), 503},
		{"of another mesh", serverCertificate(t, authorityOf(t, first(t, "mesh.local", now)), now), 503},
	} {
		status, body := throughEnvoy(t, both, client, c.server)
		if status != c.status || status == 200 && body != want {
			t.Errorf("a server %s: %d %s; want %d, and that the server saw %s", c.name, status, body, c.status, want)
		}
	}
}

// throughEnvoy sends a request to a server, that says who asked, through an Envoy
// that has this client certificate.
func throughEnvoy(t *testing.T, a *Authority, client, server tls.Certificate) (status int, body string) {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id, err := a.Instance(r.TLS.PeerCertificates[0])
		if err != nil {
			t.Errorf("Instance: %v", err)
		}
		_, _ = fmt.Fprint(w, id)
	}))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.Pool()}
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are what some cases are for
	s.StartTLS()
	defer s.Close()
	port := freePort(t)
	stop := runEnvoy(t, envoyConfig(t, a, client, port, s.Listener.Addr().(*net.TCPAddr).Port))
	defer stop()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/", port))
		if err == nil {
			defer res.Body.Close()
			text, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			return res.StatusCode, string(text)
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("Envoy doesn't answer: %v", err)
		}
	}
}

type object = map[string]any

// envoyConfig is a listener whose requests go to a TLS server.
func envoyConfig(t *testing.T, a *Authority, client tls.Certificate, listener, server int) []byte {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(client.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	inline := func(kind string, ders ...[]byte) object {
		text := ""
		for _, der := range ders {
			text += string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
		}
		return object{"inline_string": text}
	}
	var roots [][]byte
	for _, c := range a.Certificates() {
		roots = append(roots, c.Raw)
	}
	address := func(port int) object {
		return object{"socket_address": object{"address": "127.0.0.1", "port_value": port}}
	}
	upstream := object{
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
		"common_tls_context": object{
			"tls_certificates": []any{object{"certificate_chain": inline("CERTIFICATE", client.Certificate...), "private_key": inline("PRIVATE KEY", key)}},
			"validation_context": object{
				"trusted_ca":                    inline("CERTIFICATE", roots...),
				"match_typed_subject_alt_names": []any{object{"san_type": "URI", "matcher": object{"exact": "spiffe://mesh.local/_control-plane"}}},
			},
		},
	}
	manager := object{
		"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "a",
		"route_config": object{"virtual_hosts": []any{object{"name": "a", "domains": []string{"*"},
			"routes": []any{object{"match": object{"prefix": "/"}, "route": object{"cluster": "a"}}}}}},
		"http_filters": []any{object{"name": "router", "typed_config": object{"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}},
	}
	text, err := json.Marshal(object{"static_resources": object{
		"listeners": []any{object{"address": address(listener), "filter_chains": []any{object{"filters": []any{object{"name": "hcm", "typed_config": manager}}}}}},
		"clusters": []any{object{"name": "a", "transport_socket": object{"name": "tls", "typed_config": upstream},
			"load_assignment": object{"cluster_name": "a", "endpoints": []any{object{"lb_endpoints": []any{object{"endpoint": object{"address": address(server)}}}}}}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// runEnvoy starts one, and gives what ends it.
func runEnvoy(t *testing.T, config []byte) (stop func()) {
	t.Helper()
	binary := os.Getenv("ENVOY")
	if binary == "" {
		binary = filepath.Join("..", "..", ".build", "envoy", "envoy")
	}
	file := filepath.Join(t.TempDir(), "envoy.json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "-c", file, "-l", "critical", "--concurrency", "1", "--disable-hot-restart")
	cmd.Stderr = t.Output()
	// An Envoy must not outlive a test that was killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatalf("starting Envoy (run `make setup`, or set ENVOY to its path): %v", err)
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
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
