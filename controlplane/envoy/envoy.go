// Package envoy translates a ruleset into what Envoy understands.
//
// A service has two resources that Envoy fetches over ECDS, one per HTTP
// filter: mesh.inbound/SERVICE, a filter chain that verifies and authorizes,
// and mesh.revoked/SERVICE, which looks at what was verified and refuses what
// was revoked. They are two so that a revocation pushes the small one alone.
// Nothing about keys or policies travels in listeners, because connections
// that are open keep the listener that they came through.
//
// A service whose Envoy is managed has a listener and a cluster besides, which
// do nothing but hold those two filters and forward to the service.
//
// # The chain
//
// The filters of mesh.inbound run in this order, and each trusts only what
// an earlier one wrote:
//
//	watchword.strip      removes the headers that only we may set
//	watchword.guard      refuses paths and hosts that can be read in two ways
//	watchword.route      names the route of the ruleset that the request belongs to
//	watchword.select     keeps that name as filter state, where jwt_authn looks it up
//	watchword.jwt        verifies the token that the route asks for
//	watchword.deny       applies the rules that refuse
//	watchword.allow      lets through what the route allows, and nothing else
//	watchword.identity   tells the service who called
//
// watchword.allow is the second lock: it does not believe that jwt_authn ran,
// but wants to see its mark. So a request without a route, a requirement that
// is missing from a map, or a token that a provider of another route verified
// ends there.
//
// Everything here is a function of its arguments: no clock, no input or output,
// and equal input gives equal bytes.
package envoy

import (
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// Type URLs of the resources, as in a DiscoveryRequest.
const (
	ClusterType         = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	ExtensionConfigType = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig"
	ListenerType        = "type.googleapis.com/envoy.config.listener.v3.Listener"
)

// Resource is one xDS resource, encoded. Equal rulesets give equal bytes.
type Resource struct {
	TypeURL string
	Name    string
	Body    []byte
}

// InboundName is the name of the ECDS resource, and of the HTTP filter, that
// verifies and authorizes the requests of a service.
func InboundName(service string) string { return "mesh.inbound/" + service }

// RevokedName is the name of the ECDS resource, and of the HTTP filter, that
// refuses what was revoked.
func RevokedName(service string) string { return "mesh.revoked/" + service }

// ListenerName is the name of the listener of a managed Envoy.
func ListenerName(service string) string { return "inbound/" + service }

// ClusterName is the name of the cluster of a managed Envoy that holds the
// service itself.
func ClusterName(service string) string { return "local/" + service }

// Resources translates a ruleset. The resources are in the order in which they
// can be sent, each needing only earlier ones: cluster, extension configs,
// listener. Cluster and listener are there only if the ruleset has an Inbound.
//
// An error means that Envoy would refuse the ruleset, or enforce less than it
// says; it names the route and the rule.
func Resources(rs *dataplanev1.Ruleset) ([]Resource, error) {
	if err := check(rs); err != nil {
		return nil, fmt.Errorf("service %q: %w", rs.GetService(), err)
	}
	rss, err := resources(rs)
	if err != nil {
		return nil, fmt.Errorf("service %q: encoding for Envoy: %w", rs.GetService(), err)
	}
	return rss, nil
}

func resources(rs *dataplanev1.Ruleset) ([]Resource, error) {
	var out []Resource
	add := func(typeURL, name string, m proto.Message, err error) error {
		if err != nil {
			return err
		}
		body, err := marshal.Marshal(m)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, Resource{TypeURL: typeURL, Name: name, Body: body})
		return nil
	}

	service := rs.GetService()
	if in := rs.GetInbound(); in != nil {
		c, err := localCluster(service, in)
		if err := add(ClusterType, ClusterName(service), c, err); err != nil {
			return nil, err
		}
	}
	chain, err := extension(inboundChain(rs))
	if err := add(ExtensionConfigType, InboundName(service), chain, err); err != nil {
		return nil, err
	}
	revoked, err := extension(revokedFilter(service))
	if err := add(ExtensionConfigType, RevokedName(service), revoked, err); err != nil {
		return nil, err
	}
	if in := rs.GetInbound(); in != nil {
		l, err := inboundListener(service, in)
		if err := add(ListenerType, ListenerName(service), l, err); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// What the type URLs stand for, so that a renamed proto fails to compile.
var (
	_ = (*clusterv3.Cluster)(nil)
	_ = (*listenerv3.Listener)(nil)
)

var marshal = proto.MarshalOptions{Deterministic: true}

// pack is anypb.New with the maps inside in a fixed order.
func pack(m proto.Message) (*anypb.Any, error) {
	a := new(anypb.Any)
	if err := anypb.MarshalFrom(a, m, marshal); err != nil {
		return nil, fmt.Errorf("%s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return a, nil
}

// extension wraps the config of a filter or another extension of Envoy.
func extension(name string, m proto.Message, err error) (*corev3.TypedExtensionConfig, error) {
	if err != nil {
		return nil, err
	}
	a, err := pack(m)
	if err != nil {
		return nil, err
	}
	return &corev3.TypedExtensionConfig{Name: name, TypedConfig: a}, nil
}
