package policy

import (
	"slices"
	"strings"
	"time"

	policyv1 "github.com/watchword-mesh/watchword/proto/watchword/policy/v1"
)

// Bounds of a JwtRule.
const (
	leastSkew, mostSkew         = 0, 10 * time.Minute
	leastLifetime, mostLifetime = time.Second, 10 * 365 * 24 * time.Hour
)

func (c *checker) jwtRule(field string, r *policyv1.JwtRule, t *policyv1.Target) {
	c.signer(field, r)
	for i, aud := range r.GetAudiences() {
		c.audience(index(field+".audiences", i), aud)
		c.once(field+".audiences", r.GetAudiences(), i)
	}
	if c.own(r) {
		c.ownAudiences(field, r, t)
		c.ownChecks(field, r)
	} else {
		c.foreignAudiences(field, r)
	}
	c.locations(field, r)
	c.keyClaim(field, r)
	c.seconds(field+".clockSkew", r.GetClockSkew(), leastSkew, mostSkew)
	c.seconds(field+".maxLifetime", r.GetMaxLifetime(), leastLifetime, mostLifetime)
	if r.GetMaxLifetime() != nil && r.GetExpiration() == policyv1.TimeCheck_NOT_CHECKED {
		c.fault(field+".maxLifetime", "is counted to exp, which expiration: NOT_CHECKED does not look at")
	}
	c.requiredClaims(field+".requiredClaims", r.GetRequiredClaims())
}

// own says whether the tokens of a rule are signed by this mesh: by the
// built-in issuer, or by its services.
func (c *checker) own(r *policyv1.JwtRule) bool {
	return r.GetServices() != nil || c.state.Issuer(r.GetIssuer()).GetKeySet().GetBuiltin() != nil
}

// signer checks who signs: exactly one of issuer, consumers and services says.
func (c *checker) signer(field string, r *policyv1.JwtRule) {
	given := 0
	for _, there := range []bool{r.GetIssuer() != "", r.GetConsumers() != nil, r.GetServices() != nil} {
		if there {
			given++
		}
	}
	switch {
	case given == 0:
		c.fault(field, "does not say whose tokens: name an issuer, or give consumers or services")
	case given > 1:
		c.fault(field, "wants one of issuer, consumers and services: make a rule of each")
	}
	if r.GetIssuer() != "" && c.state.Issuer(r.GetIssuer()) == nil {
		c.fault(field+".issuer", "there is no Issuer %q", clip(r.GetIssuer()))
	}
	if r.GetConsumers() != nil {
		c.selector(field+".consumers", r.GetConsumers())
	}
}

func (c *checker) selector(field string, by *policyv1.ConsumerSelector) {
	given := 0
	for _, there := range []bool{len(by.GetNames()) > 0, len(by.GetMatchTags()) > 0, by.GetAll()} {
		if there {
			given++
		}
	}
	if given != 1 {
		c.fault(field, "wants exactly one of names, matchTags and all: true")
	}
	c.known(field+".names", KindConsumer, by.GetNames())
	for i, name := range by.GetNames() {
		if consumer := c.state.Consumer(name); consumer != nil && len(consumer.GetCredentials()) == 0 {
			c.fault(index(field+".names", i), "Consumer %q has no credentials that a token could be verified with", name)
		}
	}
	for i := range by.GetMatchTags() {
		c.once(field+".matchTags", by.GetMatchTags(), i)
	}
	c.oneOwner(field, c.policies.Selected(by))
}

// oneOwner refuses a credential key that two of the selected consumers have:
// whose would the token be?
func (c *checker) oneOwner(field string, consumers []string) {
	owner := map[string]string{}
	for _, name := range consumers {
		for _, credential := range c.state.Consumer(name).GetCredentials() {
			key := credential.GetKey()
			if other := owner[key]; key != "" && other != "" && other != name {
				c.fault(field, "the credential key %q is of Consumer %q and of Consumer %q: a token names its credential by it, so select them in two rules", clip(key), other, name)
				continue
			}
			owner[key] = name
		}
	}
}

// ownAudiences holds a service to its own audiences with tokens of the mesh:
// else a token for one service would be good at another.
func (c *checker) ownAudiences(field string, r *policyv1.JwtRule, t *policyv1.Target) {
	if len(r.GetAudiences()) > 0 && len(t.GetServices()) == 0 {
		c.fault(field+".audiences", "leave it out for %s: each service takes its own audiences", whose(r))
		return
	}
	for i, aud := range r.GetAudiences() {
		for _, name := range t.GetServices() {
			if spec := c.state.Service(name); spec != nil && !slices.Contains(Audiences(name, spec), aud) {
				c.fault(index(field+".audiences", i), "%q is not an audience of Service %q, so that no token of %s for it carries it", clip(aud), name, whose(r))
			}
		}
	}
}

// whose names the signer of a rule about tokens of the mesh.
func whose(r *policyv1.JwtRule) string {
	if r.GetServices() != nil {
		return "a self-issuing service"
	}
	return "the built-in issuer"
}

// ownChecks refuses to look away at tokens of the mesh, which pass all checks.
func (c *checker) ownChecks(field string, r *policyv1.JwtRule) {
	if r.GetAudienceCheck() == policyv1.JwtRule_UNCHECKED {
		c.fault(field+".audienceCheck", "can't be UNCHECKED for tokens of %s: one for any service would be good here", whose(r))
	}
	if e := r.GetExpiration(); e == policyv1.TimeCheck_IF_PRESENT || e == policyv1.TimeCheck_NOT_CHECKED {
		c.fault(field+".expiration", "can't be %s for tokens of %s", e, whose(r))
	}
	if n := r.GetNotBefore(); n == policyv1.TimeCheck_NOT_CHECKED {
		c.fault(field+".notBefore", "can't be %s for tokens of %s", n, whose(r))
	}
}

func (c *checker) foreignAudiences(field string, r *policyv1.JwtRule) {
	unchecked := r.GetAudienceCheck() == policyv1.JwtRule_UNCHECKED
	switch {
	case unchecked && len(r.GetAudiences()) > 0:
		c.fault(field+".audiences", "are not looked at with audienceCheck: UNCHECKED; leave out one of the two")
	case !unchecked && len(r.GetAudiences()) == 0 && (c.state.Issuer(r.GetIssuer()) != nil || r.GetConsumers() != nil):
		c.fault(field+".audiences", "is missing: name what the issuer puts into \"aud\" for this service, or set audienceCheck: UNCHECKED")
	}
}

func (c *checker) locations(field string, r *policyv1.JwtRule) {
	var headers []string
	for i, h := range r.GetFromHeaders() {
		at := index(field+".fromHeaders", i)
		c.header(at+".name", h.GetName())
		headers = append(headers, strings.ToLower(h.GetName())+" "+h.GetPrefix())
		if slices.Index(headers, headers[i]) < i {
			c.fault(at, "is given twice")
		}
		c.prefix(at+".prefix", h.GetPrefix(), "a header")
	}
	for _, l := range []struct {
		field, what string
		list        []*policyv1.TokenLocation
	}{
		{".fromParams", "a query parameter", r.GetFromParams()},
		{".fromCookies", "a cookie", r.GetFromCookies()},
		{".fromForm", "a form field", r.GetFromForm()},
	} {
		c.texts(field+l.field, locationNames(l.list), headerName, "the name of "+l.what)
		for i, p := range l.list {
			c.prefix(index(field+l.field, i)+".prefix", p.GetPrefix(), l.what)
		}
	}
}

func (c *checker) prefix(field, prefix, what string) {
	if len(prefix) > 128 || strings.ContainsFunc(prefix, func(r rune) bool { return r < ' ' || r > '~' }) {
		c.fault(field, "%q has characters that %s can't carry, or is longer than 128", clip(prefix), what)
	}
}

func locationNames(list []*policyv1.TokenLocation) []string {
	var out []string
	for _, l := range list {
		out = append(out, l.GetName())
	}
	return out
}

func (c *checker) keyClaim(field string, r *policyv1.JwtRule) {
	k := r.GetKeyClaim()
	if k == nil {
		return
	}
	field += ".keyClaim"
	if r.GetConsumers() == nil {
		c.fault(field, "is for consumers only: it says which credential a token is signed with")
	}
	c.claimName(field+".name", k.GetName())
	for i, s := range k.GetSources() {
		if slices.Index(k.GetSources(), s) < i {
			c.fault(index(field+".sources", i), "%s is given twice", s)
		}
	}
}

func (c *checker) claimName(field, name string) {
	if name == "" || len(name) > 256 || hasControl(name) {
		c.fault(field, "%q is not the name of a claim: one to 256 bytes, no control characters", clip(name))
	}
}

func (c *checker) requiredClaims(field string, names []string) {
	for i, name := range names {
		c.claimName(index(field, i), name)
		c.once(field, names, i)
		if other := map[string]string{"exp": "expiration", "nbf": "notBefore"}[name]; other != "" {
			c.fault(index(field, i), "say it with %s: REQUIRED", other)
		}
	}
}

func (c *checker) claimPath(field string, path []string) {
	if len(path) == 0 || len(path) > 8 || slices.Contains(path, "") {
		c.fault(field, "wants the names of the claim from the outside in, one to eight, none empty")
	}
}

// places lists where a rule looks for tokens, sorted.
func places(r *policyv1.JwtRule) []string {
	var out []string
	for _, h := range r.GetFromHeaders() {
		out = append(out, "header "+strings.ToLower(h.GetName())+" "+h.GetPrefix())
	}
	for what, list := range map[string][]*policyv1.TokenLocation{"param": r.GetFromParams(), "cookie": r.GetFromCookies(), "form": r.GetFromForm()} {
		for _, l := range list {
			out = append(out, what+" "+l.GetName()+" "+l.GetPrefix())
		}
	}
	if len(out) == 0 {
		out = []string{"header authorization Bearer "}
	}
	slices.Sort(out)
	return out
}
