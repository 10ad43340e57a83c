package envoy

import (
	"encoding/json"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
)

// What the outbound side answers itself, in the member "reason" of the body.
const (
	// calleeUnknown: the host is that of no service that this one may call.
	calleeUnknown = "callee_unknown"
	// calleeUnreachable: see unreachable.
	calleeUnreachable = "callee_unreachable"
)

// outboundRoutes finds the callee by the host, whatever port is named with it.
func outboundRoutes(o *dataplanev1.Outbound) *routev3.RouteConfiguration {
	config := &routev3.RouteConfiguration{Name: OutboundName(o.GetService()), IgnorePortInHostMatching: true}
	for _, c := range o.GetCallees() {
		r := calleeRoute(c)
		if why := unreachable(c); why != "" {
			r = answer(502, calleeUnreachable, why)
		}
		config.VirtualHosts = append(config.VirtualHosts, &routev3.VirtualHost{
			Name:    CalleeName(c.GetService()),
			Domains: c.GetHosts(),
			Routes:  []*routev3.Route{r},
		})
	}
	config.VirtualHosts = append(config.VirtualHosts, &routev3.VirtualHost{
		Name:    "unknown",
		Domains: []string{"*"},
		Routes: []*routev3.Route{answer(404, calleeUnknown,
			"this host is of no service that "+o.GetService()+" may call: name the service in spec.calls, and the host in spec.hosts of the one that is called")},
	})
	return config
}

// calleeRoute hands everything on, with the host that the service has named.
func calleeRoute(c *dataplanev1.Callee) *routev3.Route {
	return &routev3.Route{
		Match: everyPath(),
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: CalleeName(c.GetService())},
			Timeout:          durationpb.New(0), // as in localRoute
		}},
	}
}

func everyPath() *routev3.RouteMatch {
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
}

// answer is a response of Envoy's own. A caller over gRPC gets the status that
// stands for it, and the body as message.
func answer(status uint32, word, text string) *routev3.Route {
	body, err := json.Marshal(struct {
		Reason  string `json:"reason"`
		Message string `json:"message"`
	}{word, text})
	if err != nil { // two strings always encode
		body = nil
	}
	return &routev3.Route{
		Match: everyPath(),
		Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
			Status: status,
			Body:   &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: string(body)}},
		}},
		ResponseHeadersToAdd: []*corev3.HeaderValueOption{{
			Header:       &corev3.HeaderValue{Key: "content-type", Value: "application/json"},
			AppendAction: corev3.HeaderValueOption_ADD_IF_ABSENT, // gRPC has its own
		}},
	}
}
