package envoy

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Each file of testdata is a ruleset and what an operator is shown of its
// resources, or the error. Envoy takes each of them.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			rs := ruleset(t, string(ar.Files[0].Data))
			resources, err := Resources(rs)
			got := []byte(fmt.Sprintln(err))
			if err == nil {
				got = shown(t, resources)
				if err := validate(t, static(t, resources)); err != nil {
					t.Errorf("Envoy refuses it: %v", err)
				}
			}
			if *update {
				ar.Files = append(ar.Files[:1], txtar.File{Name: "resources", Data: got})
				if err := os.WriteFile(file, txtar.Format(ar), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if len(ar.Files) < 2 {
				t.Fatalf("no resources in %s: run with -update, and read them", file)
			}
			if diff := cmp.Diff(string(ar.Files[1].Data), string(got)); diff != "" {
				t.Errorf("-want +got (rewrite with -update):\n%s", diff)
			}
		})
	}
}

// shown is all resources as an operator is shown them.
func shown(t *testing.T, resources []Resource) []byte {
	t.Helper()
	var out bytes.Buffer
	for _, r := range resources {
		s, err := JSON(r.TypeURL, r.Body)
		if err != nil {
			t.Fatal(err)
		}
		b, err := json.MarshalIndent(s.AsMap(), "", "  ") // unlike protojson, the same blanks each time
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s %s\n%s\n", r.TypeURL, r.Name, b)
	}
	return out.Bytes()
}

// static puts the filters of many services into one config that needs no
// control plane, each into a listener of its own.
func static(t *testing.T, resources []Resource) []byte {
	t.Helper()
	var listeners, clusters []string
	filters := map[string][]string{}
	var services []string
	for _, r := range resources {
		m, err := (&anypb.Any{TypeUrl: r.TypeURL, Value: r.Body}).UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		b, err := protojson.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		switch r.TypeURL {
		case ClusterType:
			clusters = append(clusters, string(b))
		case ListenerType:
			listeners = append(listeners, string(b))
		default:
			_, service, _ := strings.Cut(r.Name, "/")
			if filters[service] == nil {
				services = append(services, service)
			}
			filters[service] = append(filters[service], string(b))
		}
	}
	for _, service := range services {
		listeners = append(listeners, fmt.Sprintf(`{"name": %q, "address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}},
			"filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
			"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
			"stat_prefix": "s", "route_config": {}, "http_filters": [%s,
			{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}]}`,
			"static/"+service, strings.Join(filters[service], ",")))
	}
	own, err := controlPlaneClusters(BootstrapOptions{ADSAddress: "127.0.0.1:1", Unprotected: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range own {
		b, err := protojson.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		clusters = append(clusters, string(b))
	}
	stream, err := protojson.Marshal(adsStream())
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Appendf(nil, `{"node": {"id": "n", "cluster": "c"}, "dynamic_resources": {"ads_config": %s},
		"static_resources": {"clusters": [%s], "listeners": [%s]}}`,
		stream, strings.Join(clusters, ","), strings.Join(listeners, ","))
}

// What an operator is shown has no shared secret, and all else.
func TestJSONRedacts(t *testing.T) {
	rs := ruleset(t, small)
	rs.Issuers[0].Keys = []*dataplanev1.Key{
		newKey(t, "public-key").proto(),
		{Kid: "s", Algorithm: "HS256", Symmetric: true, Jwk: `{"kty":"oct","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0","kid":"shared","alg":"HS256"}`},
	}
	resources, err := Resources(rs)
	if err != nil {
		t.Fatal(err)
	}
	got := string(shown(t, resources))
	if strings.Contains(got, "c2VjcmV0") {
		t.Errorf("the secret is shown:\n%s", got)
	}
	for _, want := range []string{redacted, "public-key", "shared", "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication", "clock_skew_seconds"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// What can't be shown is an error, and what can't be read as keys is left out.
func TestJSONOfOthers(t *testing.T) {
	for typeURL, body := range map[string]string{"type.googleapis.com/a.B": "", ListenerType: "\xff", "": ""} {
		if s, err := JSON(typeURL, []byte(body)); err == nil {
			t.Errorf("JSON(%q, %q) = %v, want an error", typeURL, body, s)
		}
	}
	for _, text := range []string{"not JSON: secret", `{"keys":["secret"]}`, `["secret"]`} {
		if got := redactJWKS("inline_string", text); strings.Contains(got, "secret") {
			t.Errorf("redactJWKS(%q) = %q", text, got)
		}
	}
	if got := redactJWKS("inline_bytes", `{"keys":[]}`); got != redacted {
		t.Errorf("inline_bytes: got %q, want %q", got, redacted)
	}
}

// Resources leaves its argument alone.
func TestResourcesIsPure(t *testing.T) {
	rs := ruleset(t, small)
	rs.Issuers[0].Keys = []*dataplanev1.Key{newKey(t, "k").proto()}
	before := proto.Clone(rs)
	if _, err := Resources(rs); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(before, rs) {
		t.Errorf("got %v, want %v", rs, before)
	}
}
