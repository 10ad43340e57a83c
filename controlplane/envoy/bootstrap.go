package envoy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// ServiceMetadata is the key in the node's metadata that holds the name of the
// service.
const ServiceMetadata = "watchword.service"

const (
	// controlPlane is the cluster that holds the control plane.
	controlPlane = "watchword"
	// refusalCluster is the same for reports of refusals, so that no number of
	// them is in the way of ADS.
	refusalCluster = "watchword_refusals"
)

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
	// ADSAddress is where the control plane serves ADS, HOST:PORT. Compulsory. Those of
	// several replicas have commas between them.
	ADSAddress string
	// AdminAddress is where Envoy's admin interface listens, IP:PORT or the
	// absolute path of a Unix socket. It has no authentication, and shows shared
	// secrets. Empty means that there is none.
	AdminAddress string
	// Identity is compulsory, but for what is Unprotected.
	Identity *BootstrapIdentity
	// Unprotected speaks to the control plane in plain text, for tests of other
	// things: a control plane that runs serves no such Envoy.
	Unprotected bool
}

// Bootstrap is the YAML that a managed Envoy starts with: it takes listeners,
// clusters and filters over one delta ADS stream.
func Bootstrap(o BootstrapOptions) ([]byte, error) {
	b, err := bootstrap(o)
	if err != nil {
		return nil, fmt.Errorf("bootstrap of service %q: %w", o.Service, err)
	}
	text, err := protoYAML(b)
	if err != nil {
		return nil, fmt.Errorf("bootstrap of service %q: %w", o.Service, err)
	}
	return text, nil
}

func bootstrap(o BootstrapOptions) (*bootstrapv3.Bootstrap, error) {
	if o.Service == "" {
		return nil, errors.New("the service is not named")
	}
	if o.Node == "" {
		o.Node = o.Service
	}
	clusters, err := controlPlaneClusters(o)
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
			Clusters: clusters,
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
		GrpcServices:              []*corev3.GrpcService{grpcService(controlPlane)},
	}
}

func grpcService(cluster string) *corev3.GrpcService {
	return &corev3.GrpcService{
		TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
			ClusterName: cluster,
			RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
				BaseInterval: durationpb.New(minBackOff),
				MaxInterval:  durationpb.New(maxBackOff),
			}},
		}},
	}
}

// controlPlaneClusters are controlPlane, refusalCluster and identityCluster.
func controlPlaneClusters(o BootstrapOptions) ([]*clusterv3.Cluster, error) {
	switch {
	case o.Unprotected && o.Identity != nil:
		return nil, errors.New("it has an identity, and is to be without protection")
	case !o.Unprotected && o.Identity == nil:
		return nil, errors.New("it has no identity, without which no control plane serves it")
	case o.Identity != nil:
		if err := o.Identity.check(); err != nil {
			return nil, fmt.Errorf("identity: %w", err)
		}
	}
	ads, err := controlPlaneCluster(controlPlane, o)
	if err != nil {
		return nil, err
	}
	refusals, err := controlPlaneCluster(refusalCluster, o)
	if err != nil {
		return nil, err
	}
	refusals.CircuitBreakers = atMost(refusalRequests)
	secrets, err := o.Identity.clusters()
	return append([]*clusterv3.Cluster{ads, refusals}, secrets...), err
}

func controlPlaneCluster(name string, o BootstrapOptions) (*clusterv3.Cluster, error) {
	replicas, discovery, err := replicas(name, o.ADSAddress)
	if err != nil {
		return nil, fmt.Errorf("address of the control plane: %w", err)
	}
	options, err := http2Options(true)
	if err != nil {
		return nil, err
	}
	c := &clusterv3.Cluster{
		Name:                          name,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: discovery},
		ConnectTimeout:                durationpb.New(connectTimeout),
		LoadAssignment:                replicas,
		TypedExtensionProtocolOptions: map[string]*anypb.Any{httpProtocolOptions: options},
	}
	if o.Identity != nil {
		if c.TransportSocket, err = o.Identity.transportSocket(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// replicas are the endpoints at some addresses, and how Envoy finds them. Envoy goes to
// the next when one does not answer.
func replicas(name, addresses string) (*endpointv3.ClusterLoadAssignment, clusterv3.Cluster_DiscoveryType, error) {
	all, discovery := &endpointv3.ClusterLoadAssignment{}, clusterv3.Cluster_STATIC
	for address := range strings.SplitSeq(addresses, ",") {
		host, port, err := hostPort(strings.TrimSpace(address))
		if err != nil {
			return nil, 0, err
		}
		if _, err := netip.ParseAddr(host); err != nil {
			discovery = clusterv3.Cluster_STRICT_DNS
		}
		one := endpoint(name, host, port)
		if len(all.GetEndpoints()) == 0 {
			all = one
			continue
		}
		at := all.GetEndpoints()[0]
		at.LbEndpoints = append(at.LbEndpoints, one.GetEndpoints()[0].GetLbEndpoints()...)
	}
	return all, discovery, nil
}

// http2Options are HTTP/2, with pings if what is at the other end may go away
// without a word.
func http2Options(pings bool) (*anypb.Any, error) {
	h2 := &corev3.Http2ProtocolOptions{}
	if pings {
		h2.ConnectionKeepalive = &corev3.KeepaliveSettings{
			Interval: durationpb.New(keepaliveInterval),
			Timeout:  durationpb.New(keepaliveTimeout),
		}
	}
	return pack(&upstreamhttpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: h2},
			},
		},
	})
}

// atMost fails requests beyond a number that are not answered yet, at once.
func atMost(requests uint32) *clusterv3.CircuitBreakers {
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxRequests:        wrapperspb.UInt32(requests),
		MaxPendingRequests: wrapperspb.UInt32(requests),
	}}}
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
// control plane count, and each callee: their number does not grow with callers.
func boundedStats() *metricsv3.StatsConfig {
	list := new(matcherv3.ListStringMatcher)
	for _, prefix := range []string{
		"access_logs.", "cluster.callee/", "cluster.local/", "cluster." + controlPlane + ".", "cluster_manager.", "control_plane.",
		"extension_config_discovery.", "http.inbound.", "http.outbound.", "listener.", "listener_manager.", "sds.", "server.",
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
