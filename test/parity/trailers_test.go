package parity

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Trailers are what headers are to some servers: nobody can say there who calls.
func TestTrailers(t *testing.T) {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = json.NewEncoder(w).Encode(r.Trailer)
	})
	srv := httptest.NewUnstartedServer(handler)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	t.Cleanup(srv.Close)
	const ofService = "- name: service\n"
	p := startPlanesTo(t, strings.Replace(config, ofService, ofService+`    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
`, 1), handler, srv.Listener.Addr().String())
	b := newBench()
	b.load(t, p)
	transport := newHTTP2(t)
	for _, c := range p.all {
		t.Run(c.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+c.address+"/", strings.NewReader("x"))
			if err != nil {
				t.Fatal(err)
			}
			req.ContentLength = -1
			req.Header.Set("Authorization", "Bearer "+b.good())
			req.Trailer = http.Header{"X-Watchword-Caller": {"root"}, "X_watchword_caller": {"root"}, "X-Sub": {"root"}, "X-Other": {"fine"}}
			res, err := transport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			got := http.Header{}
			if err := json.NewDecoder(res.Body).Decode(&got); err != nil {
				t.Fatalf("status %d: %v", res.StatusCode, err)
			}
			maps.DeleteFunc(got, func(_ string, values []string) bool { return len(values) == 0 })
			if want := (http.Header{"X-Other": {"fine"}}); !cmp.Equal(got, want) {
				t.Errorf("the service saw the trailers %v, want %v", got, want)
			}
		})
	}
}
