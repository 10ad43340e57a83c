package envoy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/watchword-mesh/watchword/internal/identity"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// Type URLs of what the outbound side needs besides.
const (
	RouteType  = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	SecretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
)

// What they stand for, so that a renamed proto fails to compile.
var (
	_ = (*routev3.RouteConfiguration)(nil)
	_ = (*tlsv3.Secret)(nil)
)

// OutboundName is the name of the listener of a managed Envoy that takes the
// service's own requests, and of the routes that it looks them up in.
func OutboundName(service string) string { return "outbound/" + service }

// CalleeName is the name of the cluster of a managed Envoy that holds the data
// planes of a callee.
func CalleeName(callee string) string { return "callee/" + callee }

// TokenSecret is the name of the SDS secret that holds a token for an audience.
func TokenSecret(audience string) string { return "token/" + audience }

// OutboundResources translates what a service calls others with. Without a
// listener there are none: nothing would use them. The order is that of
// Resources.
//
// The routes and the clusters are resources of their own, so that a change of
// the callees disturbs no connection of the service. A request for a host that
// no callee has is refused; one for a callee gets a token for its audience,
// whatever Authorization it came with, and none of the headers that tell a
// service who called. The token is the secret TokenSecret, over ADS; while it
// is missing or empty the request is refused (401).
//
// A token leaves the host only over TLS, to an instance of the callee by the
// SPIFFE ID in its certificate of the mesh. So a callee that speaks plain text gets requests
// only at a loopback address. A callee without endpoints gets none: Envoy would
// have to take the port from the request, which no cluster does.
//
// If the callee refuses the token, Envoy does not try again with a new one, as
// other data planes do once: a retry of Envoy's has the same token, since there
// is no newer one before the control plane pushes it. It pushes one when half of
// the last one's life is over, and when its key is gone.
//
// The certificate comes from the agent of BootstrapIdentity.SDSSocket. An Envoy
// that has its identity from a folder refuses the clusters.
//
// An error means that a token could go where it must not, or that Envoy would
// refuse the resources.
func OutboundResources(o *dataplanev1.Outbound) ([]Resource, error) {
	if o.GetListener() == nil {
		return nil, nil
	}
	if err := checkOutbound(o); err != nil {
		return nil, fmt.Errorf("outbound side of service %q: %w", o.GetService(), err)
	}
	rss, err := outboundResources(o)
	if err != nil {
		return nil, fmt.Errorf("outbound side of service %q: encoding for Envoy: %w", o.GetService(), err)
	}
	return rss, nil
}

func outboundResources(o *dataplanev1.Outbound) ([]Resource, error) {
	var out []Resource
	add := func(typeURL, name string, m proto.Message, err error) error {
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		body, err := marshal.Marshal(m)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, Resource{TypeURL: typeURL, Name: name, Body: body})
		return nil
	}
	for _, c := range o.GetCallees() {
		if unreachable(c) != "" {
			continue
		}
		cluster, err := calleeCluster(c)
		if err := add(ClusterType, CalleeName(c.GetService()), cluster, err); err != nil {
			return nil, err
		}
	}
	name := OutboundName(o.GetService())
	if err := add(RouteType, name, outboundRoutes(o), nil); err != nil {
		return nil, err
	}
	l, err := outboundListener(o)
	if err := add(ListenerType, name, l, err); err != nil {
		return nil, err
	}
	return out, nil
}

// unreachable says why Envoy sends nothing to a callee, and what to do about it;
// empty if it does.
func unreachable(c *dataplanev1.Callee) string {
	if len(c.GetEndpoints()) == 0 {
		return fmt.Sprintf("service %s has no endpoints: set spec.endpoints of the Service", c.GetService())
	}
	if c.GetSpiffeId() == "" && !allLoopback(c.GetEndpoints()) {
		return fmt.Sprintf("service %s has endpoints off this host without the TLS of the mesh, over which no token goes: set spec.inbound.tls of the Service to MESH", c.GetService())
	}
	return ""
}

// allLoopback looks at addresses only: what a name stands for, even localhost,
// another decides.
func allLoopback(endpoints []string) bool {
	return !slices.ContainsFunc(endpoints, func(e string) bool {
		host, _, err := net.SplitHostPort(e)
		return err != nil || !isLoopback(host)
	})
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

func checkOutbound(o *dataplanev1.Outbound) error {
	var errs []error
	if o.GetService() == "" {
		errs = append(errs, errors.New("the service is not named"))
	}
	l := o.GetListener()
	if !isLoopback(l.GetAddress()) {
		errs = append(errs, fmt.Errorf("the listener's address %q is not a loopback address: whoever reaches it is the service", l.GetAddress()))
	}
	if l.GetPort() == 0 || l.GetPort() > 65535 {
		errs = append(errs, fmt.Errorf("the listener's port %d is not one of TCP", l.GetPort()))
	}
	callees, hosts := map[string]bool{}, map[string]bool{}
	for _, c := range o.GetCallees() {
		errs = append(errs, once(callees, "callee", c.GetService()), within(checkCallee(c, hosts), "callee %q", c.GetService()))
	}
	return errors.Join(errs...)
}

func checkCallee(c *dataplanev1.Callee, hosts map[string]bool) error {
	var errs []error
	if c.GetService() == "" || c.GetAudience() == "" {
		errs = append(errs, errors.New("its service or its audience is not named"))
	}
	if hasControls(c.GetService(), c.GetAudience(), c.GetSpiffeId()) {
		errs = append(errs, errors.New("it has control characters"))
	}
	if len(c.GetHosts()) == 0 {
		errs = append(errs, errors.New("no host stands for it"))
	}
	for _, h := range c.GetHosts() {
		if h == "" || h != strings.ToLower(h) || strings.ContainsAny(h, "*/ ") || hasControls(h) {
			errs = append(errs, fmt.Errorf("%q is not the name of a host in lower case", h))
		}
		errs = append(errs, once(hosts, "host", h))
	}
	if _, err := identity.Parse(c.GetSpiffeId()); err != nil && c.GetSpiffeId() != "" {
		errs = append(errs, err)
	}
	for _, e := range c.GetEndpoints() {
		if _, port, err := hostPort(e); err != nil || port == 0 {
			errs = append(errs, fmt.Errorf("endpoint %q is not HOST:PORT", e))
		}
	}
	return errors.Join(errs...)
}
