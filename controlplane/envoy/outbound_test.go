package envoy

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// Each file of testdata/outbound is an Outbound and what an operator is shown of
// its resources, or the error.
func TestGoldenOutbound(t *testing.T) {
	files, err := filepath.Glob("testdata/outbound/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			o := outbound(t, string(ar.Files[0].Data))
			before := proto.Clone(o)
			resources, err := OutboundResources(o)
			got := shown(t, resources)
			if err != nil {
				got = []byte(fmt.Sprintln(err))
			}
			if !proto.Equal(before, o) {
				t.Errorf("the argument is %v now, it was %v", o, before)
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

// outbound reads an Outbound in proto JSON.
func outbound(t *testing.T, text string) *dataplanev1.Outbound {
	t.Helper()
	o := new(dataplanev1.Outbound)
	if err := protojson.Unmarshal([]byte(text), o); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return o
}

// The TLS of the inbound listener comes and goes with Inbound.tls alone.
func TestInboundTLSIsAsked(t *testing.T) {
	rs := ruleset(t, small)
	rs.Issuers[0].Keys = []*dataplanev1.Key{newKey(t, "k").proto()}
	rs.Inbound = &dataplanev1.Inbound{Address: "127.0.0.1", Port: 1, LocalIp: "127.0.0.1", LocalPort: 2}
	for _, tls := range []bool{false, true} {
		rs.Inbound.Tls = tls
		resources, err := Resources(rs)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(shown(t, resources)), "DownstreamTlsContext"); got != tls {
			t.Errorf("tls: %v: the listener has TLS: %v", tls, got)
		}
	}
}
