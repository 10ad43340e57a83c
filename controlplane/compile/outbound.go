package compile

import (
	"cmp"
	"slices"

	"github.com/watchword-mesh/watchword/controlplane/policy"
	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Outbound says what the instances of one service call others with. It returns nil
// if there is no such Service; one that calls nobody has no callees.
func Outbound(in Input, service string) *dataplanev1.Outbound {
	spec := in.State.Service(service)
	if spec == nil {
		return nil
	}
	out := &dataplanev1.Outbound{Service: service, Listener: listener(spec.GetOutbound())}
	for _, k := range in.Keys[policy.BuiltinIssuer] {
		out.SigningKeys = append(out.SigningKeys, k.ID())
	}
	slices.Sort(out.SigningKeys)
	for _, call := range spec.GetCalls() {
		if to := in.State.Service(call.GetService()); to != nil {
			out.Callees = append(out.Callees, callee(call.GetService(), to, in.Subject))
		}
	}
	slices.SortFunc(out.Callees, func(a, b *dataplanev1.Callee) int { return cmp.Compare(a.GetService(), b.GetService()) })
	out.Callees = slices.CompactFunc(out.Callees, func(a, b *dataplanev1.Callee) bool { return a.GetService() == b.GetService() })
	return out
}

// callee is all that callers are told of a service. The token endpoint takes each
// of its audiences; of several the first is asked for.
func callee(name string, spec *policyv1.ServiceSpec, subject func(service string) string) *dataplanev1.Callee {
	c := &dataplanev1.Callee{
		Service:   name,
		Audience:  policy.Audiences(name, spec)[0],
		Hosts:     policy.Hosts(name, spec),
		Endpoints: spec.GetEndpoints(),
	}
	if spec.GetInbound().GetTls() == policyv1.Inbound_MESH {
		c.SpiffeId = subject(name)
	}
	return c
}

func listener(o *policyv1.Outbound) *dataplanev1.OutboundListener {
	if o == nil {
		return nil
	}
	return &dataplanev1.OutboundListener{Address: cmp.Or(o.GetAddress(), defaultAddress), Port: o.GetPort()}
}
