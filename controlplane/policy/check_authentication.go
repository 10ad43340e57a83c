package policy

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Bounds of a JwtRule. Envoy can't do a clock skew below one second.
const (
	leastSkew, mostSkew         = time.Second, 10 * time.Minute
	leastLifetime, mostLifetime = time.Second, 10 * 365 * 24 * time.Hour
)

func (c *checker) authentication(s *policyv1.AuthenticationPolicySpec) {
	c.target(s.GetTarget())
	c.onlyTarget(s.GetTarget())
	off := s.GetMode() == policyv1.AuthenticationPolicySpec_OFF
	if off && len(s.GetJwtRules()) > 0 {
		c.fault("spec.jwtRules", "can never match: with mode OFF tokens are not looked at")
	}
	if !off && len(s.GetJwtRules()) == 0 {
		c.fault("spec.jwtRules", "is empty: no request could get in. Name an issuer, or set mode OFF")
	}
	for i, r := range s.GetJwtRules() {
		field := index("spec.jwtRules", i)
		c.jwtRule(field, r, s.GetTarget())
		if j := slices.IndexFunc(s.GetJwtRules()[:i], func(e *policyv1.JwtRule) bool { return shadows(e, r) }); j >= 0 {
			c.fault(field, "can never win: %s before it accepts the same tokens from the same places", index("jwtRules", j))
		}
	}
}

// onlyTarget refuses two policies for one place: which of them would hold?
func (c *checker) onlyTarget(t *policyv1.Target) {
	services, routes := t.GetServices(), t.GetRoutes()
	if len(services) == 0 {
		services = []string{""}
	}
	if len(routes) == 0 {
		routes = []string{""}
	}
	for _, s := range services {
		for _, r := range routes {
			place := [2]string{s, r}
			if other := c.targets[place]; other != "" && other != c.key.Name {
				c.fault("spec.target", "AuthenticationPolicy %q has the same target (%s); only one can hold there", other, describeTarget(s, r))
				return
			}
			c.targets[place] = c.key.Name
		}
	}
}

func describeTarget(service, route string) string {
	switch {
	case service == "":
		return "the whole mesh"
	case route == "":
		return "service " + service
	}
	return "route " + route + " of service " + service
}

func (c *checker) jwtRule(field string, r *policyv1.JwtRule, t *policyv1.Target) {
	issuer := c.state.Issuer(r.GetIssuer())
	if issuer == nil {
		c.fault(field+".issuer", "there is no Issuer %q", clip(r.GetIssuer()))
	}
	for i, aud := range r.GetAudiences() {
		c.audience(index(field+".audiences", i), aud)
		c.once(field+".audiences", r.GetAudiences(), i)
	}
	if issuer.GetKeySet().GetBuiltin() != nil {
		c.ownAudiences(field, r, t)
	} else if issuer != nil && len(r.GetAudiences()) == 0 {
		c.fault(field+".audiences", "is missing: name what the issuer puts into \"aud\" for this service")
	}
	c.locations(field, r)
	c.seconds(field+".clockSkew", r.GetClockSkew(), leastSkew, mostSkew)
	c.seconds(field+".maxLifetime", r.GetMaxLifetime(), leastLifetime, mostLifetime)
	c.outputClaims(field, r.GetOutputClaims())
}

// ownAudiences holds a service to its own audiences with the built-in issuer:
// else a token for one service would be good at another.
func (c *checker) ownAudiences(field string, r *policyv1.JwtRule, t *policyv1.Target) {
	if len(r.GetAudiences()) > 0 && len(t.GetServices()) == 0 {
		c.fault(field+".audiences", "leave it out for the built-in issuer: each service takes its own audiences")
		return
	}
	for i, aud := range r.GetAudiences() {
		for _, name := range t.GetServices() {
			if spec := c.state.Service(name); spec != nil && !slices.Contains(Audiences(name, spec), aud) {
				c.fault(index(field+".audiences", i), "%q is not an audience of Service %q, so that no token of the built-in issuer for it carries it", clip(aud), name)
			}
		}
	}
}

func (c *checker) locations(field string, r *policyv1.JwtRule) {
	for i, h := range r.GetFromHeaders() {
		at := index(field+".fromHeaders", i)
		c.header(at+".name", h.GetName())
		if strings.ContainsFunc(h.GetPrefix(), func(r rune) bool { return r < ' ' || r > '~' }) {
			c.fault(at+".prefix", "%q has characters that a header can't carry", clip(h.GetPrefix()))
		}
	}
	c.texts(field+".fromParams", locationNames(r.GetFromParams()), headerName, "the name of a query parameter")
	c.texts(field+".fromCookies", locationNames(r.GetFromCookies()), headerName, "the name of a cookie")
}

func locationNames(list []*policyv1.TokenLocation) []string {
	var out []string
	for _, l := range list {
		out = append(out, l.GetName())
	}
	return out
}

// ReservedHeaderPrefix begins the headers that the mesh itself sets.
const ReservedHeaderPrefix = "x-watchword-"

func (c *checker) header(field, name string) {
	switch {
	case !headerName.MatchString(name) || len(name) > 128:
		c.fault(field, "%q is not the name of a header", clip(name))
	// Many servers read "_" and "-" as one.
	case strings.HasPrefix(strings.ReplaceAll(strings.ToLower(name), "_", "-"), ReservedHeaderPrefix):
		c.fault(field, "%q: names that begin with %s are the mesh's own", clip(name), ReservedHeaderPrefix)
	}
}

// framing are headers that decide how a request is read; a claim must not.
var framing = []string{
	"host", "connection", "content-length", "content-type", "transfer-encoding", "te", "trailer", "upgrade",
	"proxy-connection", "keep-alive", "expect", "authorization", "cookie", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host",
}

func (c *checker) outputClaims(field string, claims []*policyv1.OutputClaim) {
	var seen []string
	for i, o := range claims {
		at := index(field+".outputClaims", i)
		c.claimPath(at+".claimPath", o.GetClaimPath())
		c.header(at+".header", o.GetHeader())
		name := strings.ToLower(o.GetHeader())
		if slices.Contains(framing, name) {
			c.fault(at+".header", "%q means something to proxies and servers; choose another name", name)
		}
		if slices.Contains(seen, name) {
			c.fault(at+".header", "%q is given twice", name)
		}
		seen = append(seen, name)
	}
}

func (c *checker) claimPath(field string, path []string) {
	if len(path) == 0 || len(path) > 8 || slices.Contains(path, "") {
		c.fault(field, "wants the names of the claim from the outside in, one to eight, none empty")
	}
}

// shadows says whether every token that b could verify is verified by a.
func shadows(a, b *policyv1.JwtRule) bool {
	if a.GetIssuer() != b.GetIssuer() || !proto.Equal(a.GetMaxLifetime(), b.GetMaxLifetime()) || !proto.Equal(a.GetClockSkew(), b.GetClockSkew()) {
		return false
	}
	within := func(list, by []string) bool {
		return !slices.ContainsFunc(list, func(s string) bool { return !slices.Contains(by, s) })
	}
	audiences := len(a.GetAudiences()) == 0 || (len(b.GetAudiences()) > 0 && within(b.GetAudiences(), a.GetAudiences()))
	return audiences && within(places(b), places(a))
}

// places lists where a rule looks for tokens.
func places(r *policyv1.JwtRule) []string {
	var out []string
	for _, h := range r.GetFromHeaders() {
		out = append(out, "header "+strings.ToLower(h.GetName())+" "+h.GetPrefix())
	}
	for _, p := range r.GetFromParams() {
		out = append(out, "param "+p.GetName()+" "+p.GetPrefix())
	}
	for _, p := range r.GetFromCookies() {
		out = append(out, "cookie "+p.GetName()+" "+p.GetPrefix())
	}
	if len(out) == 0 {
		out = []string{"header authorization Bearer "}
	}
	return out
}
