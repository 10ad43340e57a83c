package xds

import (
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	extension "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var errStateOfTheWorld = status.Error(codes.FailedPrecondition,
	"state-of-the-world xDS is not served here, because Envoy ignores over it that a resource was removed: "+
		"set api_type: DELTA_GRPC (instead of GRPC) in dynamic_resources.ads_config")

var errStateOfTheWorldECDS = status.Error(codes.FailedPrecondition,
	"state-of-the-world xDS is not served here, because Envoy ignores over it that a resource was removed: "+
		"set api_type: DELTA_GRPC (instead of GRPC) in the filter's config_discovery.config_source.api_config_source")

// ads is the aggregated discovery service.
type ads struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer
	server *Server
}

func (a ads) StreamAggregatedResources(discovery.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return errStateOfTheWorld
}

func (a ads) DeltaAggregatedResources(g discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return a.server.serve(g, resource.AnyType)
}

// ecds is for an Envoy whose ADS belongs to another control plane: it opens one
// stream for each of its filters.
type ecds struct {
	extension.UnimplementedExtensionConfigDiscoveryServiceServer
	server *Server
}

func (e ecds) StreamExtensionConfigs(extension.ExtensionConfigDiscoveryService_StreamExtensionConfigsServer) error {
	return errStateOfTheWorldECDS
}

func (e ecds) DeltaExtensionConfigs(g extension.ExtensionConfigDiscoveryService_DeltaExtensionConfigsServer) error {
	return e.server.serve(g, resource.ExtensionConfigType)
}
