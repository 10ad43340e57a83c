package policy

import (
	"net/netip"
	"slices"
	"time"

	"github.com/watchword-mesh/watchword/internal/identity"
	"github.com/watchword-mesh/watchword/internal/jose"
	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// What the lease of a service may be. A shorter one would end with each restart of a
// control plane, a longer one bounds nothing that an operator waits for.
const (
	LeastLease = 30 * time.Second
	MostLease  = time.Hour
)

func (c *checker) service(s *policyv1.ServiceSpec) {
	if c.key.Name == AdminAudience {
		c.fault("metadata.name", "%q stands for the admin API; choose another name", AdminAudience)
	}
	c.serviceAudiences(s)
	c.serviceHosts(s)
	c.endpoints(s.GetEndpoints())
	names := map[string]bool{}
	for i, r := range s.GetRoutes() {
		c.route(index("spec.routes", i), r, s.GetRoutes()[:i])
		if names[r.GetName()] {
			c.fault(index("spec.routes", i)+".name", "%q is given twice", r.GetName())
		}
		names[r.GetName()] = true
	}
	c.inbound(s.GetInbound())
	c.outbound(s.GetOutbound(), s.GetInbound())
	c.calls(s.GetCalls())
	c.seconds("spec.lease", s.GetLease(), LeastLease, MostLease)
	for i, d := range s.GetDataPlanes() {
		if slices.Index(s.GetDataPlanes(), d) < i {
			c.fault(index("spec.dataPlanes", i), "%s is given twice", d)
		}
	}
	c.selfIssued(s.GetSelfIssued())
	c.bootstrap(s.GetBootstrap())
}

func (c *checker) selfIssued(s *policyv1.SelfIssued) {
	if s == nil {
		return
	}
	field, iss := "spec.selfIssued", c.state.subject(c.key.Name)
	if s.GetIssuer() != "" {
		field, iss = "spec.selfIssued.issuer", s.GetIssuer()
	}
	c.issuerClaim(field, iss)
	switch s.GetKeySet().GetSource().(type) {
	case nil:
		c.fault("spec.selfIssued.keySet", "is missing: give jwks or pem")
	case *policyv1.KeySet_Builtin, *policyv1.KeySet_JwksUri, *policyv1.KeySet_Secret:
		c.fault("spec.selfIssued.keySet", "wants public keys: give jwks or pem")
	default:
		if c.fresh() {
			keys, faults := SelfIssuedKeys(s)
			c.add(faults)
			c.ownKeys(keys)
		}
	}
}

// ownKeys refuses a key that another service signs with, too: each could sign for
// the other.
func (c *checker) ownKeys(keys []jose.Key) {
	if c.signers == nil {
		c.signers = map[string][]string{}
		for _, name := range c.services {
			if s := c.state.Service(name).GetSelfIssued(); s != nil {
				public, _ := SelfIssuedKeys(s)
				for _, k := range public {
					c.signers[k.Thumbprint()] = append(c.signers[k.Thumbprint()], name)
				}
			}
		}
	}
	for _, k := range keys {
		for _, other := range c.signers[k.Thumbprint()] {
			if other != c.key.Name {
				c.fault("spec.selfIssued.keySet", "Service %q signs with the same key (kid %q), so that each could sign for the other: give each its own", other, k.ID())
				break
			}
		}
	}
}

// subject is the SPIFFE ID of a service, or "" where the mesh has no trust
// domain yet.
func (s State) subject(service string) string {
	domain := s.Issuer(BuiltinIssuer).GetKeySet().GetBuiltin().GetTrustDomain()
	if domain == "" {
		return ""
	}
	return "spiffe://" + domain + "/" + service
}

// serviceAudiences: a token for one service must not be one for another.
func (c *checker) serviceAudiences(s *policyv1.ServiceSpec) {
	if len(s.GetAudiences()) == 0 && (!identity.IsName(c.key.Name) || c.key.Name == AdminAudience) {
		return // a fault of the name alone
	}
	for i, aud := range Audiences(c.key.Name, s) {
		field := "spec"
		if len(s.GetAudiences()) > 0 {
			field = index("spec.audiences", i)
		}
		c.audience(field, aud)
		if owner := c.audiences[SameAudience(aud)]; owner == c.key.Name {
			c.fault(field, "%q is given twice (http://, https:// and a slash at the end make no difference to data planes)", clip(aud))
		} else if owner != "" {
			c.fault(field, "the audience %q belongs to Service %q already; a token for one service would be valid at the other", clip(aud), owner)
		} else {
			c.audiences[SameAudience(aud)] = c.key.Name
		}
	}
}

func (c *checker) route(field string, r *policyv1.Route, earlier []*policyv1.Route) {
	if !identity.IsName(r.GetName()) {
		c.fault(field+".name", "%q is not a name: lower-case letters, digits and dashes", clip(r.GetName()))
	}
	if len(r.GetHosts())+len(r.GetPaths())+len(r.GetMethods()) == 0 {
		c.fault(field, "matches every request: give hosts, paths or methods, or target the service itself")
		return
	}
	c.requests(field, requestList{"hosts", r.GetHosts()}, requestList{"paths", r.GetPaths()}, requestList{"methods", r.GetMethods()})
	for _, e := range earlier {
		if covers(e, r) {
			c.fault(field, "can never match: route %q before it matches the same requests", e.GetName())
			return
		}
	}
}

// covers says whether every request that b matches is matched by a.
func covers(a, b *policyv1.Route) bool {
	return covered(b.GetHosts(), a.GetHosts(), hostCovers) &&
		covered(b.GetPaths(), a.GetPaths(), pathCovers) &&
		covered(b.GetMethods(), a.GetMethods(), func(a, b string) bool { return a == b })
}

// covered: each entry of list is covered by one of by; an empty list stands
// for everything.
func covered(list, by []string, one func(a, b string) bool) bool {
	if len(by) == 0 {
		return true
	}
	for _, b := range list {
		found := false
		for _, a := range by {
			found = found || one(a, b)
		}
		if !found {
			return false
		}
	}
	return len(list) > 0
}

func hostCovers(a, b string) bool {
	return a == b || (len(a) > 2 && a[0] == '*' && len(b) > len(a)-1 && b[len(b)-len(a)+1:] == a[1:])
}

func pathCovers(a, b string) bool {
	if a == b {
		return true
	}
	n := len(a) - 1
	return n > 0 && a[n] == '*' && len(b) >= n && b[:n] == a[:n]
}

func (c *checker) inbound(in *policyv1.Inbound) {
	if in == nil {
		return
	}
	if _, err := netip.ParseAddr(in.GetAddress()); in.GetAddress() != "" && err != nil {
		c.fault("spec.inbound.address", "%q is not an IP address", clip(in.GetAddress()))
	}
	if in.GetPort() == 0 || in.GetPort() > 65535 {
		c.fault("spec.inbound.port", "wants a port from 1 to 65535")
	}
	if a, err := netip.ParseAddrPort(in.GetLocalAddress()); err != nil || a.Port() == 0 {
		c.fault("spec.inbound.localAddress", `%q is not where the service listens: IP:PORT, such as "127.0.0.1:8080"`, clip(in.GetLocalAddress()))
	}
}

func (c *checker) calls(calls []*policyv1.Call) {
	seen := map[string]bool{}
	for i, call := range calls {
		field := index("spec.calls", i)
		if c.state.Service(call.GetService()) == nil {
			c.fault(field+".service", "there is no Service %q", clip(call.GetService()))
		}
		if seen[call.GetService()] {
			c.fault(field+".service", "%q is given twice; put all scopes into one entry", clip(call.GetService()))
		}
		seen[call.GetService()] = true
		c.texts(field+".scopes", call.GetScopes(), scopeToken, `a scope: printable ASCII without blanks, " and \`)
	}
}
