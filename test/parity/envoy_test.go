package parity

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/watchword-mesh/watchword/controlplane/envoy"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
	"github.com/watchword-mesh/watchword/test/meshtest"
)

const service = "parity"

// proxy is one Envoy, whose ruleset changes while it runs. It is one that
// somebody else owns and that normalises nothing: what stands between a rule
// and a request is the chain alone.
type proxy struct {
	ads     *ads
	address string
}

const config = `
node: {id: parity, cluster: parity}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: ADMIN}}}
dynamic_resources: {ads_config: {api_type: DELTA_GRPC, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: ads}}]}}
static_resources:
  clusters:
  - name: ads
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: ads, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: ADS}}}}]}]}
  - name: service
    load_assignment: {cluster_name: service, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: UP}}}}]}]}
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: PORT}}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          generate_request_id: false
          server_header_transformation: PASS_THROUGH
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: ""}, route: {cluster: service}}]}]}
          http_filters:
          - name: mesh.inbound/parity
            config_discovery:
              config_source: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 1s}
              default_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {}}
              type_urls:
              - type.googleapis.com/envoy.extensions.filters.http.filter_chain.v3.FilterChainConfig
              - type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
          - name: mesh.revoked/parity
            config_discovery:
              config_source: {ads: {}, resource_api_version: V3, initial_fetch_timeout: 1s}
              default_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {}}
              type_urls:
              - type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, suppress_envoy_headers: true}
`

// startProxy starts an Envoy with a config in front of a service.
func startProxy(t *testing.T, config, upstream string) *proxy {
	t.Helper()
	p := &proxy{ads: serveADS(t), address: meshtest.FreeAddress(t)}
	admin := meshtest.FreeAddress(t)
	port := func(address string) string { _, p, _ := net.SplitHostPort(address); return p }
	yaml := strings.NewReplacer("ADMIN", port(admin), "ADS", port(p.ads.address), "PORT", port(p.address), "UP", port(upstream)).Replace(config)
	e := &meshtest.Envoy{Service: service, YAML: yaml, Admin: admin, Concurrency: 1}
	e.Start(t)
	return p
}

// load has the Envoy enforce a ruleset with revocations, or returns why it does not.
func (p *proxy) load(t testing.TB, rs *dataplanev1.Ruleset, revoked *dataplanev1.Revocations) error {
	t.Helper()
	resources, err := envoy.Resources(rs)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(resources, func(r envoy.Resource) bool { return r.Name == envoy.InboundName(service) })
	filter, err := envoy.Revoked(service, revoked)
	if err != nil {
		return err
	}
	if err := p.ads.push(t, filter); err != nil {
		return err
	}
	return p.ads.push(t, resources[i])
}

// ads hands out one resource, and tells when Envoy has accepted or refused it.
type ads struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	address string
	next    chan *discoveryv3.DeltaDiscoveryResponse
	answers chan *discoveryv3.DeltaDiscoveryRequest
	mu      sync.Mutex
	nonce   int
}

func serveADS(t *testing.T) *ads {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &ads{address: l.Addr().String(), next: make(chan *discoveryv3.DeltaDiscoveryResponse), answers: make(chan *discoveryv3.DeltaDiscoveryRequest, 16)}
	srv := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(srv, s)
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { srv.Stop(); <-done })
	return s
}

// DeltaAggregatedResources implements the service.
func (s *ads) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	failed := make(chan error, 1)
	go func() {
		for {
			req, err := stream.Recv()
			if err != nil {
				failed <- err
				return
			}
			if req.GetResponseNonce() != "" {
				s.answers <- req
			}
		}
	}()
	for {
		select {
		case <-failed:
			return nil
		case res := <-s.next:
			if err := stream.Send(res); err != nil {
				return err
			}
		}
	}
}

func (s *ads) push(t testing.TB, r envoy.Resource) error {
	t.Helper()
	s.mu.Lock()
	s.nonce++
	nonce := fmt.Sprint(s.nonce)
	s.mu.Unlock()
	deadline := time.After(meshtest.Patience)
	select {
	case s.next <- &discoveryv3.DeltaDiscoveryResponse{TypeUrl: r.TypeURL, Nonce: nonce, Resources: []*discoveryv3.Resource{{
		Name: r.Name, Version: nonce, Resource: &anypb.Any{TypeUrl: r.TypeURL, Value: r.Body},
	}}}:
	case <-deadline:
		t.Fatal("Envoy has no ADS stream")
	}
	for {
		select {
		case a := <-s.answers:
			if a.GetResponseNonce() != nonce {
				continue
			}
			if e := a.GetErrorDetail(); e != nil {
				return fmt.Errorf("Envoy refused the ruleset: %s", e.GetMessage())
			}
			return nil
		case <-deadline:
			t.Fatal("Envoy did not answer")
		}
	}
}
