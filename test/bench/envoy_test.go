package bench

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

// What a request costs in an Envoy with one worker: CPU time of the whole
// process, over a few connections that stay open, with a response of Envoy's own.
//
//	us/req       CPU per allowed request with the chain of the ruleset
//	x-proxy      the same as a multiple of an Envoy without any filter
//	x-jwt        ... and of one with jwt_authn alone, for the same token and key
//
// Each ratio is of runs that alternate, in the same minute.
func BenchmarkEnvoyRequest(b *testing.B) {
	s := meshtest.NewSigner(b, "ES256")
	for _, bb := range []struct {
		name string
		rs   *dataplanev1.Ruleset
		iss  string
	}{
		{"issuer", issuerRuleset(s), "https://a.example"},
		{"issuer-20-routes", manyRoutes(issuerRuleset(s), 20), "https://a.example"},
		{"credentials-10", credentialRuleset(s, 10), "key-9"},
		{"credentials-1000", credentialRuleset(s, 1000), "key-999"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			token := s.Token(b, meshtest.NewClaims(bb.iss, "alice", "orders"))
			bare := loaded(b, "")
			jwt := loaded(b, jwtAlone(s, bb.iss))
			chain := loaded(b, chainOf(b, bb.rs))
			var costs [3]time.Duration
			n := 0
			for b.Loop() {
				for i, e := range []*loadedEnvoy{bare, jwt, chain} {
					costs[i] += e.cost(b, token, requestsPerRound)
				}
				n += requestsPerRound
			}
			b.ReportMetric(float64(costs[2].Microseconds())/float64(n), "us/req")
			b.ReportMetric(float64(costs[2])/float64(costs[0]), "x-proxy")
			b.ReportMetric(float64(costs[2])/float64(costs[1]), "x-jwt")
			b.ReportMetric(0, "ns/op")
		})
	}
}

const (
	requestsPerRound = 20_000
	loadConnections  = 4
)

// loadedEnvoy answers every request that its filters let through.
type loadedEnvoy struct {
	*meshtest.Envoy
	address string
}

func loaded(b *testing.B, filter string) *loadedEnvoy {
	b.Helper()
	e := &loadedEnvoy{Envoy: &meshtest.Envoy{Service: "bench", Admin: meshtest.FreeAddress(b), Concurrency: 1}, address: meshtest.FreeAddress(b)}
	port := func(address string) string { _, p, _ := net.SplitHostPort(address); return p }
	e.YAML = strings.NewReplacer("ADMIN", port(e.Admin), "PORT", port(e.address), "FILTER", filter).Replace(`
admin: {address: {socket_address: {address: 127.0.0.1, port_value: ADMIN}}}
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: PORT}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200}}]}]}
          http_filters:
          FILTER
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`)
	e.Start(b)
	return e
}

// cost is the CPU time of n requests, all of which must be let in.
func (e *loadedEnvoy) cost(b *testing.B, token string, n int) time.Duration {
	b.Helper()
	began := e.CPU(b)
	var wg sync.WaitGroup
	errs := make([]error, loadConnections)
	for i := range loadConnections {
		wg.Go(func() { errs[i] = load(e.address, token, n/loadConnections) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			b.Fatal(err)
		}
	}
	return e.CPU(b) - began
}

func load(address, token string, n int) error {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer c.Close()
	request := []byte("GET /r7/x HTTP/1.1\r\nHost: orders\r\nAuthorization: Bearer " + token + "\r\n\r\n")
	r := bufio.NewReader(c)
	for range n {
		if _, err := c.Write(request); err != nil {
			return err
		}
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			return err
		}
		_ = res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("status %s, reason %q", res.Status, res.Header.Get("x-watchword-reason"))
		}
	}
	return nil
}

func jwtAlone(s *meshtest.Signer, iss string) string {
	return fmt.Sprintf(`- {name: jwt, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication,
            providers: {p: {issuer: %q, audiences: [orders], local_jwks: {inline_string: '%s'}, jwt_cache_config: {jwt_cache_size: 1024}}},
            rules: [{match: {prefix: /}, requires: {provider_name: p}}]}}`, iss, meshtest.JWKS(s))
}

// chainOf is the filter of a ruleset, as data planes get it.
func chainOf(b *testing.B, rs *dataplanev1.Ruleset) string {
	b.Helper()
	resources, err := envoy.Resources(rs)
	if err != nil {
		b.Fatal(err)
	}
	ext := new(corev3.TypedExtensionConfig)
	if err := proto.Unmarshal(resources[0].Body, ext); err != nil {
		b.Fatal(err)
	}
	text, err := protojson.Marshal(ext)
	if err != nil {
		b.Fatal(err)
	}
	return "- " + string(text)
}

func tokenRule() *dataplanev1.TokenRule {
	return &dataplanev1.TokenRule{
		Audiences: []string{"orders"}, ClockSkew: durationpb.New(time.Minute), MaxLifetime: durationpb.New(time.Hour),
		FromHeaders: []*dataplanev1.TokenLocation{{Name: "authorization", Prefix: "Bearer "}},
		Expiration:  dataplanev1.TimeCheck_REQUIRED, NotBefore: dataplanev1.TimeCheck_IF_PRESENT,
	}
}

func strict(r *dataplanev1.TokenRule) *dataplanev1.Authentication {
	return &dataplanev1.Authentication{Mode: dataplanev1.Authentication_STRICT, Rules: []*dataplanev1.TokenRule{r}}
}

func keyOf(s *meshtest.Signer) []*dataplanev1.Key {
	return []*dataplanev1.Key{{Kid: s.KID, Algorithm: s.Alg, Jwk: s.JWK()}}
}

func issuerRuleset(s *meshtest.Signer) *dataplanev1.Ruleset {
	r := tokenRule()
	r.Issuer = "a"
	return &dataplanev1.Ruleset{
		Service: "orders", Issuers: []*dataplanev1.Issuer{{Name: "a", Issuer: "https://a.example", Keys: keyOf(s)}},
		OwnSubjects: &dataplanev1.OwnSubjects{Prefix: "spiffe://mesh/", Issuer: "https://a.example"},
		Routes: []*dataplanev1.Route{{Match: &dataplanev1.RequestMatch{}, Authentication: strict(r), Authorization: &dataplanev1.Authorization{
			Restricted: true, Allow: []*dataplanev1.AuthorizationRule{{Name: "p/0", From: []*dataplanev1.Principal{{Issuer: "a", Subject: "alice"}}}},
		}}},
	}
}

// manyRoutes puts n routes in front, with what the last one has.
func manyRoutes(rs *dataplanev1.Ruleset, n int) *dataplanev1.Ruleset {
	last := rs.Routes[0]
	var routes []*dataplanev1.Route
	for i := range n {
		r := proto.CloneOf(last)
		r.Name, r.Match = fmt.Sprint("r", i), &dataplanev1.RequestMatch{Paths: []string{fmt.Sprintf("/r%d/*", i)}}
		routes = append(routes, r)
	}
	rs.Routes = append(routes, last)
	return rs
}

func credentialRuleset(s *meshtest.Signer, n int) *dataplanev1.Ruleset {
	r := tokenRule()
	r.CredentialSet = "all"
	r.KeyClaim = &dataplanev1.KeyClaim{Name: "iss", Sources: []dataplanev1.KeyClaim_Source{dataplanev1.KeyClaim_PAYLOAD}}
	set := &dataplanev1.CredentialSet{Name: "all"}
	rs := &dataplanev1.Ruleset{Service: "orders", CredentialSets: []*dataplanev1.CredentialSet{set}}
	for i := range n {
		name := fmt.Sprint("c", i)
		rs.Consumers = append(rs.Consumers, &dataplanev1.Consumer{Name: name, Id: fmt.Sprint("id-", i), Username: name})
		set.Credentials = append(set.Credentials, &dataplanev1.Credential{Key: fmt.Sprint("key-", i), Keys: keyOf(s), Consumer: name})
	}
	a := strict(r)
	a.ConsumerHeaders = []*dataplanev1.ConsumerHeader{{Attribute: dataplanev1.ConsumerHeader_USERNAME, Header: "x-consumer-username"}, {Attribute: dataplanev1.ConsumerHeader_ID, Header: "x-consumer-id"}}
	rs.Routes = []*dataplanev1.Route{{Match: &dataplanev1.RequestMatch{}, Authentication: a}}
	return rs
}
