// Package envoy translates a ruleset into what Envoy understands.
//
// A service has three resources that Envoy fetches over ECDS, one per HTTP
// filter: mesh.inbound/SERVICE, a filter chain that verifies and authorizes,
// mesh.revoked/SERVICE, which looks at what was verified and refuses what
// was revoked, and mesh.lease, which refuses everything when the control plane was
// not heard of for too long. They are three so that a revocation, and a renewal,
// push a small one alone.
// Nothing about keys or policies travels in listeners, because connections
// that are open keep the listener that they came through.
//
// A service whose Envoy is managed has a listener and a cluster besides, which
// do nothing but hold those filters and forward to the service. If it is to
// take the service's own requests too, it has a second listener, its routes, and
// a cluster for each service that is called ([OutboundResources]).
//
// # The chain
//
// The filters of mesh.inbound run in this order, and each trusts only what
// an earlier one wrote. Those that a ruleset has no need of are left out.
//
//	watchword.refusal         on the way back: gives refusals status, body and headers
//	watchword.strip           removes the headers that only we may set
//	watchword.guard           refuses paths and hosts that can be read in two ways
//	watchword.route           finds the route of the ruleset
//	watchword.select.route    keeps its name as filter state, where matchers look it up
//	watchword.treatment       finds the treatment that routes share (see below)
//	watchword.token           puts tokens where Envoy can read them, finds the key claim
//	watchword.select          keeps what jwt_authn looks its requirements up by
//	watchword.observed.jwt.N  verifies, for what is only observed
//	watchword.jwt.N           verifies
//	watchword.permissive*     make a token count as none, where the mode lets all in
//	watchword.results         copies what they found into filter state
//	watchword.consumer        finds the consumer
//	watchword.signer          finds who signed the token
//	watchword.revocable       keeps that, and what of the token can be revoked, for mesh.revoked
//	watchword.attribute.H     finds what of the consumer goes into header H
//	watchword.verify          refuses what was not verified as the mode asks for
//	watchword.claims          refuses by the claims of the token
//	watchword.deny            applies the rules that refuse
//	watchword.allow           finds out whether the route allows the request
//	watchword.authorize       refuses what it does not
//	watchword.observed.*      record what would have been refused
//	watchword.output          puts claims into headers
//	watchword.output.script   takes tokens out; claims into query, cookies and forms
//	watchword.identity        tells the service who called
//
// # What decides
//
// jwt_authn refuses nothing: each list of its providers ends with one whose
// token, our own, always verifies. It leaves in the metadata which rule has
// verified the token, its claims, and why the other rules have not. RBAC filters
// decide from that, and their policies (or the actions of their matchers) have
// the reason words as names, which is how a word gets into response code details,
// into metadata and, by watchword.refusal, to the caller. The RBAC filters with
// shadow rules alone decide nothing: the name of what matches is a fact for those
// behind them.
//
// watchword.allow is the second lock: it does not believe that jwt_authn or
// watchword.verify ran, but wants to see the mark of one of the route's own
// rules. So a request without a route, a requirement that is missing from a map,
// or a token that a provider of another route verified ends there.
//
// # Treatments, places and marks
//
// What is done about the token of a request (authentication, observed
// authentication, responses) is its treatment; routes that do the same share one.
// A rule at a position of a treatment is a place. Places with equal rules at equal
// positions have one mark, the number under which the metadata say that this rule
// has verified the token, and so one provider and one cache. The rules of a
// treatment are spread over several jwt_authn only where one of them has to look
// its key up first, among the credentials of many.
//
// # Scripts
//
// Lua runs where Envoy has nothing else: for refusals (RBAC knows 403 alone, and
// local_reply_config is part of a listener, which must not change), to read tokens
// and key claims that jwt_authn can't, and to change the query, cookies and forms.
// No script grants anything: what watchword.token says only selects what a token
// has to verify with. Texts of users get into scripts by luaString alone.
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
// listener. Cluster and listener are there only if the ruleset has an Inbound, and
// mesh.lease only if it is not leased: else each data plane gets its own ([Lease]).
// mesh.revoked is as if nothing was revoked: see [Revoked].
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
	revoked, err := extension(revokedFilter(service, nil))
	if err := add(ExtensionConfigType, RevokedName(service), revoked, err); err != nil {
		return nil, err
	}
	if !rs.GetLeased() {
		open, err := Unleased()
		if err != nil {
			return nil, err
		}
		out = append(out, open)
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
