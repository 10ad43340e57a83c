package envoy

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// connectTimeout is short: the service is on the same host.
const connectTimeout = time.Second

const httpProtocolOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

// localCluster is the service itself, without TLS.
func localCluster(service string, in *dataplanev1.Inbound) (*clusterv3.Cluster, error) {
	options, err := pack(upstreamProtocol(in.GetProtocol()))
	if err != nil {
		return nil, err
	}
	name := ClusterName(service)
	return &clusterv3.Cluster{
		Name:                          name,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:                durationpb.New(connectTimeout),
		LoadAssignment:                endpoint(name, in.GetLocalIp(), in.GetLocalPort()),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{httpProtocolOptions: options},
	}, nil
}

// upstreamProtocol is what the service speaks, or else what the caller does:
// HTTP/1.1 stays HTTP/1.1 then, and gRPC stays HTTP/2.
func upstreamProtocol(p dataplanev1.Inbound_Protocol) *upstreamhttpv3.HttpProtocolOptions {
	explicit := &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{}
	switch p {
	case dataplanev1.Inbound_HTTP1:
		explicit.ProtocolConfig = &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
		}
	case dataplanev1.Inbound_HTTP2:
		explicit.ProtocolConfig = &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
		}
	default:
		return &upstreamhttpv3.HttpProtocolOptions{
			UpstreamProtocolOptions: &upstreamhttpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
				UseDownstreamProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
					HttpProtocolOptions:  &corev3.Http1ProtocolOptions{},
					Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
				},
			},
		}
	}
	return &upstreamhttpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit},
	}
}

// endpoint is a cluster's only one.
func endpoint(cluster, host string, port uint32) *endpointv3.ClusterLoadAssignment {
	return endpointAt(cluster, socketAddress(host, port))
}

func endpointAt(cluster string, at *corev3.Address) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: cluster,
		Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: at}},
		}}}},
	}
}

func pipeAddress(at string) *corev3.Address {
	// What Envoy itself listens on is for its own user; the mode says nothing
	// where it connects to.
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: at, Mode: 0o600}}}
}

func socketAddress(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       host,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}
