package policy

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// reservedHeaderPrefix begins the headers that the mesh itself sets.
const reservedHeaderPrefix = "x-watchword-"

func (c *checker) header(field, name string) {
	switch {
	case !headerName.MatchString(name) || len(name) > 128:
		c.fault(field, "%q is not the name of a header", clip(name))
	case strings.HasPrefix(sameHeader(name), reservedHeaderPrefix):
		c.fault(field, "%q: names that begin with %s are the mesh's own", clip(name), reservedHeaderPrefix)
	}
}

// sameHeader folds what many servers read as one header: they hand headers on as
// variables (CGI, RFC 3875 section 4.1.18), where "_" and "-" are one.
func sameHeader(name string) string { return strings.ReplaceAll(strings.ToLower(name), "_", "-") }

// framing are headers that decide how a request is read; a claim must not.
var framing = []string{
	"host", "connection", "content-length", "content-type", "transfer-encoding", "te", "trailer", "upgrade",
	"proxy-connection", "keep-alive", "expect", "authorization", "cookie", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host",
}

// written is a place in the request that we write to: what the caller sent there
// is removed first.
type written struct{ kind, name string }

func writtenHeader(name string) written { return written{"header", sameHeader(name)} }

// tokenPlaces are the places where the rules of a policy look for tokens. Who
// wrote there would remove them.
func tokenPlaces(s *policyv1.AuthenticationPolicySpec) map[written]string {
	const why = "tokens are looked for there"
	out := map[written]string{}
	for _, r := range s.GetJwtRules() {
		for _, l := range r.GetFromHeaders() {
			out[writtenHeader(l.GetName())] = why
		}
		for kind, list := range map[string][]*policyv1.TokenLocation{"query": r.GetFromParams(), "cookie": r.GetFromCookies(), "form": r.GetFromForm()} {
			for _, l := range list {
				out[written{kind, l.GetName()}] = why
			}
		}
	}
	return out
}

// writes checks a place to write to against those that are taken, with why.
func (c *checker) writes(field string, to written, taken map[written]string) {
	if to.kind == "header" && slices.Contains(framing, to.name) {
		c.fault(field, "%q means something to proxies and servers; choose another name", to.name)
	}
	if why := taken[to]; why != "" {
		c.fault(field, "%q can't be written: %s", clip(to.name), why)
	}
}

// consumerHeaders checks the headers that name the consumer, and takes them.
func (c *checker) consumerHeaders(headers []*policyv1.ConsumerHeader, taken map[written]string) {
	var seen []written
	for i, h := range headers {
		field := index("spec.consumerHeaders", i)
		if h.GetAttribute() == policyv1.ConsumerHeader_ATTRIBUTE_UNSPECIFIED {
			c.fault(field+".attribute", "is missing: say what of the consumer the header has")
		}
		c.header(field+".header", h.GetHeader())
		to := writtenHeader(h.GetHeader())
		c.writes(field+".header", to, taken)
		if slices.Contains(seen, to) {
			c.fault(field+".header", "%q is given twice", to.name)
		}
		seen = append(seen, to)
	}
	for _, to := range seen {
		if taken[to] == "" {
			taken[to] = "it names the consumer"
		}
	}
}

// outputs checks where a rule copies claims to.
func (c *checker) outputs(field string, r *policyv1.JwtRule, taken map[written]string) {
	seen := map[written]bool{}
	once := func(at string, to written) {
		c.writes(at, to, taken)
		if seen[to] {
			c.fault(at, "%q is given twice", clip(to.name))
		}
		seen[to] = true
	}
	for i, o := range r.GetOutputClaims() {
		at := index(field+".outputClaims", i)
		c.claimPath(at+".claimPath", o.GetClaimPath())
		if kind, to := c.outputPlace(at, o); kind != "" {
			once(at+"."+kind, to)
		}
		if o.Override != nil && o.GetHeader() == "" {
			c.fault(at+".override", "is for headers only: elsewhere what the caller sent is always replaced")
		}
	}
	if h := r.GetOutputPayloadToHeader(); h != "" {
		c.header(field+".outputPayloadToHeader", h)
		once(field+".outputPayloadToHeader", writtenHeader(h))
	}
}

// outputPlace returns the one place of an output claim, with the field that
// names it; the field is empty where there is not exactly one.
func (c *checker) outputPlace(field string, o *policyv1.OutputClaim) (kind string, to written) {
	given := 0
	for _, p := range []struct{ kind, name, what string }{
		{"header", o.GetHeader(), ""},
		{"query", o.GetQuery(), "a query parameter"},
		{"cookie", o.GetCookie(), "a cookie"},
		{"form", o.GetForm(), "a form field"},
	} {
		if p.name == "" {
			continue
		}
		given++
		kind, to = p.kind, written{p.kind, p.name}
		if p.kind == "header" {
			c.header(field+".header", p.name)
			to = writtenHeader(p.name)
		} else if !headerName.MatchString(p.name) || len(p.name) > 128 {
			c.fault(field+"."+p.kind, "%q is not the name of %s", clip(p.name), p.what)
		}
	}
	if given != 1 {
		c.fault(field, "wants exactly one of header, query, cookie and form to copy the claim to")
		return "", written{}
	}
	return kind, to
}

// elsewhere refuses to write where another policy of a service looks for tokens:
// what callers send in a header, a query parameter or a cookie that is written is
// removed on all of its routes.
func (c *checker) elsewhere(s *policyv1.AuthenticationPolicySpec) {
	fields := writtenFields(s)
	if len(fields) == 0 {
		return
	}
	services := s.GetTarget().GetServices()
	if len(services) == 0 {
		services = c.services
	}
	told := map[string]bool{}
	for _, service := range services {
		others := c.policiesOf(service)
		if others[c.key.Name] == nil {
			continue
		}
		delete(others, c.key.Name)
		for _, name := range slices.Sorted(maps.Keys(others)) {
			looked := tokenPlaces(others[name])
			for _, to := range slices.SortedFunc(maps.Keys(fields), comparePlaces) {
				if field := fields[to]; looked[to] != "" && !told[field] {
					told[field] = true
					c.fault(field, "%q can't be written: AuthenticationPolicy %q looks for tokens there, on another route of Service %q", clip(to.name), name, service)
				}
			}
		}
	}
}

func comparePlaces(a, b written) int {
	return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.kind, b.kind))
}

// writtenFields are the places that a policy writes to on all routes of its
// services, with the fields that say so. Forms are not among them: those are
// changed only where the rule holds.
func writtenFields(s *policyv1.AuthenticationPolicySpec) map[written]string {
	out := map[written]string{}
	for i, h := range s.GetConsumerHeaders() {
		out[writtenHeader(h.GetHeader())] = index("spec.consumerHeaders", i) + ".header"
	}
	for i, r := range s.GetJwtRules() {
		field := index("spec.jwtRules", i)
		if h := r.GetOutputPayloadToHeader(); h != "" {
			out[writtenHeader(h)] = field + ".outputPayloadToHeader"
		}
		for j, o := range r.GetOutputClaims() {
			at := index(field+".outputClaims", j)
			switch {
			case o.GetHeader() != "":
				out[writtenHeader(o.GetHeader())] = at + ".header"
			case o.GetQuery() != "":
				out[written{"query", o.GetQuery()}] = at + ".query"
			case o.GetCookie() != "":
				out[written{"cookie", o.GetCookie()}] = at + ".cookie"
			}
		}
	}
	return out
}

// policiesOf returns the authentication policies that hold somewhere in a
// service, enforced or observed, by name.
func (c *checker) policiesOf(service string) map[string]*policyv1.AuthenticationPolicySpec {
	out := map[string]*policyv1.AuthenticationPolicySpec{}
	spec := c.state.Service(service)
	if spec == nil {
		return out
	}
	for _, route := range routeNames(spec) {
		enforced, observed := c.policies.AuthenticationFor(service, route)
		for _, p := range []AuthenticationPolicy{enforced, observed} {
			if p.Name != "" {
				out[p.Name] = p.Spec
			}
		}
	}
	return out
}
