package compile

import (
	"cmp"
	"net/netip"

	dataplanev1 "github.com/watchword-mesh/watchword/proto/watchword/dataplane/v1"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

func requests(r *policyv1.Route) *dataplanev1.RequestMatch {
	return &dataplanev1.RequestMatch{Hosts: r.GetHosts(), Paths: r.GetPaths(), Methods: r.GetMethods()}
}

func operation(o *policyv1.Operation) *dataplanev1.RequestMatch {
	return &dataplanev1.RequestMatch{
		Hosts: o.GetHosts(), Paths: o.GetPaths(), Methods: o.GetMethods(),
		NotHosts: o.GetNotHosts(), NotPaths: o.GetNotPaths(), NotMethods: o.GetNotMethods(),
	}
}

// defaultAddress is where listeners are whose address is not given.
const defaultAddress = "127.0.0.1"

// inbound splits the local address, which Check has found well-formed.
func inbound(in *policyv1.Inbound) *dataplanev1.Inbound {
	if in == nil {
		return nil
	}
	local, err := netip.ParseAddrPort(in.GetLocalAddress())
	if err != nil {
		return nil
	}
	return &dataplanev1.Inbound{
		Address:   cmp.Or(in.GetAddress(), defaultAddress),
		Port:      in.GetPort(),
		LocalIp:   local.Addr().String(),
		LocalPort: uint32(local.Port()),
		Protocol:  protocols[in.GetProtocol()],
		Tls:       in.GetTls() == policyv1.Inbound_MESH,
	}
}

var protocols = map[policyv1.Inbound_Protocol]dataplanev1.Inbound_Protocol{
	policyv1.Inbound_HTTP1: dataplanev1.Inbound_HTTP1,
	policyv1.Inbound_HTTP2: dataplanev1.Inbound_HTTP2,
}
