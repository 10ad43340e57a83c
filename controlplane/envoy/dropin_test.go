package envoy

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/testing/protocmp"
	"sigs.k8s.io/yaml"

	"github.com/watchword-mesh/watchword/internal/identity"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

func deployment(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "..", "deployments", "envoy", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// filtersIn are the HTTP filters of YAML that is, or contains, a list of them.
func filtersIn(t *testing.T, text []byte) []*hcmv3.HttpFilter {
	t.Helper()
	var doc any
	if err := yaml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	if m, ok := doc.(map[string]any); ok {
		l := m["static_resources"].(map[string]any)["listeners"].([]any)[0].(map[string]any)
		f := l["filter_chains"].([]any)[0].(map[string]any)["filters"].([]any)[0].(map[string]any)
		doc = f["typed_config"].(map[string]any)["http_filters"]
	}
	var out []*hcmv3.HttpFilter
	for _, f := range doc.([]any) {
		b, err := yaml.Marshal(f)
		if err != nil {
			t.Fatal(err)
		}
		if b, err = yaml.YAMLToJSON(b); err != nil {
			t.Fatal(err)
		}
		hf := new(hcmv3.HttpFilter)
		if err := protojson.Unmarshal(b, hf); err != nil {
			t.Fatalf("%v in %s", err, b)
		}
		out = append(out, hf)
	}
	return out
}

// exampleFolder is where the examples have their certificate from.
const exampleFolder = "/var/lib/watchword/identity"

// The clusters of the control plane in the examples are secured as a bootstrap
// has it for the same folder.
func TestExamplesHaveAnIdentity(t *testing.T) {
	want, err := (&BootstrapIdentity{TrustDomain: "mesh.local", Folder: exampleFolder}).transportSocket()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"envoy.yaml", "own-stream.yaml"} {
		text, err := yaml.YAMLToJSON(deployment(t, name))
		if err != nil {
			t.Fatal(err)
		}
		b := new(bootstrapv3.Bootstrap)
		if err := protojson.Unmarshal(text, b); err != nil {
			t.Fatal(err)
		}
		got := b.GetStaticResources().GetClusters()[0].GetTransportSocket()
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// The filters that a managed listener has, those that Filters prints, and
// those in the example configs are the same.
func TestFiltersAreTheSameEverywhere(t *testing.T) {
	want, err := httpFilters("orders")
	if err != nil {
		t.Fatal(err)
	}
	printed, err := Filters("orders", &BootstrapIdentity{TrustDomain: "mesh.test", Folder: "/id"})
	if err != nil {
		t.Fatal(err)
	}
	ownStream := filtersIn(t, deployment(t, "own-stream.yaml"))
	for _, f := range ownStream[:3] {
		src := f.GetConfigDiscovery().GetConfigSource()
		if diff := cmp.Diff(adsStream(), src.GetApiConfigSource(), protocmp.Transform()); diff != "" {
			t.Errorf("own-stream.yaml, stream of %s (-want +got):\n%s", f.GetName(), diff)
		}
		src.ConfigSourceSpecifier = &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}
	}
	for name, got := range map[string][]*hcmv3.HttpFilter{
		"Filters":         filtersIn(t, printed),
		"envoy.yaml":      filtersIn(t, deployment(t, "envoy.yaml"))[:3],
		"own-stream.yaml": ownStream[:3],
	} {
		if diff := cmp.Diff(want[:3], got, protocmp.Transform()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestFiltersRefusesWhatIsNoName(t *testing.T) {
	for _, service := range []string{"", "a\"b", "a\nb"} {
		if out, err := Filters(service, &BootstrapIdentity{TrustDomain: "mesh.test", Folder: "/id"}); err == nil {
			t.Errorf("Filters(%q) = %s, want an error", service, out)
		}
	}
}

// startDropIn runs deployments/envoy/envoy.yaml with other ports, after edit.
func startDropIn(t *testing.T, name string, resources []Resource, edit ...string) (*proxy, uint32) {
	t.Helper()
	ca, dir := newAuthority(t, "Watchword CA"), t.TempDir()
	fillFolderOf(t, dir, ca)
	cp := newPlane(t, ca, ca.leaf(identity.ControlPlane("mesh.local"), nil), resources)
	_, adsPort, err := net.SplitHostPort(cp.address)
	if err != nil {
		t.Fatal(err)
	}
	port, admin := freePort(t), freePort(t)
	config := strings.NewReplacer(append([]string{
		"port_value: 8080", fmt.Sprint("port_value: ", port),
		"port_value: 8081", fmt.Sprint("port_value: ", serveUpstream(t)),
		"port_value: 9901", fmt.Sprint("port_value: ", admin),
		"port_value: 7401", "port_value: " + adsPort,
		exampleFolder, dir,
	}, edit...)...).Replace(string(deployment(t, name)))
	return runEnvoy(t, []byte(config), fmt.Sprintf("127.0.0.1:%d", admin)), port
}

const small = `{"service": "orders",
  "issuers": [{"name": "a", "issuer": "https://a.example"}],
  "routes": [
    {"name": "open", "match": {"paths": ["/open/*"]}, "authentication": {"mode": "OFF"}},
    {"authentication": {"mode": "STRICT", "rules": [` + ruleA + `]}}]}`

func smallResources(t *testing.T) ([]Resource, *key) {
	t.Helper()
	rs, k := ruleset(t, small), newKey(t, "a1")
	rs.Issuers[0].Keys = []*dataplanev1.Key{k.proto()}
	out, err := Resources(rs)
	if err != nil {
		t.Fatal(err)
	}
	return out, k
}

// In an Envoy that normalises nothing, the path guard alone keeps the route of
// a request from being another one than its path leads to.
func TestPathGuard(t *testing.T) {
	resources, _ := smallResources(t)
	_, port := startDropIn(t, "envoy.yaml", resources,
		"normalize_path: true", "normalize_path: false",
		"merge_slashes: true", "merge_slashes: false",
		"REJECT_REQUEST\n", "KEEP_UNCHANGED\n",
		"{headers_with_underscores_action: REJECT_REQUEST}", "{}")
	const passes, guarded, strict = 200, 403, 401
	for target, want := range map[string]int{
		"/open/x":                   passes,
		"/open/":                    passes,
		"/open/x?q=//../%2e":        passes,
		"/open/.well-known/a..b/c.": passes,
		"/open/%20%C3%A9%25%2b":     passes,
		"/x":                        strict,
		"/open/../x":                guarded,
		"/open/..":                  guarded,
		"/open/.":                   guarded,
		"/open/./x":                 guarded,
		"/open/..;a=b/x":            guarded,
		"/open//x":                  guarded,
		"//open/x":                  guarded,
		"/open/%2e%2e/x":            guarded,
		"/open/%2E./x":              guarded,
		"/open/%2e":                 guarded,
		"/open/..%2fx":              guarded,
		"/open/..%2Fx":              guarded,
		`/open/..\x`:                guarded,
		"/open/..%5cx":              guarded,
		"/open/%61":                 guarded,
		"/open/%7E":                 guarded,
		"/open/%2":                  guarded,
		"/open/%":                   guarded,
		"/open/%zz":                 guarded,
		"/open/%00":                 guarded,
		"/open/..?x":                guarded,
	} {
		status, body, _ := raw(t, port, "GET "+target+" HTTP/1.1\r\nHost: orders\r\n\r\n")
		if status != want {
			t.Errorf("%s: got %d %s, want %d", target, status, body, want)
		}
	}
	// CGI turns both into HTTP_X_WATCHWORD_CALLER.
	_, _, got := raw(t, port, "GET /open/x HTTP/1.1\r\nHost: orders\r\nx_watchword_caller: root\r\nX-Watchword_Caller: root\r\nx_user-id: root\r\n\r\n")
	for name := range got.Header {
		if n := strings.ReplaceAll(strings.ToLower(name), "_", "-"); strings.HasPrefix(n, headerPrefix) || n == "x-user-id" {
			t.Errorf("the service got %s: %q", name, got.Header[name])
		}
	}
}

// What has no path goes to the rest of the service, which is strict here, even
// if the owner's routes take it.
func TestRequestsWithoutPath(t *testing.T) {
	resources, _ := smallResources(t)
	_, port := startDropIn(t, "envoy.yaml", resources,
		"match: {prefix: /}", `match: {prefix: ""}`,
		"normalize_path: true", "normalize_path: false\n          upgrade_configs: [{upgrade_type: CONNECT}]\n          http_protocol_options: {accept_http_10: true}",
		"              routes:\n", "              routes:\n              - {match: {connect_matcher: {}}, route: {cluster: orders, timeout: 0s}}\n")
	for _, head := range []string{
		"OPTIONS * HTTP/1.1\r\nHost: orders", "CONNECT orders:80 HTTP/1.1\r\nHost: orders:80",
		"GET /x HTTP/1.0", "OPTIONS open/x HTTP/1.1\r\nHost: orders",
	} {
		if status, body, _ := raw(t, port, head+"\r\n\r\n"); status < 400 {
			t.Errorf("%s: got %d %s, want a refusal", head, status, body)
		}
	}
}

// Both example configs get their filters: over ADS, and over streams of their
// own.
func TestExamplesWork(t *testing.T) {
	for _, name := range []string{"envoy.yaml", "own-stream.yaml"} {
		t.Run(name, func(t *testing.T) {
			resources, k := smallResources(t)
			_, port := startDropIn(t, name, resources)
			token := k.sign(claims(nil))
			for headers, want := range map[string]int{"": 401, "Authorization: Bearer " + token + "\r\n": 200} {
				status, body, _ := raw(t, port, "GET /x HTTP/1.1\r\nHost: orders\r\n"+headers+"\r\n")
				if status != want {
					t.Errorf("with %q: got %d %s, want %d", headers, status, body, want)
				}
			}
		})
	}
}

// An Envoy that nobody configured refuses, and says so soon.
func TestRefusesBeforeFirstConfig(t *testing.T) {
	start := time.Now()
	_, port := startDropIn(t, "envoy.yaml", nil)
	if took := time.Since(start); took > 2*firstConfigTimeout {
		t.Errorf("ready after %v, want about %v", took, firstConfigTimeout)
	}
	if status, body, _ := raw(t, port, "GET /open/x HTTP/1.1\r\nHost: orders\r\n\r\n"); status != http.StatusForbidden {
		t.Errorf("got %d %s, want 403", status, body)
	}
}

// Each example config is one that Envoy takes as it is.
func TestExamplesAreValid(t *testing.T) {
	dir := t.TempDir()
	fillFolder(t, dir)
	for _, name := range []string{"envoy.yaml", "own-stream.yaml"} {
		if err := validate(t, bytes.ReplaceAll(deployment(t, name), []byte(exampleFolder), []byte(dir))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	b, err := Bootstrap(BootstrapOptions{Service: "orders", ADSAddress: "watchword.example:7401",
		Identity: &BootstrapIdentity{TrustDomain: "mesh.test", SDSSocket: "/run/watchword/sds.sock"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := validate(t, b); err != nil {
		t.Errorf("Bootstrap: %v\n%s", err, b)
	}
	if bytes.Contains(b, []byte("admin:")) {
		t.Errorf("an admin interface that nobody asked for:\n%s", b)
	}
}
