package envoy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"sigs.k8s.io/yaml"
)

// ServiceMetadata is the key in the node's metadata that holds the name of the
// service.
const ServiceMetadata = "watchword.service"

// controlPlane is the cluster that holds the control plane.
const controlPlane = "watchword"

const (
	// A control plane that answers no ping for this long is gone, and Envoy
	// looks for another replica.
	keepaliveInterval = 5 * time.Second
	keepaliveTimeout  = 2 * time.Second
	// Envoy's default between two attempts to connect grows to 30 s.
	minBackOff = 200 * time.Millisecond
	maxBackOff = time.Second

	// maxConnections of callers at once; more are refused, before they cost
	// the memory that those that are there need.
	maxConnections = 50000
)

// BootstrapOptions says which Envoy a bootstrap is for.
type BootstrapOptions struct {
	// Node names this Envoy among those of its service. Default: the service.
	Node string
	// Service is the name of the service. Compulsory.
	Service string
	// ADSAddress is where the control plane serves ADS, HOST:PORT. Compulsory.
	ADSAddress string
	// AdminAddress is where Envoy's admin interface listens, IP:PORT. It has no
	// authentication. Empty means that there is none.
	AdminAddress string
}

// Bootstrap is the YAML that a managed Envoy starts with: it takes listeners,
// clusters and filters over one delta ADS stream.
func Bootstrap(o BootstrapOptions) ([]byte, error) {
	b, err := bootstrap(o)
	if err != nil {
		return nil, fmt.Errorf("bootstrap of service %q: %w", o.Service, err)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("bootstrap of service %q: %w", o.Service, err)
	}
	return yaml.JSONToYAML(text)
}

func bootstrap(o BootstrapOptions) (*bootstrapv3.Bootstrap, error) {
	if o.Service == "" {
		return nil, errors.New("the service is not named")
	}
	if o.Node == "" {
		o.Node = o.Service
	}
	cluster, err := adsCluster(o.ADSAddress)
	if err != nil {
		return nil, err
	}
	metadata, err := structpb.NewStruct(map[string]any{ServiceMetadata: o.Service})
	if err != nil {
		return nil, err
	}
	admin, err := adminInterface(o.AdminAddress)
	if err != nil {
		return nil, err
	}
	limits, err := overloadManager()
	if err != nil {
		return nil, err
	}
	return &bootstrapv3.Bootstrap{
		Node:  &corev3.Node{Id: o.Node, Cluster: o.Service, Metadata: metadata},
		Admin: admin,
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{
			AdsConfig: adsStream(),
			CdsConfig: adsSource(firstConfigTimeout),
			LdsConfig: adsSource(firstConfigTimeout),
		},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Clusters: []*clusterv3.Cluster{cluster},
		},
		StatsConfig:     boundedStats(),
		LayeredRuntime:  fixedRuntime(),
		OverloadManager: limits,
	}, nil
}

// adsStream is delta, so that a resource that goes away falls back to its
// default, which refuses.
func adsStream() *corev3.ApiConfigSource {
	return &corev3.ApiConfigSource{
		ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
		TransportApiVersion:       corev3.ApiVersion_V3,
		SetNodeOnFirstMessageOnly: true,
		GrpcServices: []*corev3.GrpcService{{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
				ClusterName: controlPlane,
				RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
					BaseInterval: durationpb.New(minBackOff),
					MaxInterval:  durationpb.New(maxBackOff),
				}},
			}},
		}},
	}
}

func adsCluster(address string) (*clusterv3.Cluster, error) {
	host, port, err := hostPort(address)
	if err != nil {
		return nil, fmt.Errorf("address of the control plane: %w", err)
	}
	discovery := clusterv3.Cluster_STRICT_DNS
	if _, err := netip.ParseAddr(host); err == nil {
		discovery = clusterv3.Cluster_STATIC
	}
	options, err := pack(&upstreamhttpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
						ConnectionKeepalive: &corev3.KeepaliveSettings{
							Interval: durationpb.New(keepaliveInterval),
							Timeout:  durationpb.New(keepaliveTimeout),
						},
					},
				},
			},
		},
	})
	if err != nil {
		return nil, err
	}
	return &clusterv3.Cluster{
		Name:                          controlPlane,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: discovery},
		ConnectTimeout:                durationpb.New(connectTimeout),
		LoadAssignment:                endpoint(controlPlane, host, port),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{httpProtocolOptions: options},
	}, nil
}

func adminInterface(address string) (*bootstrapv3.Admin, error) {
	if address == "" {
		return nil, nil
	}
	host, port, err := hostPort(address)
	if err != nil {
		return nil, fmt.Errorf("address of the admin interface: %w", err)
	}
	return &bootstrapv3.Admin{Address: socketAddress(host, port)}, nil
}

func hostPort(address string) (string, uint32, error) {
	host, p, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, err
	}
	port, err := strconv.ParseUint(p, 10, 16)
	if err != nil || host == "" {
		return "", 0, fmt.Errorf("%q is not HOST:PORT", address)
	}
	return host, uint32(port), nil
}

// boundedStats keeps only what the filters, the listener, the service and the
// control plane count: their number does not grow with callers or policies.
func boundedStats() *metricsv3.StatsConfig {
	list := new(matcherv3.ListStringMatcher)
	for _, prefix := range []string{
		"access_logs.grpc_access_log.", "cluster.local/", "cluster." + controlPlane + ".", "cluster_manager.", "control_plane.",
		"extension_config_discovery.", "http.inbound.", "listener.", "listener_manager.", "server.",
	} {
		list.Patterns = append(list.Patterns, matchPrefix(prefix))
	}
	return &metricsv3.StatsConfig{StatsMatcher: &metricsv3.StatsMatcher{
		StatsMatcher: &metricsv3.StatsMatcher_InclusionList{InclusionList: list},
	}}
}

// fixedRuntime has no admin layer: what this Envoy enforces can't be changed by
// who reaches its admin interface.
func fixedRuntime() *bootstrapv3.LayeredRuntime {
	return &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
		Name:           "fixed",
		LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{}},
	}}}
}

func overloadManager() (*overloadv3.OverloadManager, error) {
	limit, err := pack(&connectionsv3.DownstreamConnectionsConfig{MaxActiveDownstreamConnections: maxConnections})
	if err != nil {
		return nil, err
	}
	return &overloadv3.OverloadManager{ResourceMonitors: []*overloadv3.ResourceMonitor{{
		Name:       "envoy.resource_monitors.global_downstream_max_connections",
		ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: limit},
	}}}, nil
}
