package parity

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/watchword-mesh/watchword/dataplane/reason"
	"github.com/watchword-mesh/watchword/dataplane/ruleset"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// newHTTP2 speaks HTTP/2 by prior knowledge.
func newHTTP2(t *testing.T) *http.Transport {
	transport := &http.Transport{Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(transport.CloseIdleConnections)
	return transport
}

// gRPC callers get gRPC's own status and message, the same from all.
func TestGRPC(t *testing.T) {
	b := newBench()
	p := startPlanes(t)
	b.rs.Routes[0].Responses = []*dataplanev1.Response{{Reasons: []string{string(reason.AudienceMismatch)}, Body: "not for you"}}
	reference := b.load(t, p)
	transport := newHTTP2(t)
	grpc := ruleset.Field{Name: "Content-Type", Value: "application/grpc"}
	for name, req := range map[string]ruleset.Request{
		"missing":  get(grpc),
		"expired":  as(map[string]any{"exp": now(-1000)})(b),
		"audience": as(map[string]any{"aud": "x"})(b),
	} {
		if !slices.Contains(req.Header, grpc) {
			req.Header = append(req.Header, grpc)
		}
		want := reference.Evaluate(req, time.Now())
		for _, c := range p.all {
			t.Run(name+"/"+c.name, func(t *testing.T) {
				r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+c.address+"/pkg.Service/Method", strings.NewReader(""))
				if err != nil {
					t.Fatal(err)
				}
				for _, f := range req.Header {
					r.Header.Add(f.Name, f.Value)
				}
				res, err := transport.RoundTrip(r)
				if err != nil {
					t.Fatal(err)
				}
				_ = res.Body.Close()
				h := maps.Clone(res.Header)
				maps.Copy(h, res.Trailer)
				status, _ := strconv.Atoi(h.Get("grpc-status"))
				message := strings.ReplaceAll(h.Get("grpc-message"), "%20", " ")
				if res.StatusCode != 200 || status != want.GRPCStatus || message != want.GRPCMessage || h.Get(reason.Header) != string(want.Reason) {
					t.Errorf("HTTP %d, grpc-status %d %q, reason %q; want 200, %d %q, %q", res.StatusCode, status, message, h.Get(reason.Header), want.GRPCStatus, want.GRPCMessage, want.Reason)
				}
			})
		}
	}
}
