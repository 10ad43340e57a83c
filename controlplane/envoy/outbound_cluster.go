package envoy

import (
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	injectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/credential_injector/v3"
	codecv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/upstream_codec/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	genericv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/injected_credentials/generic/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

const (
	// calleeTimeout bounds the TCP and TLS handshakes with a callee.
	calleeTimeout = 5 * time.Second
	// tokenTimeout is how long a new cluster waits for its token. A control plane
	// that has none says so at once.
	tokenTimeout = 3 * time.Second
)

// calleeCluster is one that unreachable has nothing against. It must come over
// CDS: Envoy 1.40 crashes over a static one whose secret comes over ADS.
func calleeCluster(c *dataplanev1.Callee) (*clusterv3.Cluster, error) {
	options, err := calleeProtocol(c.GetAudience())
	if err != nil {
		return nil, err
	}
	name := CalleeName(c.GetService())
	endpoints, discovery, err := calleeEndpoints(name, c.GetEndpoints())
	if err != nil {
		return nil, err
	}
	cluster := &clusterv3.Cluster{
		Name:                          name,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: discovery},
		ConnectTimeout:                durationpb.New(calleeTimeout),
		LoadAssignment:                endpoints,
		TypedExtensionProtocolOptions: map[string]*anypb.Any{httpProtocolOptions: options},
	}
	if c.GetSpiffeId() != "" {
		if cluster.TransportSocket, err = calleeTLS(c); err != nil {
			return nil, err
		}
	}
	return cluster, nil
}

// calleeEndpoints share the requests. Names are resolved by Envoy.
func calleeEndpoints(cluster string, list []string) (*endpointv3.ClusterLoadAssignment, clusterv3.Cluster_DiscoveryType, error) {
	discovery := clusterv3.Cluster_STATIC
	all := new(endpointv3.LocalityLbEndpoints)
	for _, e := range list {
		host, port, err := hostPort(e)
		if err != nil {
			return nil, 0, err
		}
		if _, err := netip.ParseAddr(host); err != nil {
			discovery = clusterv3.Cluster_STRICT_DNS
		}
		all.LbEndpoints = append(all.LbEndpoints, &endpointv3.LbEndpoint{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: socketAddress(host, port)}},
		})
	}
	return &endpointv3.ClusterLoadAssignment{ClusterName: cluster, Endpoints: []*endpointv3.LocalityLbEndpoints{all}}, discovery, nil
}

// calleeProtocol speaks what the service speaks, so that gRPC stays HTTP/2, and
// adds the token behind all that could see it. Over TLS, Envoy offers in ALPN
// the protocol that it is about to speak.
func calleeProtocol(audience string) (*anypb.Any, error) {
	options := upstreamProtocol(dataplanev1.Inbound_PROTOCOL_UNSPECIFIED)
	injector, err := tokenInjector(audience)
	if err != nil {
		return nil, err
	}
	for _, f := range []filter{
		{"watchword.token", injector},
		{"envoy.filters.http.upstream_codec", new(codecv3.UpstreamCodec)},
	} {
		config, err := pack(f.msg)
		if err != nil {
			return nil, err
		}
		options.HttpFilters = append(options.HttpFilters, &hcmv3.HttpFilter{Name: f.name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: config}})
	}
	return pack(options)
}

// tokenInjector sets Authorization to the token for an audience, in place of
// what the service itself has there: that may be what its own caller has sent,
// and is not for the callee to see. Without a token it refuses the request.
func tokenInjector(audience string) (proto.Message, error) {
	generic, err := extension("envoy.http.injected_credentials.generic", &genericv3.Generic{
		Credential: &tlsv3.SdsSecretConfig{Name: TokenSecret(audience), SdsConfig: adsSource(tokenTimeout)},
		// In front of the secret, with the blank of RFC 6750 section 2.1.
		HeaderValuePrefix: "Bearer ",
	}, nil)
	if err != nil {
		return nil, err
	}
	return &injectorv3.CredentialInjector{Overwrite: true, Credential: &corev3.TypedExtensionConfig{Name: generic.GetName(), TypedConfig: generic.GetTypedConfig()}}, nil
}
